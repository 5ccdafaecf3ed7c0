//! From a path to a running engine: picks device, formats and sizes, and loads.

use crate::comm::meeting::Meeting;
use crate::comm::shared::Shared;
use crate::comm::Solo;
use crate::engine::{Abilities, Engine, Sink};
use crate::error::{Error, Result};
use crate::model::assemble::{assemble, assemble_vision, Precision};
use crate::model::config::{Head, ModelConfig};
use crate::model::decoder::Decoder;
use crate::model::shard::{Shard, MOST_RANKS};
use crate::parallel::{homes, Rank, Ranks};
use crate::runner::{Local, Runner};
use crate::scheduler::{Limits, Policy};
use crate::text::Tokenizer;
use crate::weights::{self, ModelFiles};
use serde::Serialize;
use sglang_kernels::cpu::{node, Cpu, Level};
use sglang_kernels::device::{KvFormat, KvShape, PAGE};
use sglang_kernels::quantize::WRITTEN;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::mpsc::channel;
use std::sync::Arc;

/// Rows of prompt in one step, unless the caller says otherwise.
const CHUNK: usize = 256;
/// Sequences that run at once, unless the caller says otherwise.
const MAX_RUNNING: usize = 64;
/// Sequences that wait, unless the caller says otherwise.
const MAX_QUEUED: usize = 4096;
/// Output tokens for which a sequence takes pages at once.
const AHEAD: usize = 256;
/// Share of the free memory that the KV cache may take.
const KV_SHARE: f64 = 0.4;
/// The KV cache holds this many sequences of full length, where memory allows.
const KV_CONTEXTS: usize = 8;

/// What to load and how; `None` is decided here.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// A GGUF file or a folder.
    pub model_path: PathBuf,
    /// The GGUF file of the vision tower, where that lies beside the one of the language model.
    pub mmproj: Option<PathBuf>,
    /// Where the tokenizer is, if not with the model.
    pub tokenizer_path: Option<PathBuf>,
    /// `auto` or `cpu`.
    pub device: Option<String>,
    /// How weights are kept: `auto` (quantized ones as stored, F16 and, without AMX, BF16 as integers of 14 bits),
    /// `float32`, or the format that those stored as floats are quantized to: `q8_0`, `q4_0`, `q4_1` or `q4_k`.
    pub dtype: Option<String>,
    /// `auto`, `float32`, `float16`, `bfloat16`, `int16` or `q8_0`.
    pub kv_cache_dtype: Option<String>,
    /// Ranks that share the model; 1 unless given.
    pub tp: Option<usize>,
    /// Compute threads of all ranks together, at least one each.
    pub threads: Option<usize>,
    /// Instruction set, by the name it has in the start-up line.
    pub simd: Option<String>,
    /// Longest sequence in tokens; it may be longer than the cache where attention has a window.
    pub context_length: Option<usize>,
    /// Size of the KV cache in tokens.
    pub max_total_tokens: Option<usize>,
    /// Most sequences that run at once.
    pub max_running_requests: Option<usize>,
    /// Most sequences that wait.
    pub max_queued_requests: Option<usize>,
    /// Most prompt rows of a step.
    pub chunked_prefill_size: Option<usize>,
    /// A name of [`Policy::NAMED`].
    pub schedule_policy: Option<String>,
    /// Whether prefixes are kept for later requests.
    pub reuse: bool,
}

/// What was loaded.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelCard {
    /// As given.
    pub model_path: String,
    /// As given, or the model's.
    pub tokenizer_path: String,
    /// E.g. `llama`.
    pub model_type: String,
    /// Class names of the configuration, e.g. `LlamaForCausalLM`.
    pub architectures: Vec<String>,
    /// Longest sequence in tokens.
    pub context_length: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Pictures may be in prompts.
    pub takes_images: bool,
    /// It has a head; one without embeds only.
    pub generates: bool,
    /// How its embeddings were trained, by the name in requests, where its files say so.
    pub pooling: Option<&'static str>,
    /// Whether their length is 1, where its files say so.
    pub normalize: Option<bool>,
    /// Text of the first token of a prompt.
    pub bos_token: Option<String>,
    /// Text of the first end token.
    pub eos_token: Option<String>,
    /// The first token of a prompt.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation.
    pub eos_token_ids: Vec<u32>,
    /// Jinja source.
    pub chat_template: Option<String>,
    /// Size of all tensors as stored.
    pub weight_bytes: u64,
    /// Ranks, device, instruction set and threads.
    pub device: String,
    /// Ranks that share the model.
    pub tp: usize,
    /// How weights are kept, as in [`LoadOptions`].
    pub dtype: String,
    /// Size of the KV cache in tokens.
    pub max_total_tokens: usize,
}

impl ModelCard {
    /// All of it under its names in camelCase.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and numbers are JSON")
    }
}

/// A loaded model, ready to start.
pub struct Loaded {
    /// What was loaded.
    pub card: ModelCard,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its computation.
    pub runner: Box<dyn Runner>,
    /// Sizes of its scheduler.
    pub limits: Limits,
    /// What it is for.
    pub abilities: Abilities,
}

impl Loaded {
    /// Starts the engine.
    pub fn start(self, sink: Sink) -> Engine {
        Engine::start_able(self.runner, self.tokenizer, self.limits, self.card.context_length, self.abilities, sink)
    }
}

/// Loads a model; `on_progress` is told bytes done and bytes in all.
pub fn load(options: &LoadOptions, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Loaded> {
    let files = weights::open_with(&options.model_path, options.mmproj.as_deref())?;
    let config = ModelConfig::of(&files)?;
    load_as(options, &files, config, on_progress)
}

/// Loads opened files as a model of this configuration.
pub fn load_as(
    options: &LoadOptions,
    files: &ModelFiles,
    config: ModelConfig,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<Loaded> {
    check_choice("device", options.device.as_deref(), &["auto", "cpu"])?;
    let precision = precision(options)?;
    let shards = Shard::of(&config, &*files.weights, precision, ranks(options)?)?;
    let sizes = Sizes::choose(options, &config, &shards, precision, files.weights.bytes())?;
    let limits = sizes.limits(options, config.sliding_window)?;
    let tokenizer = Arc::new(match &options.tokenizer_path {
        Some(path) => Tokenizer::at(path, &config)?,
        None => Tokenizer::of(files, &config)?,
    });
    let build = Build { options, files, config: &config, precision, kv: sizes.kv, max_rows: limits.max_rows() };
    let tp = shards.len();
    let runner = build.runner(shards, on_progress)?;
    let card = ModelCard {
        device: runner.describe(),
        tp,
        dtype: options.dtype.clone().unwrap_or_else(|| "auto".into()),
        context_length: sizes.context,
        max_total_tokens: sizes.kv.pages * PAGE,
        ..describe(options, files, &config, &tokenizer)?
    };
    let embeds_only = config.head == Head::None;
    let abilities = Abilities { sight: config.vision.map(|vision| vision.sight), embeds_only };
    Ok(Loaded { card, tokenizer, runner, limits, abilities })
}

/// What every rank is built of.
#[derive(Clone, Copy)]
struct Build<'a> {
    options: &'a LoadOptions,
    files: &'a ModelFiles,
    config: &'a ModelConfig,
    precision: Precision,
    kv: KvShape,
    max_rows: usize,
}

impl Build<'_> {
    /// Loads all ranks at once, each on a thread of its own that stays where the rank will run.
    fn runner(self, shards: Vec<Shard>, on_progress: &mut dyn FnMut(u64, u64)) -> Result<Box<dyn Runner>> {
        let (ranks, total) = (shards.len(), self.files.weights.bytes());
        let homes = homes(&if ranks > 1 { node::nodes() } else { Vec::new() }, ranks);
        let decoders = std::thread::scope(|scope| {
            let (send, receive) = channel();
            let build = |(shard, home): (Shard, &Vec<usize>)| {
                let (send, home) = (send.clone(), home.clone());
                scope.spawn(move || self.decoder(shard, &home, &|rank, bytes| _ = send.send((rank, bytes))))
            };
            let threads: Vec<_> = shards.into_iter().zip(&homes).map(build).collect();
            drop(send);
            let mut done = vec![0; ranks];
            for (rank, bytes) in receive {
                done[rank] = bytes;
                on_progress(done.iter().sum::<u64>().min(total), total);
            }
            let ended = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
            ended.collect::<Result<Vec<_>>>()
        })?;
        on_progress(total, total);
        join(decoders, homes)
    }

    fn decoder(self, shard: Shard, home: &[usize], on_bytes: &dyn Fn(usize, u64)) -> Result<Decoder<Cpu>> {
        if !home.is_empty() {
            node::stay_on(home);
        }
        let Build { options, files, config, precision, kv, max_rows } = self;
        let rank = shard.rank;
        let mut device = open_device(options, &shard)?;
        let on_bytes = &mut |bytes| on_bytes(rank, bytes);
        let weights = assemble(&*files.weights, config, &shard, &mut device, precision, on_bytes)?;
        let vision = config.vision.clone().filter(|_| rank == 0);
        let eyes = vision.as_ref().map(|v| assemble_vision(&*files.weights, config, v, &mut device)).transpose()?;
        let decoder = Decoder::new(device, config.clone(), shard, weights, kv, max_rows)?;
        match vision.zip(eyes) {
            Some((config, weights)) => Ok(decoder.with_vision(config, weights)?),
            None => Ok(decoder),
        }
    }
}

/// Joins ranks to a runner.
fn join(mut decoders: Vec<Decoder<Cpu>>, homes: Vec<Vec<usize>>) -> Result<Box<dyn Runner>> {
    if decoders.len() == 1 {
        return Ok(Box::new(Local::new(decoders.remove(0), Solo)));
    }
    let meeting = Arc::new(Meeting::new(decoders.len()));
    let ends = Shared::ends(&meeting, decoders.len());
    let parts = decoders.into_iter().zip(ends).zip(homes);
    let mut ranks = parts.map(|((decoder, comm), cores)| Rank { decoder, comm, cores });
    let first = ranks.next().expect("there are several ranks");
    Ok(Box::new(Ranks::start(meeting, first, ranks.collect())?))
}

fn ranks(options: &LoadOptions) -> Result<usize> {
    match options.tp.unwrap_or(1) {
        ranks @ 1..=MOST_RANKS => Ok(ranks),
        ranks => Err(Error::load(format!("tp {ranks}: expected 1 to {MOST_RANKS}"))),
    }
}

fn check_choice(option: &str, value: Option<&str>, choices: &[&str]) -> Result<()> {
    match value {
        Some(value) if !choices.contains(&value) => Err(unknown(option, value, choices)),
        _ => Ok(()),
    }
}

fn unknown(option: &str, value: &str, choices: &[&str]) -> Error {
    Error::load(format!("{option} {value:?}: expected one of {}", choices.join(", ")))
}

/// The device of a rank with its share of the threads; the first ranks, whose parts are the larger ones, have those that
/// are left over.
fn open_device(options: &LoadOptions, shard: &Shard) -> Result<Cpu> {
    let level = options.simd.as_deref().map(|name| name.parse::<Level>().map_err(Error::load)).transpose()?;
    let threads = options.threads.unwrap_or_else(physical_cores);
    let threads = threads / shard.ranks + usize::from(shard.rank < threads % shard.ranks);
    Ok(Cpu::new(threads, level)?)
}

fn describe(
    options: &LoadOptions,
    files: &ModelFiles,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<ModelCard> {
    let text = |id: u32| tokenizer.token_text(id).map(str::to_owned);
    let tokenizer_path = options.tokenizer_path.as_ref().unwrap_or(&options.model_path);
    Ok(ModelCard {
        model_path: options.model_path.display().to_string(),
        tokenizer_path: tokenizer_path.display().to_string(),
        model_type: config.model_type.clone(),
        architectures: config.architectures.clone(),
        vocab_size: config.vocab,
        takes_images: config.vision.is_some(),
        generates: config.head != Head::None,
        pooling: config.embedding.as_ref().map(|embedding| embedding.pooling),
        normalize: config.embedding.as_ref().map(|embedding| embedding.normalise),
        bos_token: config.bos.and_then(text),
        eos_token: config.eos.first().copied().and_then(text),
        bos_token_id: config.bos,
        eos_token_ids: config.eos.clone(),
        chat_template: files.chat_template()?,
        weight_bytes: files.weights.bytes(),
        ..ModelCard::default()
    })
}

/// Sizes that depend on the model and on memory.
struct Sizes {
    kv: KvShape,
    context: usize,
}

impl Sizes {
    /// Before the weights are loaded, whose `weight_bytes` the memory must hold too.
    fn choose(
        options: &LoadOptions,
        config: &ModelConfig,
        shards: &[Shard],
        precision: Precision,
        weight_bytes: u64,
    ) -> Result<Self> {
        let format = kv_format(options, precision)?;
        let (layers, kv_heads, head_size) = (config.layers, config.kv_heads, config.head_size);
        let held: usize = shards.iter().map(|shard| shard.kv_heads.len()).sum();
        let token_bytes = 2 * layers * held * format.vector_bytes(head_size);
        let wanted = options.context_length.unwrap_or(config.context);
        if wanted == 0 || wanted > config.context {
            let most = config.context;
            return Err(Error::load(format!("context length {wanted}: the model was made for 1 to {most} tokens")));
        }
        let free = available_memory().saturating_sub(weight_bytes);
        let affordable = (free as f64 * KV_SHARE) as usize / token_bytes;
        let tokens = options.max_total_tokens.unwrap_or(affordable.min(KV_CONTEXTS * wanted));
        let pages = tokens.div_ceil(PAGE);
        if pages == 0 {
            return Err(Error::load(format!("a KV cache of {tokens} tokens is too small: at least {PAGE} are needed")));
        }
        let (window, chunk) = (config.sliding_window, chunk(options));
        let any_length = window > 0 && pages >= Limits::least_pages(window, chunk);
        let context = if any_length { wanted } else { wanted.min(pages * PAGE) };
        Ok(Sizes { kv: KvShape { layers, kv_heads, head_size, pages, format }, context })
    }

    fn limits(&self, options: &LoadOptions, window: usize) -> Result<Limits> {
        Ok(Limits {
            chunk: chunk(options),
            max_running: options.max_running_requests.unwrap_or(MAX_RUNNING).max(1),
            max_queued: options.max_queued_requests.unwrap_or(MAX_QUEUED),
            ahead: AHEAD,
            pages: self.kv.pages,
            window,
            policy: policy(options)?,
            reuse: options.reuse,
        })
    }
}

fn chunk(options: &LoadOptions) -> usize {
    options.chunked_prefill_size.unwrap_or(CHUNK).max(1)
}

fn policy(options: &LoadOptions) -> Result<Policy> {
    let Some(name) = options.schedule_policy.as_deref() else { return Ok(Policy::default()) };
    let named = Policy::NAMED.iter().find(|(known, _)| *known == name);
    let names = Policy::NAMED.map(|(name, _)| name);
    named.map(|(_, policy)| *policy).ok_or_else(|| unknown("schedule policy", name, &names))
}

fn precision(options: &LoadOptions) -> Result<Precision> {
    let name = options.dtype.as_deref().unwrap_or("auto");
    let format = WRITTEN.into_iter().find(|format| format.to_string().eq_ignore_ascii_case(name));
    match (name, format) {
        ("auto", _) => Ok(Precision::AsStored),
        ("float32", _) => Ok(Precision::Float32),
        (_, Some(format)) => Ok(Precision::Quantized(format)),
        _ => Err(unknown("dtype", name, &["auto", "float32", "q8_0", "q4_0", "q4_1", "q4_k"])),
    }
}

fn kv_format(options: &LoadOptions, precision: Precision) -> Result<KvFormat> {
    match options.kv_cache_dtype.as_deref() {
        None | Some("auto") if precision == Precision::Float32 => Ok(KvFormat::F32),
        None | Some("auto") => Ok(KvFormat::Int16),
        Some(name) => name.parse().map_err(|e| Error::load(format!("kv cache dtype {e}"))),
    }
}

/// Bytes of memory that can be taken; 4 GiB where the system does not say.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.map_or(4 << 30, |kib| kib * 1024)
}

/// Cores this process may use, counting the threads of a core once.
fn physical_cores() -> usize {
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let siblings = |cpu: usize| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
    };
    let cores: std::collections::BTreeSet<_> = (0..).map_while(siblings).collect();
    if cores.is_empty() {
        return usable;
    }
    usable.min(cores.len())
}

//! JavaScript shapes of the engine's nouns, one to one.

use napi::bindgen_prelude::{Buffer, Float32Array};
use napi_derive::napi;
use sglang_engine::engine::Stats;
use sglang_engine::grammar::Constraint;
use sglang_engine::loader;
use sglang_engine::request::{self, FinishReason, Prompt};
use sglang_engine::scheduler::TreeNode;
use std::collections::HashMap;

/// What to load and how; what is left out is decided by the engine.
#[napi(object)]
pub struct NativeLoadOptions {
    /// A GGUF file or a folder in the Hugging Face layout.
    pub model_path: String,
    /// The GGUF file of a vision tower.
    pub mmproj: Option<String>,
    /// A folder or tokenizer.json to use in place of the model's own.
    pub tokenizer_path: Option<String>,
    /// `auto` or `cpu`.
    pub device: Option<String>,
    /// `auto` (quantized weights as stored, F16 and, without AMX, BF16 as integers of 14 bits), `float32`, or what floats are quantized to:
    /// `q8_0`, `q4_0`, `q4_1`, `q4_k`.
    pub dtype: Option<String>,
    /// `auto`, `float32`, `float16`, `bfloat16`, `int16` or `q8_0`.
    pub kv_cache_dtype: Option<String>,
    /// Ranks that share the model.
    pub tp: Option<u32>,
    /// Of all ranks together.
    pub threads: Option<u32>,
    /// Instruction set to use in place of the best one.
    pub simd: Option<String>,
    pub context_length: Option<u32>,
    pub max_total_tokens: Option<u32>,
    pub max_running_requests: Option<u32>,
    pub max_queued_requests: Option<u32>,
    pub chunked_prefill_size: Option<u32>,
    /// `lpm`, `fcfs`, `dfs-weight` or `random`.
    pub schedule_policy: Option<String>,
    pub disable_radix_cache: Option<bool>,
}

impl NativeLoadOptions {
    /// The engine's options.
    pub fn translate(self) -> loader::LoadOptions {
        loader::LoadOptions {
            model_path: self.model_path.into(),
            mmproj: self.mmproj.map(Into::into),
            tokenizer_path: self.tokenizer_path.map(Into::into),
            device: self.device,
            dtype: self.dtype,
            kv_cache_dtype: self.kv_cache_dtype,
            tp: self.tp.map(|n| n as usize),
            threads: self.threads.map(|n| n as usize),
            simd: self.simd,
            context_length: self.context_length.map(|n| n as usize),
            max_total_tokens: self.max_total_tokens.map(|n| n as usize),
            max_running_requests: self.max_running_requests.map(|n| n as usize),
            max_queued_requests: self.max_queued_requests.map(|n| n as usize),
            chunked_prefill_size: self.chunked_prefill_size.map(|n| n as usize),
            schedule_policy: self.schedule_policy,
            reuse: !self.disable_radix_cache.unwrap_or(false),
        }
    }
}

/// How far loading is.
#[napi(object)]
pub struct NativeProgress {
    pub done_bytes: f64,
    pub total_bytes: f64,
}

/// One generation. Fields without a value take the engine's default.
#[napi(object)]
pub struct NativeRequest {
    pub id: f64,
    pub text: Option<String>,
    pub input_ids: Option<Vec<u32>>,
    /// Files of the pictures, in the order of their marks.
    pub images: Option<Vec<Buffer>>,
    pub priority: Option<i32>,
    /// Cache namespace: two 32-bit halves.
    pub namespace: Option<Vec<u32>>,
    pub return_logprob: Option<bool>,
    pub prompt_logprob_start: Option<u32>,
    pub top_logprobs: Option<u32>,
    pub token_ids_logprob: Option<Vec<u32>>,
    /// `last` or `mean`: the prompt's embedding is wanted, and nothing else.
    pub pooling: Option<String>,
    pub max_new_tokens: Option<u32>,
    pub min_new_tokens: Option<u32>,
    pub stop: Option<Vec<String>>,
    pub stop_token_ids: Option<Vec<u32>>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<f64>,
    pub min_p: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    pub repetition_penalty: Option<f64>,
    pub logit_bias: Option<Vec<NativeLogprob>>,
    /// Two 32-bit halves.
    pub seed: Vec<u32>,
    pub ignore_eos: Option<bool>,
    pub skip_special_tokens: Option<bool>,
    pub no_stop_trim: Option<bool>,
    /// Kind and text of the constraint, e.g. `regex` and the pattern.
    pub constraint: Option<Vec<String>>,
}

impl NativeRequest {
    /// The engine's request.
    pub fn translate(self) -> request::Request {
        request::Request {
            id: self.id as u64,
            images: self.images.iter().flatten().map(|file| file.to_vec()).collect(),
            priority: self.priority.unwrap_or(0),
            namespace: self.namespace.as_deref().map_or(0, join_halves),
            logprobs: request::LogprobParams {
                enabled: self.return_logprob.unwrap_or(false),
                prompt_start: self.prompt_logprob_start.map(|start| start as usize),
                top: self.top_logprobs.unwrap_or(0) as usize,
                of_tokens: self.token_ids_logprob.clone().unwrap_or_default(),
            },
            pooling: self.pooling.as_deref().and_then(request::Pooling::named),
            sampling: self.sampling(),
            prompt: match (self.text, self.input_ids) {
                (Some(text), _) => Prompt::Text(text),
                (None, tokens) => Prompt::Tokens(tokens.unwrap_or_default()),
            },
        }
    }

    fn sampling(&self) -> request::SamplingParams {
        let standard = request::SamplingParams::default();
        let number = |value: Option<f64>, default: f32| value.map_or(default, |value| value as f32);
        let constraint = self.constraint.as_deref().and_then(|pair| Some((pair.first()?, pair.get(1)?)));
        let bias = self.logit_bias.iter().flatten().map(|entry| (entry.token, entry.logprob as f32));
        request::SamplingParams {
            max_new_tokens: self.max_new_tokens.map(|n| n as usize),
            min_new_tokens: self.min_new_tokens.unwrap_or(0) as usize,
            stop: self.stop.clone().unwrap_or_default(),
            stop_token_ids: self.stop_token_ids.clone().unwrap_or_default(),
            temperature: number(self.temperature, standard.temperature),
            top_p: number(self.top_p, standard.top_p),
            top_k: self.top_k.map_or(standard.top_k, |k| k as i64),
            min_p: number(self.min_p, standard.min_p),
            frequency_penalty: number(self.frequency_penalty, standard.frequency_penalty),
            presence_penalty: number(self.presence_penalty, standard.presence_penalty),
            repetition_penalty: number(self.repetition_penalty, standard.repetition_penalty),
            logit_bias: bias.collect(),
            seed: join_halves(&self.seed),
            ignore_eos: self.ignore_eos.unwrap_or(standard.ignore_eos),
            skip_special_tokens: self.skip_special_tokens.unwrap_or(standard.skip_special_tokens),
            no_stop_trim: self.no_stop_trim.unwrap_or(standard.no_stop_trim),
            constraint: constraint.and_then(|(kind, text)| Constraint::named(kind, text.clone()).ok()),
        }
    }
}

fn join_halves(halves: &[u32]) -> u64 {
    halves.iter().take(2).fold(0, |joined, &half| joined << 32 | u64::from(half))
}

/// A token and a number that belongs to it.
#[napi(object)]
pub struct NativeLogprob {
    pub token: u32,
    pub logprob: f64,
}

/// Log-probabilities at one position.
#[napi(object)]
pub struct NativePosition {
    pub token: u32,
    pub logprob: Option<f64>,
    pub top: Vec<NativeLogprob>,
    pub of_tokens: Vec<NativeLogprob>,
}

impl From<request::TokenLogprob> for NativePosition {
    fn from(entry: request::TokenLogprob) -> Self {
        let pairs = |list: Vec<(u32, f32)>| {
            list.into_iter().map(|(token, logprob)| NativeLogprob { token, logprob: f64::from(logprob) }).collect()
        };
        NativePosition {
            token: entry.token,
            logprob: entry.logprob.map(f64::from),
            top: pairs(entry.top),
            of_tokens: pairs(entry.of_tokens),
        }
    }
}

/// What happened to a request in one step.
#[napi(object)]
pub struct NativeEvent {
    pub id: f64,
    pub text: String,
    pub tokens: Vec<u32>,
    pub logprobs: Vec<NativePosition>,
    pub prompt_logprobs: Vec<NativePosition>,
    /// In one event, where asked for.
    pub embedding: Option<Float32Array>,
    /// In one event, when the request leaves the queue.
    pub admitted: Option<NativeAdmitted>,
    pub finish: Option<NativeFinish>,
}

/// The start of a request's computation.
#[napi(object)]
pub struct NativeAdmitted {
    pub prompt_tokens: u32,
    pub cached_tokens: u32,
    pub queue_seconds: f64,
}

impl From<request::Event> for NativeEvent {
    fn from(event: request::Event) -> Self {
        NativeEvent {
            id: event.id as f64,
            text: event.text,
            tokens: event.tokens,
            logprobs: event.logprobs.into_iter().map(Into::into).collect(),
            prompt_logprobs: event.prompt_logprobs.into_iter().map(Into::into).collect(),
            embedding: (!event.embedding.is_empty()).then(|| event.embedding.into()),
            admitted: event.admitted.map(|admitted| NativeAdmitted {
                prompt_tokens: admitted.prompt_tokens as u32,
                cached_tokens: admitted.cached_tokens as u32,
                queue_seconds: admitted.queued.as_secs_f64(),
            }),
            finish: event.finish.map(Into::into),
        }
    }
}

/// The end of a request.
#[napi(object)]
#[derive(Default)]
pub struct NativeFinish {
    /// `stop`, `length`, `abort` or `error`.
    pub reason: String,
    pub stop_token: Option<u32>,
    pub stop_text: Option<String>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    pub error_param: Option<String>,
    pub prompt_tokens: u32,
    pub completion_tokens: u32,
    pub cached_tokens: u32,
    pub discarded_tokens: u32,
}

impl From<request::Finish> for NativeFinish {
    fn from(finish: request::Finish) -> Self {
        let mut native = NativeFinish {
            reason: finish.reason.kind().into(),
            prompt_tokens: finish.prompt_tokens as u32,
            completion_tokens: finish.completion_tokens as u32,
            cached_tokens: finish.cached_tokens as u32,
            discarded_tokens: finish.discarded_tokens as u32,
            ..NativeFinish::default()
        };
        match finish.reason {
            FinishReason::StopToken(token) => native.stop_token = Some(token),
            FinishReason::StopText(text) => native.stop_text = Some(text),
            FinishReason::Failed { code, message, param } => {
                native.error_code = Some(code.into());
                native.error_message = Some(message);
                native.error_param = param.map(Into::into);
            }
            FinishReason::Complete | FinishReason::Length | FinishReason::Aborted => {}
        }
        native
    }
}

/// State of the engine by name: sizes in tokens, times in seconds.
pub fn numbers(stats: &Stats) -> HashMap<&'static str, f64> {
    let tokens = |pages: usize| (pages * sglang_engine::PAGE) as f64;
    let (totals, times) = (stats.totals, stats.times);
    HashMap::from([
        ("running", stats.running as f64),
        ("waiting", stats.waiting as f64),
        ("totalTokens", tokens(stats.total_pages)),
        ("freeTokens", tokens(stats.free_pages)),
        ("cachedTokens", tokens(stats.cached_pages)),
        ("evictableTokens", tokens(stats.evictable_pages)),
        ("leasedTokens", tokens(stats.leased_pages)),
        ("promptTokensTotal", totals.prompt_tokens as f64),
        ("cachedPromptTokensTotal", totals.cached_tokens as f64),
        ("generationTokensTotal", totals.generated_tokens as f64),
        ("computedTokensTotal", totals.computed_tokens as f64),
        ("evictedTokensTotal", stats.evicted_tokens as f64),
        ("retractedTotal", totals.retracted as f64),
        ("abortedTotal", totals.aborted as f64),
        ("finishedTotal", totals.finished as f64),
        ("stepsTotal", totals.steps as f64),
        ("admitSeconds", times.admit.as_secs_f64()),
        ("scheduleSeconds", times.schedule.as_secs_f64()),
        ("runSeconds", times.run.as_secs_f64()),
        ("commitSeconds", times.commit.as_secs_f64()),
        ("emitSeconds", times.emit.as_secs_f64()),
    ])
}

/// A node of the prefix tree.
#[napi(object)]
pub struct NativeTreeNode {
    /// Place of the parent in the list; none for the root of a namespace.
    pub parent: Option<u32>,
    /// In hexadecimal; 0 without a salt.
    pub namespace: String,
    pub tokens: u32,
    pub pages: u32,
    pub hits: f64,
    pub leases: u32,
    pub text: Option<String>,
}

impl NativeTreeNode {
    /// With the text of its tokens, where `show` gives it.
    pub fn new(node: TreeNode, show: impl FnOnce(&[u32]) -> Option<String>) -> Self {
        NativeTreeNode {
            parent: node.parent.map(|i| i as u32),
            namespace: format!("{:x}", node.namespace),
            text: show(&node.tokens),
            tokens: node.tokens.len() as u32,
            pages: node.pages as u32,
            hits: node.hits as f64,
            leases: node.leases,
        }
    }
}

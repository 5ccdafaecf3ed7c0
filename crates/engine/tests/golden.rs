//! The numbers are right: tiny checkpoints and the default model against reference outputs computed by transformers in
//! float32, and the same answers whatever the chunks, the cache, the neighbours and the number of threads.

mod fixtures;
mod made;

use candle_core::quantized::GgmlDType;
use fixtures::{default_model, fixture, json, Scratch};
use serde_json::Value;
use sglang_engine::loader::{self, LoadOptions};
use sglang_engine::model::config::{ModelConfig, Rope, RopeScaling};
use sglang_engine::request::{Event, FinishReason, LogprobParams, Pooling, Prompt, Request, SamplingParams};
use sglang_engine::Engine;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{channel, Receiver};

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().map_or(f32::NAN, |v| v as f32)).collect()
}

fn tokens(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// The tiny checkpoints of language models.
const TINY: [&str; 8] = ["llama", "llama3", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"];

struct Running {
    engine: Engine,
    events: Receiver<Vec<Event>>,
    vocab: usize,
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Answer {
    tokens: Vec<u32>,
    text: String,
    /// Of the output tokens.
    logprobs: Vec<f32>,
    /// Of the prompt tokens, from the second one.
    prompt_logprobs: Vec<f32>,
    /// The most likely token at each of these positions, where asked for.
    likeliest: Vec<u32>,
    /// (token, log-probability) of the whole vocabulary at the first output token, where asked for.
    first: Vec<(u32, f32)>,
    cached: usize,
    embedding: Vec<f32>,
}

impl Running {
    fn start(options: LoadOptions) -> Self {
        Self::start_as(options, |_| {})
    }

    fn start_as(options: LoadOptions, change: fn(&mut ModelConfig)) -> Self {
        let files = sglang_engine::weights::open_with(&options.model_path, options.mmproj.as_deref()).unwrap();
        let mut config = ModelConfig::of(&files).unwrap();
        change(&mut config);
        let options = LoadOptions { reuse: true, ..options };
        let loaded = loader::load_as(&options, &files, config, &mut |_, _| {}).unwrap();
        let (send, events) = channel();
        let vocab = loaded.card.vocab_size;
        Running { engine: loaded.start(Box::new(move |events| drop(send.send(events)))), events, vocab }
    }

    /// Runs all requests at once; answers in their order.
    fn ask(&self, requests: Vec<Request>) -> Vec<Answer> {
        let n = requests.len();
        for (id, request) in (0..).zip(requests) {
            self.engine.submit(Request { id, ..request });
        }
        let mut answers: BTreeMap<u64, Answer> = BTreeMap::new();
        let mut finished = 0;
        while finished < n {
            for event in self.events.recv().unwrap() {
                let answer = answers.entry(event.id).or_default();
                if answer.first.is_empty() {
                    answer.first = event.logprobs.first().map(|entry| entry.of_tokens.clone()).unwrap_or_default();
                }
                answer.tokens.extend(event.tokens);
                answer.text.push_str(&event.text);
                answer.logprobs.extend(event.logprobs.iter().filter_map(|entry| entry.logprob));
                answer.prompt_logprobs.extend(event.prompt_logprobs.iter().filter_map(|entry| entry.logprob));
                let tops = event.prompt_logprobs.iter().filter_map(|entry| entry.top.first());
                answer.embedding.extend(event.embedding);
                answer.likeliest.extend(tops.map(|&(token, _)| token));
                if let Some(finish) = event.finish {
                    let failed = matches!(finish.reason, FinishReason::Failed { .. });
                    assert!(!failed, "{:?}", finish.reason);
                    answer.cached = finish.cached_tokens;
                    finished += 1;
                }
            }
        }
        answers.into_values().collect()
    }

    fn ask_one(&self, request: Request) -> Answer {
        self.ask(vec![request]).remove(0)
    }

    fn flush(&self) {
        let (send, done) = channel();
        self.engine.flush(Box::new(move |dropped| send.send(dropped.unwrap()).unwrap()));
        done.recv().unwrap();
    }
}

fn greedy(prompt: Prompt, max_new: usize) -> Request {
    let sampling =
        SamplingParams { temperature: 0.0, max_new_tokens: Some(max_new), ignore_eos: true, ..Default::default() };
    let logprobs = LogprobParams { enabled: true, prompt_start: Some(0), ..Default::default() };
    Request { prompt, sampling, logprobs, ..Default::default() }
}

fn float32(model_path: PathBuf) -> LoadOptions {
    let dtype = Some("float32".to_owned());
    LoadOptions { model_path, dtype, context_length: Some(512), ..Default::default() }
}

fn assert_close(what: &str, ours: &[f32], reference: &[f32], tolerance: f32) {
    assert_eq!(ours.len(), reference.len(), "{what}: number of values");
    for (i, (a, b)) in ours.iter().zip(reference).enumerate() {
        assert!((a - b).abs() <= tolerance, "{what} [{i}]: {a} is not within {tolerance} of {b}");
    }
}

/// Log-softmax of reference logits.
fn log_softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|&v| f64::from(v - max).exp()).sum();
    logits.iter().map(|&v| v - max - sum.ln() as f32).collect()
}

/// Greedy tokens must be the reference's up to the first choice that is closer than `margin`.
fn assert_same_choices(what: &str, ours: &[u32], reference: &[u32], margins: &[f32], margin: f32) {
    let sure = margins.iter().position(|&m| m < margin).unwrap_or(reference.len());
    assert_eq!(ours[..sure], reference[..sure], "{what}: greedy tokens");
}

/// The references of the tiny checkpoints were computed after the whole model, with its rotary frequencies, had been cast
/// to bfloat16 and back.
fn round_frequencies(config: &mut ModelConfig) {
    let rounded = config.inv_freq().into_iter().map(|f| half::bf16::from_f32(f).to_f32());
    let plain = ModelConfig { rope: Rope { theta: config.rope.theta, scaling: RopeScaling::None }, ..config.clone() };
    let factors = plain.inv_freq().into_iter().zip(rounded).map(|(f, rounded)| f / rounded).collect();
    config.rope.scaling = RopeScaling::Factors(factors);
}

/// Logits up to a constant: the reference's, as log-probabilities, against ours of the whole vocabulary.
fn check_tiny(name: &str, options: LoadOptions) {
    let running = Running::start_as(options, round_frequencies);
    for case in json(&format!("{name}/reference.json"))["cases"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        check_case(&format!("{name} {prompt:?}"), &running, Request::default(), prompt, case);
    }
}

/// The answer to `prompt`, with all else as in `request`.
fn check_case(what: &str, running: &Running, request: Request, prompt: &str, case: &Value) {
    let greedy_ids = tokens(&case["greedy_ids"]);
    let Request { images, .. } = request;
    let mut request = Request { images, ..greedy(Prompt::Text(prompt.into()), greedy_ids.len()) };
    request.logprobs.of_tokens = (0..running.vocab as u32).collect();
    let answer = running.ask_one(request);
    let first: Vec<f32> = answer.first.iter().map(|&(_, logprob)| logprob).collect();
    assert_close(&format!("{what}: last logits"), &first, &log_softmax(&floats(&case["last_logits"])), 2e-3);
    let prompt_logprobs = floats(&case["prompt_logprobs"]);
    assert_close(&format!("{what}: prompt log-probabilities"), &answer.prompt_logprobs, &prompt_logprobs[1..], 1e-3);
    let margin = case["min_margin"].as_f64().unwrap() as f32;
    assert_same_choices(what, &answer.tokens, &greedy_ids, &vec![margin; greedy_ids.len()], 4e-3);
}

#[test]
fn tiny_checkpoints_match_the_reference() {
    for name in TINY {
        check_tiny(name, float32(fixture(name)));
    }
}

/// The model over `ranks` ranks of one thread each.
fn over(ranks: usize, options: LoadOptions) -> LoadOptions {
    LoadOptions { tp: Some(ranks), threads: Some(ranks), ..options }
}

#[test]
fn tiny_checkpoints_match_the_reference_over_several_ranks() {
    for name in TINY {
        for ranks in [2, 4] {
            check_tiny(name, over(ranks, float32(fixture(name))));
        }
    }
    check_eyes(over(2, LoadOptions::default()), &["llava", "llava-original"]);
    check_eyes(over(4, LoadOptions::default()), &["llava"]);
}

/// LLaVA in both layouts, each case with the picture.
#[test]
fn tiny_eyes_match_the_reference() {
    check_eyes(LoadOptions::default(), &["llava", "llava-original"]);
}

fn check_eyes(options: LoadOptions, names: &[&str]) {
    let image = std::fs::read(fixture("llava/image.png")).unwrap();
    let reference = json("llava/reference.json");
    for name in names {
        let LoadOptions { tp, threads, .. } = options;
        let options = LoadOptions { tokenizer_path: Some(fixture("llava")), tp, threads, ..float32(fixture(name)) };
        let running = Running::start_as(options, round_frequencies);
        for case in reference["cases"].as_array().unwrap() {
            let prompt = case["prompt"].as_str().unwrap();
            let request = Request { images: vec![image.clone()], ..Default::default() };
            check_case(&format!("{name} {prompt:?}"), &running, request, prompt, case);
        }
    }
}

/// The same picture is known again, another one is not taken for it, and the chunks do not matter.
#[test]
fn pictures_are_cached_by_their_content() {
    let [same, other] = ["llava/image.png", "images/flag.png"].map(|name| std::fs::read(fixture(name)).unwrap());
    let ask = |running: &Running, image: &[u8], question: &str| {
        let mut request = greedy(Prompt::Text(format!("<image>\n{question}")), 12);
        request.logprobs.prompt_start = None;
        running.ask_one(Request { images: vec![image.to_vec()], ..request })
    };
    let options = |chunk| LoadOptions { chunked_prefill_size: Some(chunk), ..float32(fixture("llava")) };
    let running = Running::start(options(256));
    let first = ask(&running, &same, "What is it?");
    let other_first = ask(&running, &other, "What is it?");
    assert!(first.cached == 0 && other_first.cached <= 1, "only BOS is common, not {} tokens", other_first.cached);
    assert_ne!(first.logprobs, other_first.logprobs);
    let again = ask(&running, &same, "Where is it?");
    assert!(again.cached >= 17, "{} tokens came from the cache", again.cached);
    for chunk in [5, 256] {
        let cold = ask(&Running::start(options(chunk)), &same, "Where is it?");
        assert_eq!(Answer { cached: 0, ..again.clone() }, cold, "chunks of {chunk}");
    }
}

#[test]
fn pictures_and_their_marks_must_agree() {
    let image = std::fs::read(fixture("llava/image.png")).unwrap();
    let refusal = |name: &str, text: &str, images: Vec<Vec<u8>>| {
        let running = Running::start(float32(fixture(name)));
        running.engine.submit(Request { images, ..greedy(Prompt::Text(text.into()), 1) });
        match running.events.recv().unwrap().remove(0).finish.unwrap().reason {
            FinishReason::Failed { message, param, .. } => (param, message),
            reason => panic!("{reason:?}"),
        }
    };
    let at = Some("image_data");
    assert_eq!(refusal("llama", "<image>", vec![image.clone()]), (at, "the model does not take images".into()));
    let message = "2 image(s) for 1 <image> mark(s) in the prompt".to_owned();
    assert_eq!(refusal("llava", "<image>", vec![image.clone(), image.clone()]), (at, message));
    let message = "0 image(s) for 1 <image> mark(s) in the prompt".to_owned();
    assert_eq!(refusal("llava", "a<image>", vec![]), (at, message));
    let message = "an image cannot be read: it is no PNG, JPEG, WebP or GIF file".to_owned();
    assert_eq!(refusal("llava", "<image>", vec![b"no image".to_vec()]), (at, message));
}

/// The mean and the largest difference of log-probabilities between a checkpoint and a GGUF file made of it, both with some
/// change of their configuration.
fn differences(name: &str, format: GgmlDType, change: fn(&mut ModelConfig)) -> (f32, f32) {
    let scratch = Scratch::new();
    let made = scratch.0.join("made.gguf");
    made::gguf(name, format, &made);
    let text = "The license for this software is free: you may copy and change it, and pass it on as you like.";
    let logprobs = |model_path: PathBuf| {
        let options = LoadOptions { tokenizer_path: Some(fixture(name)), ..float32(model_path) };
        Running::start_as(options, change).ask_one(greedy(Prompt::Text(text.into()), 1)).prompt_logprobs
    };
    let (source, made) = (logprobs(fixture(name)), logprobs(made));
    let each: Vec<f32> = source.iter().zip(&made).map(|(a, b)| (a - b).abs()).collect();
    assert!(each.len() > 30, "{} tokens are too few", each.len());
    (each.iter().sum::<f32>() / each.len() as f32, each.iter().copied().fold(0.0, f32::max))
}

/// Lets each token go to all experts, so that rounding cannot change which: that alone is ten times what it does to the
/// numbers of the tiny Mixtral in Q8_0.
fn all_experts(config: &mut ModelConfig) {
    if let Some(experts) = &mut config.experts {
        experts.per_token = experts.count;
    }
}

/// Every architecture as a GGUF file: the same model, but for what the format rounds.
#[test]
fn gguf_files_are_the_checkpoints_they_were_made_of() {
    for name in TINY {
        for (format, mean, most) in
            [(GgmlDType::F32, 1e-4, 1e-3), (GgmlDType::F16, 1e-2, 0.1), (GgmlDType::Q8_0, 0.05, 0.2)]
        {
            let found = differences(name, format, all_experts);
            assert!(
                found.0 <= mean && found.1 <= most,
                "{name} in {format:?}: mean and largest difference are {found:?}"
            );
        }
        let [rounded, exact] = [GgmlDType::Q4_0, GgmlDType::Q8_0].map(|format| differences(name, format, |_| {}).0);
        assert!(rounded < 1.0 && exact < rounded, "{name}: Q4_0 differs by {rounded}, Q8_0 by {exact}");
    }
}

/// LLaVA as a GGUF file of the language model and one of its eyes, in both spellings.
#[test]
fn eyes_in_a_file_of_their_own_are_the_checkpoint_they_were_made_of() {
    let image = std::fs::read(fixture("llava/image.png")).unwrap();
    let scratch = Scratch::new();
    let [model, mmproj] = ["model.gguf", "mmproj.gguf"].map(|name| scratch.0.join(name));
    let tokenizer_path = Some(fixture("llava"));
    let ask = |model_path: PathBuf, mmproj, prompt: &str| {
        let options = LoadOptions { mmproj, tokenizer_path: tokenizer_path.clone(), ..float32(model_path) };
        let request = greedy(Prompt::Text(prompt.into()), 1);
        Running::start(options).ask_one(Request { images: vec![image.clone()], ..request }).prompt_logprobs
    };
    let reference = json("llava/reference.json");
    for (format, spelling, most) in [
        (GgmlDType::F32, made::Spelling::New, 1e-3),
        (GgmlDType::F32, made::Spelling::Old, 1e-3),
        (GgmlDType::F16, made::Spelling::Old, 0.1),
        (GgmlDType::Q8_0, made::Spelling::New, 0.2),
    ] {
        made::gguf("llava", format, &model);
        made::eyes(spelling).write(format, &mmproj);
        let case = &reference["cases"][0];
        let prompt = case["prompt"].as_str().unwrap();
        let [source, made] = [(fixture("llava"), None), (model.clone(), Some(mmproj.clone()))]
            .map(|(model, mmproj)| ask(model, mmproj, prompt));
        assert_close(&format!("{format:?}, {spelling:?}"), &made, &source, most);
        if format == GgmlDType::F32 {
            let options = LoadOptions {
                mmproj: Some(mmproj.clone()),
                tokenizer_path: tokenizer_path.clone(),
                ..float32(model.clone())
            };
            let running = Running::start_as(options, round_frequencies);
            let request = Request { images: vec![image.clone()], ..Default::default() };
            check_case(&format!("{spelling:?} {prompt:?}"), &running, request, prompt, case);
        }
    }
}

/// GGUF files with their own vocabulary; each format against the float32 forward over its own dequantized weights.
#[test]
fn gguf_formats_match_the_reference() {
    let reference = json("gguf/reference.json");
    let prompt = reference["prompt"].as_str().unwrap();
    for (format, ranks) in [("F32", 1), ("Q4_1", 2), ("Q8_0", 1), ("Q4_K", 1), ("Q4_K", 4), ("IQ4_XS", 1)] {
        let running = Running::start(over(ranks, float32(fixture(&format!("gguf/{format}.gguf")))));
        check_case(format, &running, Request::default(), prompt, &reference["formats"][format]);
    }
}

/// A checkpoint of floats, quantized while it is loaded, is the file that was quantized before.
#[test]
fn quantizing_while_loading_is_quantizing_before() {
    let ask = |file: &str, dtype: &str| {
        let model_path = fixture(&format!("gguf/{file}.gguf"));
        let options = LoadOptions { model_path, dtype: Some(dtype.into()), ..Default::default() };
        let answer = Running::start(options).ask_one(greedy(Prompt::Text("One, two, three".into()), 8));
        (answer.prompt_logprobs, answer.tokens)
    };
    assert_eq!(ask("F32", "q8_0"), ask("Q8_0", "auto"));
    assert_ne!(ask("F32", "q4_k"), ask("F32", "auto"));
}

#[test]
fn the_default_model_matches_the_reference() {
    check_default_model(float32(default_model()), usize::MAX);
}

#[test]
fn the_default_model_matches_the_reference_over_several_ranks() {
    check_default_model(over(2, float32(default_model())), 2);
    check_default_model(over(4, float32(default_model())), 2);
}

/// The last so many cases of the reference.
fn check_default_model(options: LoadOptions, cases: usize) {
    let running = Running::start(options);
    let reference = json("smollm2-135m-q4_1.json");
    let (mut error, mut n) = (0.0, 0);
    for case in reference["cases"].as_array().unwrap().iter().rev().take(cases) {
        let prompt = case["prompt"].as_str().unwrap();
        let greedy_ids = tokens(&case["greedy_ids"]);
        let answer = running.ask_one(greedy(Prompt::Text(prompt.into()), greedy_ids.len()));
        let expected = &floats(&case["prompt_logprobs"])[1..];
        assert_eq!(answer.prompt_logprobs.len(), expected.len(), "{prompt:?}: number of prompt tokens");
        error += answer.prompt_logprobs.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
        n += expected.len();
        assert_same_choices(prompt, &answer.tokens, &greedy_ids, &floats(&case["greedy_margins"]), 0.1);
    }
    let mean = error / n as f64;
    assert!(mean <= 0.02, "mean absolute difference of prompt log-probabilities is {mean}");
}

/// Prompts with a common beginning, and what each is answered when alone, cold and in one piece.
fn invariance_requests() -> Vec<Request> {
    let start = "Once upon a time there was a king who had three daughters, and the youngest of them ";
    let ends = ["loved the sea.", "loved the sea more than all the gold of the land.", "was", "could speak to birds; "];
    let prompts = ends.iter().map(|end| Prompt::Text(format!("{start}{end}")));
    let embedded =
        [Pooling::Last, Pooling::Mean].map(|pooling| embed(Prompt::Text(format!("{start}{}", ends[1])), pooling));
    let sampled = |request: &Request, seed| {
        let sampling = SamplingParams { temperature: 0.9, top_p: 0.9, seed, ..request.sampling.clone() };
        Request { sampling, ..request.clone() }
    };
    let plain: Vec<Request> = prompts.map(|prompt| greedy(prompt, 12)).collect();
    let seeded: Vec<Request> = (7..).zip(&plain).map(|(seed, request)| sampled(request, seed)).collect();
    plain.into_iter().chain(seeded).chain(embedded).collect()
}

/// The same answers, bit for bit: alone or among 39 others, cold or cached, for each number of threads and chunk size.
fn check_invariance(options: &LoadOptions, threads_and_chunks: &[(usize, usize)]) {
    let alone = |options: LoadOptions| {
        let running = Running::start(options);
        let cold = |request| {
            running.flush();
            running.ask_one(request)
        };
        invariance_requests().into_iter().map(cold).collect::<Vec<_>>()
    };
    let expected = alone(LoadOptions { threads: Some(1), ..options.clone() });
    for &(threads, chunk) in threads_and_chunks {
        let options = LoadOptions { threads: Some(threads), chunked_prefill_size: Some(chunk), ..options.clone() };
        assert_eq!(alone(options.clone()), expected, "{threads} threads, chunks of {chunk}");
        let running = Running::start(options);
        let crowd: Vec<Request> = (0..4).flat_map(|_| invariance_requests()).collect();
        for round in ["cold", "cached"] {
            let answers = running.ask(crowd.clone());
            for (i, answer) in answers.iter().enumerate() {
                let expected = Answer { cached: answer.cached, ..expected[i % expected.len()].clone() };
                assert_eq!(*answer, expected, "request {i} of 40, {round}, {threads} threads, chunks of {chunk}");
            }
        }
    }
}

/// The embedding of a prompt.
fn embed(prompt: Prompt, pooling: Pooling) -> Request {
    let sampling = SamplingParams { max_new_tokens: Some(0), ..Default::default() };
    Request { prompt, sampling, pooling: Some(pooling), ..Default::default() }
}

/// The head makes the reference's logits of the last state. There are more tokens than dimensions, so no other state has
/// these logits.
#[test]
fn last_states_give_the_logits_of_the_reference() {
    for name in TINY {
        let running = Running::start_as(float32(fixture(name)), round_frequencies);
        let files = sglang_engine::weights::open(&fixture(name)).unwrap();
        let head = ["lm_head.weight", "model.embed_tokens.weight"].into_iter().find(|head| files.weights.has(head));
        let head = files.weights.tensor(head.unwrap()).unwrap().to_f32();
        for case in json(&format!("{name}/reference.json"))["cases"].as_array().unwrap() {
            let prompt = case["prompt"].as_str().unwrap();
            let state = running.ask_one(embed(Prompt::Text(prompt.into()), Pooling::Last)).embedding;
            assert!(running.vocab > state.len());
            let logit = |row: &[f32]| row.iter().zip(&state).map(|(a, b)| a * b).sum::<f32>();
            let logits: Vec<f32> = head.chunks(state.len()).map(logit).collect();
            assert_close(&format!("{name} {prompt:?}"), &logits, &floats(&case["last_logits"]), 2e-3);
        }
    }
}

/// Pooled states, scaled to length 1, are the vectors of sentence-transformers.
#[test]
fn embeddings_match_the_reference() {
    let made = json("embeddings/embeddings.json");
    for (name, (mode, pooling)) in ["llama3", "qwen3"]
        .into_iter()
        .flat_map(|n| [("lasttoken", Pooling::Last), ("mean", Pooling::Mean)].map(|p| (n, p)))
    {
        let running = Running::start(float32(fixture(name)));
        let cases = made[name][mode].as_array().unwrap();
        assert!(cases.len() > 3);
        for case in cases {
            let prompt = case["prompt"].as_str().unwrap();
            let pooled = running.ask_one(embed(Prompt::Text(prompt.into()), pooling)).embedding;
            let length = pooled.iter().map(|x| x * x).sum::<f32>().sqrt();
            let vector: Vec<f32> = pooled.iter().map(|x| x / length).collect();
            assert_close(&format!("{name}, {mode}, {prompt:?}"), &vector, &floats(&case["vector"]), 2e-4);
        }
    }
}

/// A folder of the checkpoint as models that only embed are published: without a head, and nothing before the names.
fn headless(name: &str, class: &str) -> Scratch {
    let scratch = Scratch::new();
    let mut config = json(&format!("{name}/config.json"));
    config["architectures"] = [class].into();
    scratch.write("config.json", config.to_string());
    std::fs::copy(fixture(name).join("tokenizer.json"), scratch.0.join("tokenizer.json")).unwrap();
    let files = sglang_engine::weights::open(&fixture(name)).unwrap();
    let names = files.weights.names();
    let kept = names.iter().filter_map(|name| Some((name, name.strip_prefix("model.")?)));
    let load = |(name, here): (&String, &str)| {
        let tensor = files.weights.tensor(name).unwrap();
        let values = candle_core::Tensor::from_vec(tensor.to_f32(), tensor.shape.clone(), &candle_core::Device::Cpu);
        (here.to_owned(), values.unwrap())
    };
    let tensors = kept.map(load).collect();
    candle_core::safetensors::save(&tensors, scratch.0.join("model.safetensors")).unwrap();
    scratch
}

#[test]
fn models_without_a_head_embed_as_with_it_and_refuse_to_generate() {
    for (name, class) in
        [("llama", "LlamaModel"), ("mistral", "MistralModel"), ("qwen2", "Qwen2Model"), ("qwen3", "Qwen3Model")]
    {
        let folder = headless(name, class);
        let embeds =
            || [Pooling::Last, Pooling::Mean].map(|pooling| embed(Prompt::Text("One may copy it".into()), pooling));
        let running = Running::start(float32(folder.0.clone()));
        let alone: Vec<_> = running.ask(embeds().into()).into_iter().map(|answer| answer.embedding).collect();
        let with_head = Running::start(float32(fixture(name))).ask(embeds().into());
        assert_eq!(alone, with_head.into_iter().map(|answer| answer.embedding).collect::<Vec<_>>(), "{class}");
        running.engine.submit(greedy(Prompt::Text("One".into()), 1));
        let finish = running.events.recv().unwrap().remove(0).finish.unwrap();
        let FinishReason::Failed { code, message, .. } = finish.reason else { panic!("{:?}", finish.reason) };
        assert_eq!(code, "bad_request");
        assert!(message.starts_with("the model has no head, so it cannot generate"), "{message}");
    }
}

/// Embeddings and scores (the probability of a few tokens after each item, under a query that they share) over several
/// ranks are those of one.
#[test]
fn embeddings_and_scores_do_not_depend_on_the_ranks() {
    let text = |item: &str| Prompt::Text(format!("The licence says that one may {item}"));
    let items = ["copy it.", "sell the work of others, as long as it is marked", "", "change"];
    let score = |item: &&str| {
        let mut request = greedy(text(item), 1);
        (request.logprobs.prompt_start, request.logprobs.of_tokens) = (None, (3..60).step_by(5).collect());
        request
    };
    let embeds = [Pooling::Last, Pooling::Mean].map(|pooling| items.map(|item| embed(text(item), pooling)));
    let requests: Vec<Request> = embeds.into_iter().flatten().chain(items.iter().map(score)).collect();
    for name in TINY {
        let asked = |ranks| Running::start(over(ranks, float32(fixture(name)))).ask(requests.clone());
        let (one, two, four) = (asked(1), asked(2), asked(4));
        for (i, one) in one.iter().enumerate() {
            for (ranks, several) in [(2, &two[i]), (4, &four[i])] {
                let what = format!("{name}, request {i} over {ranks} ranks");
                let scores = |answer: &Answer| answer.first.iter().map(|&(_, l)| l.exp()).collect::<Vec<_>>();
                assert_eq!((one.embedding.is_empty(), one.first.is_empty()), (i >= 8, i < 8), "{what}");
                assert_close(&what, &several.embedding, &one.embedding, 1e-4);
                assert_close(&what, &scores(several), &scores(one), 1e-5);
            }
        }
    }
}

/// The mean is that of the last states of all prefixes, bit for bit, with whatever came from the cache.
#[test]
fn the_mean_is_that_of_all_prefixes() {
    for name in ["llama3", "mistral", "mixtral"] {
        let options = LoadOptions { model_path: fixture(name), chunked_prefill_size: Some(7), ..Default::default() };
        let running = Running::start(options);
        let tokens: Vec<u32> = (0..40).map(|i| 3 + i * 29 % 200).collect();
        let prefixes = (1..=tokens.len()).map(|n| embed(Prompt::Tokens(tokens[..n].to_vec()), Pooling::Last));
        let states = running.ask(prefixes.collect());
        assert!(states.iter().map(|state| state.cached).sum::<usize>() > 300, "last states come from cached prefixes");
        let mut sum = vec![0.0; states[0].embedding.len()];
        let mut add = |state: &Answer| sum.iter_mut().zip(&state.embedding).for_each(|(s, &v)| *s += f64::from(v));
        states.iter().for_each(&mut add);
        let mean: Vec<f32> = sum.iter().map(|sum| (sum / tokens.len() as f64) as f32).collect();
        for (what, mate) in [("alone", None), ("beside others", Some(greedy(Prompt::Tokens(tokens.clone()), 20)))] {
            let asked = embed(Prompt::Tokens(tokens.clone()), Pooling::Mean);
            let answer = running.ask(std::iter::once(asked).chain(mate).collect()).remove(0);
            assert_eq!((answer.embedding, answer.cached), (mean.clone(), 0), "{name}, {what}");
        }
    }
}

/// With a window of 24 tokens and steps of 16, a cache of 128 tokens is enough for a prompt of 400: the answer is that of a
/// cache that holds everything, also of the next turn, whose beginning is gone from it.
#[test]
fn a_window_lets_prompts_be_longer_than_the_cache() {
    let running = |cache: usize| {
        let options =
            LoadOptions { max_total_tokens: Some(cache), chunked_prefill_size: Some(16), ..Default::default() };
        Running::start(LoadOptions { model_path: fixture("mistral"), context_length: Some(512), ..options })
    };
    let ask = |n: u32| greedy(Prompt::Tokens((0..n).map(|i| 3 + i * 29 % 200).collect()), 40);
    let [small, large] = [128, 1024].map(|cache| {
        let running = running(cache);
        [400, 440].map(|n| {
            let Answer { tokens, logprobs, prompt_logprobs, .. } = running.ask_one(ask(n));
            (tokens, logprobs, prompt_logprobs)
        })
    });
    assert_eq!(small, large);
    let together = running(128).ask(vec![ask(300), ask(400), ask(200)]);
    assert_eq!(together[1].tokens, large[0].0);
}

#[test]
fn tiny_answers_do_not_depend_on_the_schedule() {
    for name in ["llama", "llama3", "mistral", "mixtral", "qwen2_moe", "qwen3", "qwen3_moe"] {
        let schedules = [(1, 1), (2, 7), (4, 64), (2, 256)];
        let model_path = fixture(name);
        check_invariance(&float32(model_path.clone()), &schedules);
        check_invariance(&LoadOptions { model_path, context_length: Some(512), ..Default::default() }, &schedules);
    }
}

#[test]
fn answers_over_several_ranks_do_not_depend_on_the_schedule() {
    for (name, ranks) in [("llama3", 2), ("mixtral", 3)] {
        let options = LoadOptions { tp: Some(ranks), context_length: Some(512), ..Default::default() };
        check_invariance(&LoadOptions { model_path: fixture(name), ..options }, &[(2, 7), (4, 256)]);
    }
}

#[test]
fn answers_of_the_default_model_do_not_depend_on_the_schedule() {
    let options = LoadOptions { model_path: default_model(), context_length: Some(512), ..Default::default() };
    check_invariance(&options, &[(2, 7), (4, 64)]);
}

/// Texts of about 1,000 tokens each.
fn texts() -> [String; 3] {
    ["licence", "prose", "code"].map(|name| std::fs::read_to_string(fixture(&format!("texts/{name}.txt"))).unwrap())
}

/// Log-probabilities and most likely tokens over all texts.
fn judge(options: LoadOptions) -> (Vec<f32>, Vec<u32>) {
    let running = Running::start(options);
    let ask = |text: String| {
        let mut request = greedy(Prompt::Text(text), 0);
        request.logprobs.top = 1;
        running.ask_one(request)
    };
    let answers: Vec<Answer> = texts().map(ask).into();
    let all = |list: fn(&Answer) -> &Vec<u32>| answers.iter().flat_map(|a| list(a).clone()).collect();
    (answers.iter().flat_map(|a| a.prompt_logprobs.clone()).collect(), all(|answer| &answer.likeliest))
}

/// Share of positions with the same most likely token that rounding may not fall below.
const LEAST_AGREEMENT: f64 = 0.97;

/// Inputs rounded to int8 per block and a KV cache in f16 cost almost nothing.
#[test]
fn the_default_model_is_as_good_as_in_float32() {
    let context_length = Some(2048);
    let (exact, best) = judge(LoadOptions { context_length, ..float32(default_model()) });
    let (fast, found) = judge(LoadOptions { context_length, model_path: default_model(), ..Default::default() });
    assert!(exact.len() > 2500, "{} tokens are too few", exact.len());
    let mean = |logprobs: &[f32]| logprobs.iter().map(|&l| f64::from(-l)).sum::<f64>() / logprobs.len() as f64;
    let change = mean(&fast) / mean(&exact) - 1.0;
    assert!(change.abs() <= 0.003, "mean negative log-likelihood changes by {:.2} %", change * 100.0);
    let agreement = best.iter().zip(&found).filter(|(a, b)| a == b).count() as f64 / best.len() as f64;
    assert!(
        agreement >= LEAST_AGREEMENT,
        "the most likely token is the same at {:.2} % of positions",
        agreement * 100.0
    );
}

/// One request that excludes every token fails alone.
#[test]
fn a_request_that_leaves_no_token_fails_and_others_go_on() {
    let running = Running::start(LoadOptions { model_path: fixture("llama3"), ..Default::default() });
    let mut request = greedy(Prompt::Tokens(vec![5, 6]), 4);
    request.sampling.logit_bias = (0..running.vocab as u32).map(|token| (token, f32::NEG_INFINITY)).collect();
    running.engine.submit(request.clone());
    let finish = running.events.recv().unwrap().remove(0).finish.unwrap();
    let FinishReason::Failed { code, message, .. } = finish.reason else { panic!("{:?}", finish.reason) };
    assert_eq!(code, "bad_request");
    assert!(message.starts_with("no token is left to choose"), "{message}");
    request.sampling.logit_bias.clear();
    assert_eq!(running.ask_one(request).tokens.len(), 4);
}

/// Without prompt log-probabilities the second request takes its prompt from the cache and says the same.
#[test]
fn a_cached_prompt_gives_the_same_answer() {
    let running = Running::start(LoadOptions { model_path: fixture("llama3"), ..Default::default() });
    let mut request = greedy(Prompt::Text("The license for this software is permissive, and".into()), 20);
    request.logprobs.prompt_start = None;
    let (cold, cached) = (running.ask_one(request.clone()), running.ask_one(request));
    assert_eq!(cold.cached, 0);
    assert!(cached.cached > 10, "{} tokens came from the cache", cached.cached);
    assert_eq!(Answer { cached: 0, ..cached }, cold);
}

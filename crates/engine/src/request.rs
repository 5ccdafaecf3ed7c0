//! What a caller asks for, and what it is told: [`Request`] in, [`Event`]s out, the last with a [`Finish`].

use crate::error::{Error, Result};
use crate::grammar::Constraint;
use std::time::Duration;

/// Chosen by the caller; unique among open requests.
pub type RequestId = u64;

/// One generation.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Names the request in its events.
    pub id: RequestId,
    /// The prompt.
    pub prompt: Prompt,
    /// Files of the pictures, in the order of their marks in the prompt.
    pub images: Vec<Vec<u8>>,
    /// How tokens are chosen and when to stop.
    pub sampling: SamplingParams,
    /// Which log-probabilities to report.
    pub logprobs: LogprobParams,
    /// Asks for an embedding of the prompt, in place of new tokens and log-probabilities.
    pub pooling: Option<Pooling>,
    /// Larger is admitted first.
    pub priority: i32,
    /// Prompts of different namespaces share no cache.
    pub namespace: u64,
}

/// A prompt as text or as tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Encoded by the engine; BOS is added where the model wants one.
    Text(String),
    /// Taken as they are.
    Tokens(Vec<u32>),
}

impl Default for Prompt {
    fn default() -> Self {
        Prompt::Tokens(Vec::new())
    }
}

/// Sampling parameters; the names are those of the native API.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// Most tokens to generate; `None` is [`DEFAULT_NEW_TOKENS`] or less, [`UNLIMITED`] all that the context leaves.
    pub max_new_tokens: Option<usize>,
    /// No EOS and no stop token before this many tokens.
    pub min_new_tokens: usize,
    /// Texts that end the generation.
    pub stop: Vec<String>,
    /// Tokens that end the generation, besides the model's EOS.
    pub stop_token_ids: Vec<u32>,
    /// Below 1e-6 is greedy.
    pub temperature: f32,
    /// Nucleus mass in (0, 1].
    pub top_p: f32,
    /// Most likely tokens kept; −1 keeps all.
    pub top_k: i64,
    /// In [0, 1].
    pub min_p: f32,
    /// In [−2, 2]; per occurrence in the output.
    pub frequency_penalty: f32,
    /// In [−2, 2]; once per token of the output.
    pub presence_penalty: f32,
    /// In (0, 2]; tokens of prompt and output.
    pub repetition_penalty: f32,
    /// Added to logits.
    pub logit_bias: Vec<(u32, f32)>,
    /// Start of the request's own random numbers.
    pub seed: u64,
    /// EOS does not end the generation.
    pub ignore_eos: bool,
    /// Special tokens are left out of the text.
    pub skip_special_tokens: bool,
    /// A matched stop string stays in the text.
    pub no_stop_trim: bool,
    /// What the output must look like.
    pub constraint: Option<Constraint>,
}

/// A limit of new tokens that only the context sets.
pub const UNLIMITED: usize = u32::MAX as usize;
/// New tokens when a request names no limit.
pub const DEFAULT_NEW_TOKENS: usize = 128;
/// Most alternatives that may be asked for per position.
pub const MAX_TOP_LOGPROBS: usize = 128;
/// Most tokens whose log-probability may be asked for per position.
pub const MAX_LOGPROB_TOKENS: usize = 4096;

impl Default for SamplingParams {
    fn default() -> Self {
        SamplingParams {
            max_new_tokens: None,
            min_new_tokens: 0,
            stop: Vec::new(),
            stop_token_ids: Vec::new(),
            temperature: 1.0,
            top_p: 1.0,
            top_k: -1,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: 0,
            ignore_eos: false,
            skip_special_tokens: true,
            no_stop_trim: false,
            constraint: None,
        }
    }
}

/// Which log-probabilities to report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogprobParams {
    /// Whether at all.
    pub enabled: bool,
    /// First prompt position to report, where `enabled`; `None` reports the output only.
    pub prompt_start: Option<usize>,
    /// Most likely alternatives per position.
    pub top: usize,
    /// Tokens to report at each position.
    pub of_tokens: Vec<u32>,
}

/// Which states of a prompt become its embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// That of the last token.
    Last,
    /// The mean of all, which computes the whole prompt: what the cache holds are keys and values, not states.
    Mean,
}

impl Pooling {
    /// By its name, `last` or `mean`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "last" => Some(Pooling::Last),
            "mean" => Some(Pooling::Mean),
            _ => None,
        }
    }
}

impl Request {
    /// Checks every range that does not need the encoded prompt. Errors name the field in the native spelling.
    pub fn validate(&self, vocab: usize) -> Result<()> {
        let s = &self.sampling;
        check_range("sampling_params.temperature", s.temperature, 0.0, f32::MAX, "a number ≥ 0")?;
        check_range("sampling_params.top_p", s.top_p, f32::MIN_POSITIVE, 1.0, "a number in (0, 1]")?;
        check_range("sampling_params.min_p", s.min_p, 0.0, 1.0, "a number in [0, 1]")?;
        check_range("sampling_params.frequency_penalty", s.frequency_penalty, -2.0, 2.0, "a number in [-2, 2]")?;
        check_range("sampling_params.presence_penalty", s.presence_penalty, -2.0, 2.0, "a number in [-2, 2]")?;
        check_range(
            "sampling_params.repetition_penalty",
            s.repetition_penalty,
            f32::MIN_POSITIVE,
            2.0,
            "a number in (0, 2]",
        )?;
        if s.top_k < -1 || s.top_k == 0 {
            return Err(Error::bad("sampling_params.top_k", format!("top_k must be -1 (all) or ≥ 1, got {}", s.top_k)));
        }
        if s.stop.iter().any(String::is_empty) {
            return Err(Error::bad("sampling_params.stop", "a stop string must not be empty"));
        }
        if s.max_new_tokens.is_some_and(|max| s.min_new_tokens > max) {
            return Err(Error::bad("sampling_params.min_new_tokens", "min_new_tokens is larger than max_new_tokens"));
        }
        if let Some((_, bias)) = s.logit_bias.iter().find(|(_, bias)| bias.is_nan()) {
            return Err(Error::bad("sampling_params.logit_bias", format!("a bias must be a number, got {bias}")));
        }
        check_tokens("sampling_params.logit_bias", s.logit_bias.iter().map(|(token, _)| *token), vocab)?;
        check_tokens("sampling_params.stop_token_ids", s.stop_token_ids.iter().copied(), vocab)?;
        if self.pooling.is_some() && (s.max_new_tokens != Some(0) || self.logprobs.enabled) {
            let message = "an embedding has no new tokens and no log-probabilities: ask for max_new_tokens 0";
            return Err(Error::bad("pooling", message));
        }
        self.validate_logprobs(vocab)
    }

    fn validate_logprobs(&self, vocab: usize) -> Result<()> {
        let l = &self.logprobs;
        if l.top > MAX_TOP_LOGPROBS {
            let message = format!("top_logprobs_num must be at most {MAX_TOP_LOGPROBS}, got {}", l.top);
            return Err(Error::bad("top_logprobs_num", message));
        }
        if l.of_tokens.len() > MAX_LOGPROB_TOKENS {
            return Err(Error::bad(
                "token_ids_logprob",
                format!("at most {MAX_LOGPROB_TOKENS} token ids may be given"),
            ));
        }
        check_tokens("token_ids_logprob", l.of_tokens.iter().copied(), vocab)
    }
}

fn check_range(param: &'static str, value: f32, low: f32, high: f32, expected: &str) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(Error::bad(param, format!("{param}: expected {expected}, got {value}")))
}

/// Every token must be in the vocabulary.
pub fn check_tokens(param: &'static str, mut tokens: impl Iterator<Item = u32>, vocab: usize) -> Result<()> {
    match tokens.find(|&token| token as usize >= vocab) {
        None => Ok(()),
        Some(token) => Err(Error::bad(param, format!("{param}: token id {token} is not in the vocabulary of {vocab}"))),
    }
}

/// The log-probability of one token and what else was asked for at its position.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub token: u32,
    /// Natural logarithm; `None` for the first token of a prompt.
    pub logprob: Option<f32>,
    /// Most likely tokens, in descending order.
    pub top: Vec<(u32, f32)>,
    /// The tokens that were asked for.
    pub of_tokens: Vec<(u32, f32)>,
}

/// What happened to a request in one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// Whose event.
    pub id: RequestId,
    /// New text, complete characters only, never part of a stop string.
    pub text: String,
    /// New tokens.
    pub tokens: Vec<u32>,
    /// One entry per new token, where asked for.
    pub logprobs: Vec<TokenLogprob>,
    /// New entries for prompt positions, where asked for.
    pub prompt_logprobs: Vec<TokenLogprob>,
    /// The embedding of the prompt, `D` values, where asked for; in one event.
    pub embedding: Vec<f32>,
    /// Set once, when the request is admitted; never for one that ends in the queue.
    pub admitted: Option<Admitted>,
    /// Set on the last event of the request.
    pub finish: Option<Finish>,
}

/// The start of a request's computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Prompt tokens whose KV came from the cache.
    pub cached_tokens: usize,
    /// How long it waited for pages and rows.
    pub queued: Duration,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why it ended.
    pub reason: FinishReason,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Prompt tokens whose KV came from the cache.
    pub cached_tokens: usize,
    /// Tokens that were generated besides, and taken back since what they said broke the schema.
    pub discarded_tokens: usize,
}

/// Why a request ended.
#[derive(Debug, Clone, PartialEq)]
pub enum FinishReason {
    /// A stop token was generated (EOS or one of `stop_token_ids`).
    StopToken(u32),
    /// A stop string was generated.
    StopText(String),
    /// The grammar was complete and allows nothing more.
    Complete,
    /// `max_new_tokens` or the end of the context.
    Length,
    /// The caller aborted it.
    Aborted,
    /// It could not be served.
    Failed {
        /// [`Error::code`].
        code: &'static str,
        /// The error's text.
        message: String,
        /// The offending field.
        param: Option<&'static str>,
    },
}

impl FinishReason {
    /// `stop`, `length`, `abort` or `error`.
    pub fn kind(&self) -> &'static str {
        match self {
            FinishReason::StopToken(_) | FinishReason::StopText(_) | FinishReason::Complete => "stop",
            FinishReason::Length => "length",
            FinishReason::Aborted => "abort",
            FinishReason::Failed { .. } => "error",
        }
    }

    /// The end by an error.
    pub fn failed(error: &Error) -> Self {
        let param = match error {
            Error::BadRequest { param, .. } => *param,
            _ => None,
        };
        FinishReason::Failed { code: error.code(), message: error.to_string(), param }
    }
}

impl Event {
    /// The only event of a request that could not be started.
    pub fn failed(id: RequestId, error: &Error) -> Self {
        let reason = FinishReason::failed(error);
        let finish = Finish { reason, prompt_tokens: 0, completion_tokens: 0, cached_tokens: 0, discarded_tokens: 0 };
        Event { id, finish: Some(finish), ..Event::default() }
    }
}

//! One request under way: its tokens, how far their KV is computed, and what its next token depends on.
//!
//! Law: `computed ≤ tokens.len()`, and the lease (where there is one) covers the computed tokens. Tokens after
//! `computed` are the ones the next steps run; when all but the last are computed, the sequence decodes. No output is
//! handed over that a grammar may still take back.

use crate::batch::{Output, OutputRow, Pick, Picked, SampleParams, NO_TOKEN};
use crate::error::Error;
use crate::grammar::Grammar;
use crate::image::{is_key, ImageRows, Placed};
use crate::request::{
    Admitted, Event, Finish, FinishReason, LogprobParams, Pooling, RequestId, SamplingParams, TokenLogprob,
};
use crate::runner::mix;
use crate::text::{StopMatcher, TextStream, Tokenizer};
use sglang_radix::{Lease, Match};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// A request whose prompt is encoded and whose parameters are checked.
pub struct Prepared {
    /// Of the request.
    pub id: RequestId,
    /// At least one token; keys where a picture is.
    pub prompt: Vec<u32>,
    /// The pictures.
    pub images: Vec<Placed>,
    /// What is reported in the place of a key.
    pub image_token: u32,
    /// Checked parameters.
    pub sampling: SamplingParams,
    /// Checked parameters.
    pub logprobs: LogprobParams,
    /// Of the request.
    pub pooling: Option<Pooling>,
    /// `max_new_tokens`, or what takes its place.
    pub max_new: usize,
    /// Of the request.
    pub priority: i32,
    /// Of the request.
    pub namespace: u64,
    /// The compiled constraint.
    pub grammar: Option<Box<dyn Grammar>>,
}

/// State of one request from its arrival to its end.
pub struct Sequence {
    /// Prompt, then output.
    pub tokens: Vec<u32>,
    /// Tokens whose KV is in the cache pages of the lease.
    pub computed: usize,
    /// The pages; `None` while waiting.
    pub lease: Option<Lease>,
    /// Place in the order of arrival.
    pub arrival: u64,
    /// How often a later arrival was admitted before this one.
    pub passed_over: u32,
    /// Cached prefix of [`Sequence::reusable`] when the queue was last sorted.
    pub found: Match,
    /// Place that the policy gave it then; the smallest goes first.
    pub rank: u64,
    /// Set once it is over.
    pub finish: Option<FinishReason>,
    asked: Prepared,
    arrived: Instant,
    prompt_len: usize,
    /// Prompt tokens found in the cache at first admission.
    cached: Option<usize>,
    /// Next prompt position whose log-probability is to be reported.
    scored: usize,
    /// Next prompt row whose state is to be pooled.
    pooled: usize,
    /// Sum of the states so far, added in the order of positions, so that chunks do not show.
    sum: Vec<f64>,
    /// Occurrences in the output.
    counts: BTreeMap<u32, u32>,
    /// Tokens of prompt and output; kept only for a repetition penalty.
    seen: BTreeSet<u32>,
    /// What the grammar allows next.
    allowed: Option<Arc<[u32]>>,
    /// How many tokens of the output stay, where the grammar takes back the others.
    kept: Option<usize>,
    /// How often it did.
    retries: u64,
    /// Tokens that it took back.
    discarded: usize,
    text: TextStream,
    stops: StopMatcher,
    event: Event,
    tokenizer: Arc<Tokenizer>,
}

impl Sequence {
    /// A sequence that has just arrived.
    pub fn new(mut asked: Prepared, arrival: u64, tokenizer: Arc<Tokenizer>) -> Self {
        let tokens = std::mem::take(&mut asked.prompt);
        let seen = if asked.sampling.repetition_penalty == 1.0 {
            BTreeSet::new()
        } else {
            tokens.iter().copied().filter(|&token| !is_key(token)).collect()
        };
        let mut sequence = Sequence {
            prompt_len: tokens.len(),
            computed: 0,
            lease: None,
            arrival,
            passed_over: 0,
            found: Match::default(),
            rank: 0,
            finish: None,
            cached: None,
            scored: asked.logprobs.prompt_start.filter(|_| asked.logprobs.enabled).unwrap_or(tokens.len()),
            pooled: match asked.pooling {
                Some(Pooling::Mean) => 0,
                Some(Pooling::Last) => tokens.len() - 1,
                None => tokens.len(),
            },
            sum: Vec::new(),
            counts: BTreeMap::new(),
            seen,
            allowed: None,
            kept: None,
            retries: 0,
            discarded: 0,
            text: TextStream::new(),
            stops: StopMatcher::new(&asked.sampling.stop),
            event: Event { id: asked.id, ..Event::default() },
            tokens,
            asked,
            arrived: Instant::now(),
            tokenizer,
        };
        sequence.report_first_prompt_token();
        let forced = sequence.jump(None);
        sequence.append_all(forced);
        while sequence.must_retry() {
            sequence.retry();
        }
        sequence
    }

    /// Of the request.
    pub fn id(&self) -> RequestId {
        self.asked.id
    }

    /// Of the request.
    pub fn priority(&self) -> i32 {
        self.asked.priority
    }

    /// Of the request.
    pub fn namespace(&self) -> u64 {
        self.asked.namespace
    }

    /// A number drawn by lot for a round.
    pub fn lot(&self, round: u64) -> u64 {
        mix(round, self.arrival)
    }

    /// Tokens generated so far.
    pub fn n_output(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }

    /// Tokens of the prompt.
    pub fn n_prompt(&self) -> usize {
        self.prompt_len
    }

    /// It was never admitted.
    pub fn is_new(&self) -> bool {
        self.cached.is_none()
    }

    /// Tokens that may still be generated.
    pub fn n_remaining(&self) -> usize {
        self.asked.max_new - self.n_output()
    }

    /// Tokens that the next steps have to run.
    pub fn n_pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// All tokens known are being computed for the first time, or again.
    pub fn is_prefilling(&self) -> bool {
        self.n_pending() > 1 || self.n_output() == 0
    }

    /// The tokens that may come from the cache: the last one must run, and so must those whose prompt log-probability
    /// is still to be reported or whose state is to be pooled.
    pub fn reusable(&self) -> &[u32] {
        let scored = if self.scored < self.prompt_len { self.scored.saturating_sub(1) } else { usize::MAX };
        let pooled = if self.pooled < self.prompt_len { self.pooled } else { usize::MAX };
        &self.tokens[..scored.min(pooled).min(self.tokens.len() - 1)]
    }

    /// Takes pages whose first tokens are computed.
    pub fn start(&mut self, lease: Lease) {
        self.computed = lease.matched();
        self.lease = Some(lease);
        if self.cached.is_none() {
            let (prompt_tokens, cached_tokens) = (self.prompt_len, self.computed.min(self.prompt_len));
            self.cached = Some(cached_tokens);
            self.event.admitted = Some(Admitted { prompt_tokens, cached_tokens, queued: self.arrived.elapsed() });
        }
    }

    /// Prompt tokens found in the cache.
    pub fn n_cached(&self) -> usize {
        self.cached.unwrap_or(0)
    }

    /// The token at a position, or what is reported for a picture.
    fn shown(&self, position: usize) -> u32 {
        let token = self.tokens[position];
        if is_key(token) {
            self.asked.image_token
        } else {
            token
        }
    }

    /// The next `n_rows` tokens, whose first row in the step is `first_row`: ids, and the rows of pictures.
    pub fn inputs(&self, first_row: usize, n_rows: usize) -> (Vec<u32>, Vec<ImageRows>) {
        let run = self.computed..self.computed + n_rows;
        let ids = self.tokens[run.clone()].iter().map(|&token| if is_key(token) { 0 } else { token });
        let images = self.asked.images.iter().filter_map(|placed| placed.rows(run.clone(), first_row));
        (ids.collect(), images.collect())
    }

    /// What is wanted of the next `n_rows` tokens, whose first row in the step is `first_row`.
    pub fn outputs(&self, first_row: usize, n_rows: usize) -> Vec<Output> {
        let rows = self.computed..self.computed + n_rows;
        rows.filter_map(|position| {
            let ask = self.ask(position + 1)?;
            Some(Output { row: first_row + position - self.computed, ask })
        })
        .collect()
    }

    /// Rows of the step whose state is wanted, of the next `n_rows` tokens, whose first row in the step is `first_row`.
    pub fn states(&self, first_row: usize, n_rows: usize) -> Range<usize> {
        let row = |position: usize| first_row + position.saturating_sub(self.computed).min(n_rows);
        row(self.pooled)..row(self.prompt_len)
    }

    /// Takes the states of the next rows; the last one completes the embedding.
    pub fn pool(&mut self, states: impl Iterator<Item = Vec<f32>>) {
        for state in states {
            self.sum.resize(state.len(), 0.0);
            self.sum.iter_mut().zip(&state).for_each(|(sum, &value)| *sum += f64::from(value));
            self.pooled += 1;
            if self.pooled == self.prompt_len {
                let n = if self.asked.pooling == Some(Pooling::Mean) { self.prompt_len as f64 } else { 1.0 };
                self.event.embedding = self.sum.iter().map(|sum| (sum / n) as f32).collect();
            }
        }
    }

    /// What is wanted of the token at `position`, which is predicted by the row before it.
    fn ask(&self, position: usize) -> Option<OutputRow> {
        let l = &self.asked.logprobs;
        let row = |pick| OutputRow { pick, logprob: l.enabled, top: l.top, of_tokens: l.of_tokens.clone() };
        if (self.scored..self.prompt_len).contains(&position) {
            return Some(row(Pick::Given(self.shown(position))));
        }
        let samples = position == self.tokens.len() && self.n_remaining() > 0;
        samples.then(|| row(Pick::Sample(self.sample_params())))
    }

    fn sample_params(&self) -> SampleParams {
        let s = &self.asked.sampling;
        // The most probable tokens of another try would be the same again.
        let temperature = if self.retries > 0 { s.temperature.max(RETRY_TEMPERATURE) } else { s.temperature };
        SampleParams {
            temperature: if temperature < 1e-6 { 0.0 } else { temperature },
            top_p: s.top_p,
            top_k: s.top_k.clamp(0, i64::from(u32::MAX)) as u32,
            min_p: s.min_p,
            uniform: (mix(self.seed(), self.n_output() as u64) >> 40) as f32 / (1 << 24) as f32,
            edits: self.edits(),
            seen: self.seen.iter().copied().collect(),
            repetition_penalty: s.repetition_penalty,
            allowed: self.allowed.clone(),
        }
    }

    /// Of this try.
    fn seed(&self) -> u64 {
        match self.retries {
            0 => self.asked.sampling.seed,
            retries => mix(self.asked.sampling.seed, u64::MAX - retries),
        }
    }

    /// Logit bias, penalties by occurrence, and the bans on stop tokens before `min_new_tokens` and on ends that a grammar
    /// allows and the request ignores.
    fn edits(&self) -> Vec<(u32, f32)> {
        let s = &self.asked.sampling;
        let mut edits = s.logit_bias.clone();
        if s.frequency_penalty != 0.0 || s.presence_penalty != 0.0 {
            let penalty = |count: u32| -s.frequency_penalty * count as f32 - s.presence_penalty;
            edits.extend(self.counts.iter().map(|(&token, &count)| (token, penalty(count))));
        }
        let too_short = self.n_output() < s.min_new_tokens;
        let no_end = too_short || (s.ignore_eos && self.asked.grammar.is_some());
        let ends = if no_end { self.tokenizer.eos() } else { &[] };
        let stops = if too_short { &s.stop_token_ids[..] } else { &[] };
        edits.extend(ends.iter().chain(stops).map(|&token| (token, f32::NEG_INFINITY)));
        edits
    }

    /// Goes on by `n_rows` computed tokens and the answers to what was wanted of them.
    pub fn advance(&mut self, n_rows: usize, picked: impl Iterator<Item = Picked>) {
        self.computed += n_rows;
        for picked in picked {
            let entry = self.asked.logprobs.enabled.then_some(TokenLogprob {
                token: picked.token,
                logprob: Some(picked.logprob),
                top: picked.top,
                of_tokens: picked.of_tokens,
            });
            if picked.token == NO_TOKEN {
                self.fail(&nothing_to_choose());
            } else if self.scored < self.prompt_len {
                self.scored += 1;
                self.event.prompt_logprobs.extend(entry);
            } else {
                self.event.logprobs.extend(entry);
                self.accept(picked.token);
            }
        }
        let computed_all = self.computed == self.tokens.len();
        if self.finish.is_none() && computed_all && self.n_remaining() == 0 {
            self.end(FinishReason::Length);
        }
    }

    /// Appends a sampled token and the text that the grammar then forces.
    fn accept(&mut self, token: u32) {
        let is_stop = self.is_stop_token(token);
        if let Some(grammar) = self.asked.grammar.as_mut().filter(|_| !is_stop) {
            grammar.accept(token);
        }
        let jump = if is_stop { Vec::new() } else { self.jump(Some(token)) };
        self.append_all(if jump.is_empty() { vec![token] } else { jump });
    }

    /// The last token and those that the grammar forces after it. Where each token matters by itself, the model is asked.
    fn jump(&mut self, last: Option<u32>) -> Vec<u32> {
        let by_token = self.asked.logprobs.enabled || !self.asked.sampling.logit_bias.is_empty();
        let grammar = self.asked.grammar.as_mut().filter(|_| !by_token && self.asked.max_new > 0);
        grammar.and_then(|grammar| grammar.jump(last)).unwrap_or_default()
    }

    fn append_all(&mut self, tokens: Vec<u32>) {
        for token in tokens {
            self.append(token);
            if self.finish.is_some() {
                return;
            }
        }
        self.update_allowed();
    }

    /// Appends a token and sees whether it ends the sequence.
    fn append(&mut self, token: u32) {
        self.tokens.push(token);
        self.event.tokens.push(token);
        *self.counts.entry(token).or_default() += 1;
        if self.asked.sampling.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
        if self.is_stop_token(token) {
            if self.asked.sampling.no_stop_trim {
                self.append_text(token);
            }
            return self.end(FinishReason::StopToken(token));
        }
        self.append_text(token);
        if self.finish.is_none() && self.n_remaining() == 0 {
            self.end(FinishReason::Length);
        }
    }

    fn is_stop_token(&self, token: u32) -> bool {
        let s = &self.asked.sampling;
        (!s.ignore_eos && self.tokenizer.eos().contains(&token)) || s.stop_token_ids.contains(&token)
    }

    fn append_text(&mut self, token: u32) {
        if self.asked.sampling.skip_special_tokens && self.tokenizer.is_special(token) {
            return;
        }
        let text = self.text.push(self.tokenizer.token_bytes(token));
        self.stop_or_show(&text);
    }

    /// Passes text through the stop strings; a match ends the sequence.
    fn stop_or_show(&mut self, text: &str) {
        let step = self.stops.push(text);
        self.event.text.push_str(&step.text);
        if let Some(stop) = step.matched {
            if self.asked.sampling.no_stop_trim {
                self.event.text.push_str(&stop);
            }
            self.finish = Some(FinishReason::StopText(stop));
        }
    }

    /// Asks the grammar what may come next; a grammar that allows nothing more is complete.
    fn update_allowed(&mut self) {
        let Some(grammar) = &mut self.asked.grammar else { return };
        match grammar.allowed() {
            Ok(allowed) => {
                self.allowed = Some(allowed.mask);
                if allowed.only_end && self.finish.is_none() {
                    self.end(FinishReason::Complete);
                }
            }
            Err(error) => match grammar.take_back() {
                Some(n_kept) if self.finish.is_none() => self.kept = Some(n_kept),
                _ => {
                    self.event.text.clear();
                    self.fail(&error);
                }
            },
        }
    }

    /// The grammar took back output: [`Sequence::retry`] is to follow.
    pub fn must_retry(&self) -> bool {
        self.kept.is_some() && self.finish.is_none()
    }

    /// Goes back to the tokens that stay, of which none is computed any more.
    pub fn retry(&mut self) {
        let n_kept = self.kept.take().unwrap_or(0);
        let kept = self.tokens.split_off(self.prompt_len)[..n_kept].to_vec();
        self.retries += 1;
        self.discarded += self.event.tokens.len() - n_kept;
        self.event.tokens.clear();
        self.event.text.clear();
        self.event.logprobs.truncate(n_kept);
        self.counts.clear();
        if !self.seen.is_empty() {
            self.seen = self.tokens.iter().copied().filter(|&token| !is_key(token)).collect();
        }
        (self.text, self.stops) = (TextStream::new(), StopMatcher::new(&self.asked.sampling.stop));
        self.computed = 0;
        self.append_all(kept);
    }

    fn fail(&mut self, error: &Error) {
        self.finish.get_or_insert_with(|| FinishReason::failed(error));
    }

    /// Ends the sequence, unless a stop string in the last text does so first. What an abort cuts inside a character, or where
    /// a stop string may begin, is not shown: the text is the beginning of what it would have been.
    pub fn end(&mut self, reason: FinishReason) {
        if reason != FinishReason::Aborted {
            let rest = self.text.finish();
            self.stop_or_show(&rest);
            let held = self.stops.finish();
            self.event.text.push_str(&held);
        }
        self.finish.get_or_insert(reason);
    }

    fn report_first_prompt_token(&mut self) {
        if self.scored == 0 {
            self.scored = 1;
            let first = TokenLogprob { token: self.shown(0), ..TokenLogprob::default() };
            self.event.prompt_logprobs.push(first);
        }
    }

    /// What happened since the last call; `None` where nothing did.
    pub fn take_event(&mut self) -> Option<Event> {
        let mut event = std::mem::replace(&mut self.event, Event { id: self.asked.id, ..Event::default() });
        if self.finish.is_none() && self.asked.grammar.as_ref().is_some_and(|grammar| grammar.may_take_back()) {
            self.event.text = std::mem::take(&mut event.text);
            self.event.tokens = std::mem::take(&mut event.tokens);
            self.event.logprobs = std::mem::take(&mut event.logprobs);
        }
        event.finish = self.finish.clone().map(|reason| Finish {
            reason,
            prompt_tokens: self.prompt_len,
            completion_tokens: self.n_output(),
            cached_tokens: self.n_cached(),
            discarded_tokens: self.discarded,
        });
        let silent = event.text.is_empty() && event.tokens.is_empty() && event.prompt_logprobs.is_empty();
        (event.admitted.is_some() || event.finish.is_some() || !silent).then_some(event)
    }
}

/// Of the tries after a first that was wrong, at least.
const RETRY_TEMPERATURE: f32 = 1.0;

/// The error of a sequence whose bans, biases and constraint exclude one another.
fn nothing_to_choose() -> Error {
    let message = "no token is left to choose: constraint, logit_bias and min_new_tokens exclude one another";
    Error::bad("sampling_params", message)
}

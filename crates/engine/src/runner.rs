//! The seam between "which tokens run" and "what numbers come out": [`Runner::run`]. [`Local`] runs a model on one
//! device; [`Fake`] is the double that scheduler tests run on.

use crate::batch::{Answers, Batch, OutputRow, Pick, Picked, SampleParams, Span};
use crate::comm::Communicator;
use crate::error::Result;
use crate::model::decoder::Decoder;
use sglang_kernels::device::{Device, PAGE};

/// Runs steps. Law: the answer for a sequence depends on its tokens and its own parameters only, bit for bit, whatever
/// else is in the batch and however its prompt was cut into steps.
pub trait Runner: Send {
    /// Runs one step.
    fn run(&mut self, batch: &Batch) -> Result<Answers>;
    /// What it runs on, for people.
    fn describe(&self) -> String;
}

/// A model on one device, one rank.
pub struct Local<D: Device, C> {
    decoder: Decoder<D>,
    comm: C,
}

impl<D: Device, C: Communicator<D>> Local<D, C> {
    /// Joins a model and the line to its fellow ranks.
    pub fn new(decoder: Decoder<D>, comm: C) -> Self {
        Local { decoder, comm }
    }
}

impl<D: Device, C: Communicator<D>> Runner for Local<D, C> {
    fn run(&mut self, batch: &Batch) -> Result<Answers> {
        Ok(self.decoder.forward(&mut self.comm, batch)?)
    }

    fn describe(&self) -> String {
        self.decoder.describe()
    }
}

/// A runner without numbers. Its KV cache stores the token ids themselves; each row reads its prefix back, as far as its
/// window, through the page table, and the next token is a hash of what was read. So a wrong page, position or chunk
/// boundary, or a page freed too early, changes the text, while every correct schedule gives the same text. Features of
/// pictures are hashes that stand in the place of ids. States are made of the hash too.
pub struct Fake {
    vocab: u32,
    /// Tokens that a row sees, itself included.
    window: usize,
    pages: Vec<[Option<u32>; PAGE]>,
}

impl Fake {
    /// `vocab` token ids over a cache of `pages` pages.
    pub fn new(vocab: u32, pages: usize) -> Self {
        Fake { vocab, window: usize::MAX, pages: vec![[None; PAGE]; pages] }
    }

    /// One whose rows see `window` tokens; 0: all.
    pub fn with_window(self, window: usize) -> Self {
        Fake { window: if window == 0 { usize::MAX } else { window }, ..self }
    }

    fn store(&mut self, span: &Span, tokens: &[u32]) {
        for (i, &token) in tokens.iter().enumerate() {
            let position = span.position + i;
            self.pages[span.pages[position / PAGE] as usize][position % PAGE] = Some(token);
        }
    }

    /// Hash of the last tokens before `end` as the page table has them.
    fn read(&self, span: &Span, end: usize) -> u64 {
        (end.saturating_sub(self.window)..end).fold(0x9e37_79b9_7f4a_7c15, |hash, position| {
            let token = self.pages[span.pages[position / PAGE] as usize][position % PAGE];
            mix(hash, u64::from(token.unwrap_or_else(|| panic!("position {position} was never computed"))))
        })
    }

    fn answer(&self, hash: u64, ask: &OutputRow) -> Picked {
        let logprob = |token: u32| -((mix(hash, u64::from(token)) % 1000) as f32) / 100.0 - 0.01;
        let token = match &ask.pick {
            Pick::Given(token) => *token,
            Pick::Sample(params) => self.sample(hash, params),
        };
        let mut top: Vec<_> = (0..self.vocab).map(|token| (token, logprob(token))).collect();
        top.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        top.truncate(ask.top);
        let of_tokens = ask.of_tokens.iter().map(|&token| (token, logprob(token))).collect();
        Picked { token, logprob: if ask.logprob { logprob(token) } else { 0.0 }, top, of_tokens }
    }

    /// The first token that is allowed, counted from a place that the hash (and the draw, unless greedy) decides.
    fn sample(&self, hash: u64, params: &SampleParams) -> u32 {
        let draw = if params.temperature > 0.0 { u64::from(params.uniform.to_bits()) } else { 0 };
        let start = mix(hash, draw) % u64::from(self.vocab);
        let banned = |token: u32| {
            let masked = params.allowed.as_ref().is_some_and(|mask| mask[token as usize / 32] >> (token % 32) & 1 == 0);
            masked || params.edits.iter().any(|&(edited, by)| edited == token && by == f32::NEG_INFINITY)
        };
        let tokens = (0..self.vocab).map(|i| ((start + u64::from(i)) % u64::from(self.vocab)) as u32);
        tokens.into_iter().find(|&token| !banned(token)).unwrap_or(start as u32)
    }
}

impl Runner for Fake {
    fn run(&mut self, batch: &Batch) -> Result<Answers> {
        for copy in &batch.copies {
            let rows = self.pages[copy.from as usize];
            self.pages[copy.to as usize][..copy.rows].copy_from_slice(&rows[..copy.rows]);
        }
        let mut tokens = batch.tokens.clone();
        for picture in &batch.images {
            for (feature, row) in (picture.first as u64..).zip(picture.rows.clone()) {
                tokens[row] = mix(picture.image.hash, feature) as u32;
            }
        }
        for span in &batch.spans {
            self.store(span, &tokens[span.rows.clone()]);
        }
        let read = |row: usize| {
            let span = batch.spans.iter().find(|span| span.rows.contains(&row)).expect("an answered row is in a span");
            self.read(span, span.position + row - span.rows.start + 1)
        };
        let state = |hash: u64| (0..4).map(|i| (mix(hash, i) % 1000) as f32 / 500.0 - 1.0).collect();
        Ok(Answers {
            picked: batch.outputs.iter().map(|output| self.answer(read(output.row), &output.ask)).collect(),
            states: batch.states.iter().map(|&row| state(read(row))).collect(),
        })
    }

    fn describe(&self) -> String {
        "fake".into()
    }
}

/// One round of a 64-bit mixing function (SplitMix64's finalizer).
pub(crate) fn mix(state: u64, value: u64) -> u64 {
    let mut z = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

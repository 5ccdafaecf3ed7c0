//! Plays requests through a scheduler step by step, checks the laws after each step, and keeps what each was told.

#![allow(dead_code, reason = "each test binary uses its own part")]

use crate::fixtures::{fixture, tokenizer};
use sglang_engine::batch::{Answers, Batch};
use sglang_engine::grammar::{Constraint, Grammars};
use sglang_engine::image::{Image, Placed, Preprocess, Sight};
use sglang_engine::loader::{self, LoadOptions};
use sglang_engine::request::{Event, FinishReason, LogprobParams, Pooling, RequestId, SamplingParams, TokenLogprob};
use sglang_engine::runner::{Fake, Runner};
use sglang_engine::scheduler::{Limits, Policy, Scheduler};
use sglang_engine::sequence::Prepared;
use sglang_engine::text::Tokenizer;
use std::ops::AddAssign;
use std::sync::Arc;

/// One request and when it comes and goes.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    pub prompt: Vec<u32>,
    /// Which of two pictures is among the prompt, and before which token; nothing where the model is blind.
    pub picture: Option<(usize, usize)>,
    pub max_new: usize,
    pub temperature: f32,
    pub seed: u64,
    pub prompt_start: Option<usize>,
    pub stop: Vec<String>,
    pub frequency_penalty: f32,
    pub ignore_eos: bool,
    pub regex: Option<&'static str>,
    pub priority: i32,
    pub namespace: u64,
    /// Its embedding is wanted, and nothing else.
    pub pooling: Option<Pooling>,
    /// Step at which it arrives.
    pub arrival: usize,
    /// Step at which it is aborted.
    pub abort: Option<usize>,
}

/// Everything a request was told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub tokens: Vec<u32>,
    pub text: String,
    pub logprobs: Vec<TokenLogprob>,
    pub prompt_logprobs: Vec<TokenLogprob>,
    pub embedding: Vec<f32>,
    pub finish: Option<FinishReason>,
}

impl Outcome {
    pub fn take(&mut self, event: Event) {
        assert!(self.finish.is_none(), "an event after the end");
        self.tokens.extend(event.tokens);
        self.text.push_str(&event.text);
        self.logprobs.extend(event.logprobs);
        self.prompt_logprobs.extend(event.prompt_logprobs);
        self.embedding.extend(event.embedding);
        self.finish = event.finish.map(|finish| finish.reason);
    }
}

/// Most positions that a picture takes.
pub const FEATURES: usize = 20;

/// What answers the steps, and the limits it was made for.
pub struct Stage {
    pub tokenizer: Arc<Tokenizer>,
    grammars: Grammars,
    /// `None` is a new [`Fake`] for each play, which finds out reads of rows that were never written.
    runner: Option<Box<dyn Runner>>,
    /// How the model sees, and two pictures.
    sight: Option<(Sight, [Image; 2])>,
    /// A sequence alone, in as few steps as possible, without a cache.
    pub unlimited: Limits,
}

/// What happened in all plays together, to see that the schedules were not tame.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub steps: u64,
    pub cached: u64,
    pub evicted: u64,
    pub retracted: u64,
    pub aborted: u64,
}

impl Stage {
    /// The double.
    pub fn fake() -> Self {
        let limits = Limits {
            chunk: 4096,
            max_running: 64,
            max_queued: 1000,
            ahead: 256,
            pages: 4096,
            window: 0,
            policy: Policy::Fcfs,
            reuse: false,
        };
        let preprocess = Preprocess { pad: false, shortest: 8, crop: 8, mean: [0.5; 3], std: [0.5; 3] };
        let sight = Sight { preprocess, n_tokens: FEATURES, token: None };
        Stage::new(tokenizer("llama"), None, Some(sight), limits)
    }

    /// The double with a window.
    pub fn fake_with_window(window: usize) -> Self {
        let mut stage = Stage::fake();
        stage.unlimited.window = window;
        stage
    }

    /// A tiny checkpoint, loaded once; the rows of earlier plays stay in its pages.
    pub fn tiny(checkpoint: &str) -> Self {
        let options = LoadOptions {
            model_path: fixture(checkpoint),
            max_total_tokens: Some(1024),
            chunked_prefill_size: Some(256),
            max_running_requests: Some(16),
            threads: Some(2),
            ..LoadOptions::default()
        };
        let loaded = loader::load(&options, &mut |_, _| {}).unwrap();
        Stage::new(loaded.tokenizer, Some(loaded.runner), loaded.abilities.sight, loaded.limits)
    }

    fn new(
        tokenizer: Arc<Tokenizer>,
        runner: Option<Box<dyn Runner>>,
        sight: Option<Sight>,
        unlimited: Limits,
    ) -> Self {
        let sight = sight.map(|sight| {
            let picture = |name: &str| sight.preprocess.image(&std::fs::read(fixture(name)).unwrap()).unwrap();
            let pictures = ["llava/image.png", "images/flag.png"].map(picture);
            (sight, pictures)
        });
        Stage { grammars: Grammars::new(tokenizer.clone()), tokenizer, runner, sight, unlimited }
    }

    /// A scheduler for one play.
    pub fn scheduler(&self, limits: &Limits) -> Scheduler {
        Scheduler::new(limits.clone(), self.tokenizer.clone())
    }

    /// The prompt, with its picture.
    fn place(&self, ask: &Ask) -> (Vec<u32>, Vec<Placed>) {
        let (Some((sight, pictures)), Some((which, at))) = (&self.sight, ask.picture) else {
            return (ask.prompt.clone(), Vec::new());
        };
        let (before, after) = ask.prompt.split_at(at.min(ask.prompt.len()));
        sight.place(vec![before.into(), after.into()], vec![pictures[which].clone()]).unwrap()
    }

    pub fn prepare(&mut self, id: RequestId, ask: &Ask) -> Prepared {
        let sampling = SamplingParams {
            temperature: ask.temperature,
            seed: ask.seed,
            stop: ask.stop.clone(),
            frequency_penalty: ask.frequency_penalty,
            ignore_eos: ask.ignore_eos,
            ..SamplingParams::default()
        };
        let regex = ask.regex.map(|regex| Constraint::Regex(regex.into()));
        let (prompt, images) = self.place(ask);
        Prepared {
            images,
            image_token: 0,
            id,
            prompt,
            sampling,
            logprobs: match ask.pooling {
                Some(_) => LogprobParams::default(),
                None => LogprobParams { enabled: true, prompt_start: ask.prompt_start, top: 2, of_tokens: vec![7] },
            },
            pooling: ask.pooling,
            max_new: if ask.pooling.is_some() { 0 } else { ask.max_new },
            priority: ask.priority,
            namespace: ask.namespace,
            grammar: regex.map(|regex| self.grammars.start(&regex).unwrap()),
        }
    }

    /// Runs all requests; what each was told.
    pub fn play(&mut self, limits: &Limits, asks: &[Ask], tally: &mut Tally) -> Vec<Outcome> {
        let mut fake = Fake::new(self.tokenizer.vocab() as u32, limits.pages).with_window(self.unlimited.window);
        let mut scheduler = self.scheduler(limits);
        let mut outcomes = vec![Outcome::default(); asks.len()];
        for step in 0.. {
            let mut events = Vec::new();
            for (id, ask) in (0..).zip(asks) {
                let arrived = (ask.arrival == step).then(|| scheduler.push(self.prepare(id, ask)));
                events.extend(arrived.flatten());
                events.extend((ask.abort == Some(step)).then(|| scheduler.abort(id)).flatten());
            }
            scheduler.check_invariants();
            scheduler.admit();
            let batch = scheduler.schedule();
            assert!(batch.tokens.len() <= limits.max_rows(), "{} rows in a step", batch.tokens.len());
            let runner: &mut dyn Runner = self.runner.as_deref_mut().unwrap_or(&mut fake);
            events.extend(scheduler.commit(run(runner, &batch)));
            scheduler.check_invariants();
            events.into_iter().for_each(|event| outcomes[event.id as usize].take(event));
            if scheduler.is_idle() && asks.iter().all(|ask| ask.arrival <= step) {
                break;
            }
            assert!(step < 20_000, "no progress");
        }
        let cache = scheduler.cache().stats();
        assert_eq!(cache.leased, 0, "pages are still private after all requests ended");
        assert_eq!(cache.evictable, cache.cached, "pages are still pinned after all requests ended");
        *tally += Tally::of(&scheduler);
        outcomes
    }

    /// What a request is told when it runs alone and holds all its pages to the end.
    pub fn alone(&mut self, ask: &Ask) -> Outcome {
        let alone = Ask { arrival: 0, abort: None, ..ask.clone() };
        self.play(&Limits { window: 0, ..self.unlimited.clone() }, &[alone], &mut Tally::default()).remove(0)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        self.steps += more.steps;
        self.cached += more.cached;
        self.evicted += more.evicted;
        self.retracted += more.retracted;
        self.aborted += more.aborted;
    }
}

impl Tally {
    fn of(scheduler: &Scheduler) -> Self {
        let totals = scheduler.totals();
        Tally {
            steps: totals.steps,
            cached: totals.cached_tokens,
            evicted: scheduler.cache().stats().evicted_tokens as u64,
            retracted: totals.retracted,
            aborted: totals.aborted,
        }
    }
}

/// The answers to a batch; none to an empty one, as in the engine.
pub fn run(runner: &mut dyn Runner, batch: &Batch) -> Answers {
    if batch.is_empty() {
        assert!(batch.copies.is_empty(), "copies that nobody performs");
        return Answers::default();
    }
    let read = |page: u32| batch.copies.iter().any(|copy| copy.from == page);
    assert!(!batch.copies.iter().any(|copy| read(copy.to)), "a copy goes where another reads: {:?}", batch.copies);
    runner.run(batch).unwrap()
}

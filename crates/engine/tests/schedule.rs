//! The schedule does not change the text. Random prompts with shared prefixes run through the scheduler on `Fake`
//! under random chunk sizes, page counts, orders of arrival and aborts of neighbours; what each request gets must be
//! what it gets when it runs alone, in one piece, without a cache.

mod fixtures;

use proptest::prelude::*;
use sglang_engine::request::{Event, FinishReason, LogprobParams, RequestId, SamplingParams, TokenLogprob};
use sglang_engine::runner::{Fake, Runner};
use sglang_engine::scheduler::{Limits, Policy, Scheduler};
use sglang_engine::sequence::Prepared;
use sglang_engine::text::Tokenizer;
use sglang_engine::PAGE;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// Longest prompt and longest output of a script, in tokens.
const MAX_PROMPT: usize = 90;
const MAX_NEW: usize = 40;

fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    TOKENIZER.get_or_init(|| fixtures::tokenizer("llama")).clone()
}

#[derive(Debug, Clone)]
struct Ask {
    prompt: Vec<u32>,
    max_new: usize,
    temperature: f32,
    prompt_start: Option<usize>,
    stop: Vec<String>,
    frequency_penalty: f32,
    /// Step at which it arrives.
    arrival: usize,
    /// Step at which it is aborted.
    abort: Option<usize>,
}

impl Ask {
    fn prepared(&self, id: RequestId) -> Prepared {
        let sampling = SamplingParams {
            temperature: self.temperature,
            seed: id,
            stop: self.stop.clone(),
            frequency_penalty: self.frequency_penalty,
            ..SamplingParams::default()
        };
        let logprobs = LogprobParams { enabled: true, prompt_start: self.prompt_start, top: 2, of_tokens: vec![7] };
        let (prompt, max_new) = (self.prompt.clone(), self.max_new);
        Prepared { id, prompt, sampling, logprobs, max_new, priority: 0, namespace: 0, grammar: None }
    }
}

/// Everything a request was told.
#[derive(Debug, Clone, Default, PartialEq)]
struct Outcome {
    tokens: Vec<u32>,
    text: String,
    logprobs: Vec<TokenLogprob>,
    prompt_logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
}

impl Outcome {
    fn take(&mut self, event: Event) {
        assert!(self.finish.is_none(), "an event after the end");
        self.tokens.extend(event.tokens);
        self.text.push_str(&event.text);
        self.logprobs.extend(event.logprobs);
        self.prompt_logprobs.extend(event.prompt_logprobs);
        self.finish = event.finish.map(|finish| finish.reason);
    }
}

/// Runs all requests and checks the laws after each step.
fn play(limits: Limits, asks: &[Ask]) -> BTreeMap<RequestId, Outcome> {
    let mut fake = Fake::new(tokenizer().vocab() as u32, limits.pages);
    let mut scheduler = Scheduler::new(limits, tokenizer());
    let mut outcomes: BTreeMap<RequestId, Outcome> = BTreeMap::new();
    for step in 0.. {
        let mut events = Vec::new();
        for (id, ask) in (0..).zip(asks) {
            events.extend((ask.arrival == step).then(|| scheduler.push(ask.prepared(id))).flatten());
            events.extend((ask.abort == Some(step)).then(|| scheduler.abort(id)).flatten());
        }
        scheduler.admit();
        let batch = scheduler.schedule();
        events.extend(scheduler.commit(fake.run(&batch).unwrap()));
        scheduler.check_invariants();
        events.into_iter().for_each(|event| outcomes.entry(event.id).or_default().take(event));
        if scheduler.is_idle() && asks.iter().all(|ask| ask.arrival <= step) {
            break;
        }
        assert!(step < 20_000, "no progress");
    }
    let cache = scheduler.cache().stats();
    assert_eq!(cache.leased, 0, "pages are still private after all requests ended");
    assert_eq!(cache.free + cache.cached, cache.total);
    outcomes
}

fn unlimited() -> Limits {
    Limits { chunk: 4096, max_running: 64, max_queued: 1000, pages: 4096, policy: Policy::Fcfs, reuse: false }
}

/// Prompts that share prefixes of any length, also inside pages.
fn ask() -> impl Strategy<Value = Ask> {
    let prompt = (0..3u32, 1..60usize, prop::collection::vec(3..6u32, 0..(MAX_PROMPT - 60)));
    let options = (0..MAX_NEW, prop::bool::ANY, prop::option::of(0..30usize), prop::bool::ANY, prop::bool::ANY);
    (prompt, options, 0..30usize, prop::option::weighted(0.15, 0..60usize)).prop_map(
        |((root, shared, tail), (max_new, greedy, prompt_start, stops, penalized), arrival, abort)| {
            let shared = (0..shared as u32).map(|i| 10 + (root * 7 + i * 13) % 200);
            let prompt: Vec<u32> = shared.chain(tail).collect();
            Ask {
                max_new,
                temperature: if greedy { 0.0 } else { 1.0 },
                prompt_start: prompt_start.filter(|&start| start < prompt.len()),
                stop: if stops { vec!["e".into(), "th".into()] } else { Vec::new() },
                frequency_penalty: if penalized { 0.5 } else { 0.0 },
                abort: abort.map(|after| arrival + after),
                arrival,
                prompt,
            }
        },
    )
}

fn limits() -> impl Strategy<Value = Limits> {
    let least = (MAX_PROMPT + MAX_NEW).div_ceil(PAGE) + 2;
    (1..80usize, 1..9usize, least..least + 40, prop::bool::ANY, prop::bool::weighted(0.9)).prop_map(
        |(chunk, max_running, pages, lpm, reuse)| Limits {
            chunk,
            max_running,
            max_queued: 1000,
            pages,
            policy: if lpm { Policy::Lpm } else { Policy::Fcfs },
            reuse,
        },
    )
}

fn n_cases() -> u32 {
    std::env::var("SGLANG_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: n_cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_schedule_does_not_change_the_text(limits in limits(), asks in prop::collection::vec(ask(), 1..16)) {
        let outcomes = play(limits, &asks);
        prop_assert_eq!(outcomes.len(), asks.len());
        for (id, ask) in (0..).zip(&asks) {
            let alone = Ask { arrival: 0, abort: None, ..ask.clone() };
            let mut nobody: Vec<Ask> = Vec::new();
            nobody.resize(id as usize, Ask { max_new: 0, prompt: vec![9], arrival: 0, abort: None, ..ask.clone() });
            nobody.iter_mut().for_each(|ask| ask.prompt_start = None);
            nobody.push(alone);
            let expected = &play(unlimited(), &nobody)[&id];
            let outcome = &outcomes[&id];
            if outcome.finish == Some(FinishReason::Aborted) {
                prop_assert!(expected.tokens.starts_with(&outcome.tokens));
                prop_assert!(expected.text.starts_with(&outcome.text));
            } else {
                prop_assert_eq!(outcome, expected);
            }
        }
    }
}

fn plain(prompt: Vec<u32>, max_new: usize, arrival: usize) -> Ask {
    let (stop, prompt_start) = (Vec::new(), None);
    Ask { prompt, max_new, temperature: 0.0, prompt_start, stop, frequency_penalty: 0.0, arrival, abort: None }
}

/// Rows computed for requests that arrive together and share a prefix: the prefix counts once.
#[test]
fn a_shared_prefix_is_computed_once() {
    let prefix: Vec<u32> = (0..192).map(|i| 10 + i % 50).collect();
    let asks: Vec<Ask> = (0..8).map(|i| plain([&prefix[..], &[100 + i, 101]].concat(), 4, 0)).collect();
    let mut scheduler = Scheduler::new(Limits { reuse: true, chunk: 64, pages: 200, ..unlimited() }, tokenizer());
    let mut fake = Fake::new(tokenizer().vocab() as u32, 200);
    for (id, ask) in (0..).zip(&asks) {
        assert_eq!(scheduler.push(ask.prepared(id)), None);
    }
    while !scheduler.is_idle() {
        scheduler.admit();
        let batch = scheduler.schedule();
        scheduler.commit(fake.run(&batch).unwrap());
    }
    let totals = scheduler.totals();
    assert_eq!(totals.computed_tokens, 192 + 8 * 2 + 8 * 3, "prefix once, two own tokens and three fed-back ones each");
    assert_eq!(totals.cached_tokens, 7 * 192);
}

/// Longest-prefix-match order alone would let matching requests overtake another one forever.
#[test]
fn a_request_without_a_match_is_not_starved() {
    let hot: Vec<u32> = (0..64).map(|i| 10 + i).collect();
    let mut asks = vec![plain(hot.clone(), 2, 0), plain(vec![300; 64], 2, 1)];
    asks.extend((0..400).map(|i| plain([&hot[..], &[200 + i % 50, i]].concat(), 2, 1 + i as usize / 2)));
    let limits = Limits { max_running: 1, reuse: true, chunk: 64, pages: 100, policy: Policy::Lpm, ..unlimited() };
    let mut scheduler = Scheduler::new(limits, tokenizer());
    let mut fake = Fake::new(tokenizer().vocab() as u32, 100);
    let mut finished_before = 0;
    for step in 0.. {
        for (id, ask) in (0..).zip(&asks).filter(|(_, ask)| ask.arrival == step) {
            scheduler.push(ask.prepared(id));
        }
        scheduler.admit();
        let batch = scheduler.schedule();
        let events = scheduler.commit(fake.run(&batch).unwrap());
        let finished: Vec<_> = events.iter().filter(|event| event.finish.is_some()).map(|event| event.id).collect();
        if finished.contains(&1) {
            break;
        }
        finished_before += finished.len();
    }
    assert!((10..150).contains(&finished_before), "{finished_before} requests overtook it");
}

#[test]
fn a_full_queue_refuses() {
    let mut scheduler = Scheduler::new(Limits { max_queued: 1, ..unlimited() }, tokenizer());
    assert_eq!(scheduler.push(plain(vec![5], 4, 0).prepared(1)), None);
    let refused = scheduler.push(plain(vec![5], 4, 0).prepared(2)).unwrap();
    let Some(FinishReason::Failed { code, message, .. }) = refused.finish.map(|finish| finish.reason) else { panic!() };
    assert_eq!(code, "overloaded");
    assert_eq!(message, "the queue is full (1 requests wait); try again later");
}

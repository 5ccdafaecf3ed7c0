//! The schedule does not change the text. Random requests with shared prefixes run under random chunk sizes, page counts,
//! policies, priorities, orders of arrival and aborts of neighbours; what each is told, log-probabilities and embeddings to
//! the last bit, must be what it is told when it runs alone, in as few steps as possible, without a cache.
//!
//! `SGLANG_SCHEDULES` sets the number of schedules on the double; each tiny checkpoint runs a tenth of it.

mod fixtures;
mod play;

use play::{Ask, Outcome, Stage, Tally, FEATURES};
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use sglang_engine::request::{FinishReason, Pooling};
use sglang_engine::scheduler::{Limits, Policy};
use sglang_engine::PAGE;
use std::cell::RefCell;

/// Longest prompt but for a picture, and longest output of a request, in tokens.
const MAX_PROMPT: usize = 120;
const MAX_NEW: usize = 40;
const REGEX: &str = "[a-z ]{1,24}(0|1){3}";

/// A request, and whether it continues what an earlier one was told: a second turn, or a fork of a running request.
#[derive(Debug, Clone)]
struct Draw {
    ask: Ask,
    continues: Option<usize>,
}

/// Prompts that share prefixes of any length, also inside pages and pictures.
fn draw() -> impl Strategy<Value = Draw> {
    let picture = prop::option::weighted(0.3, (0..2usize, 0..60usize));
    let prompt = (0..3u32, 1..60usize, prop::collection::vec(3..6u32, 0..20), picture);
    let sampling = (0..MAX_NEW, prop::bool::ANY, 0..3u64, prop::bool::ANY, prop::bool::weighted(0.2));
    let asked = (prop::option::of(0..30usize), prop::bool::ANY, prop::option::weighted(0.4, 0..16usize));
    let pooling = prop::option::weighted(0.3, prop::sample::select(vec![Pooling::Last, Pooling::Mean]));
    let place = (-1..2i32, prop::bool::weighted(0.2), 0..20usize, prop::option::weighted(0.15, 0..40usize));
    (prompt, sampling, asked, pooling, place).prop_map(
        |(
            (root, shared, tail, picture),
            (max_new, greedy, seed, penalized, constrained),
            (prompt_start, stops, continues),
            pooling,
            (priority, salted, arrival, abort),
        )| {
            let shared = (0..shared as u32).map(|i| 10 + (root * 7 + i * 13) % 200);
            let ask = Ask {
                prompt: shared.chain(tail).collect(),
                picture,
                max_new,
                temperature: if greedy { 0.0 } else { 1.0 },
                seed,
                prompt_start,
                stop: if stops { vec!["e".into(), "th".into()] } else { Vec::new() },
                frequency_penalty: if penalized { 0.5 } else { 0.0 },
                ignore_eos: stops,
                regex: constrained.then_some(REGEX),
                priority,
                namespace: u64::from(salted),
                pooling,
                arrival,
                abort: abort.map(|after| arrival + after),
            };
            Draw { ask, continues }
        },
    )
}

/// Room for the longest sequence at least, to the page; under a window also for less.
fn limits(window: usize) -> impl Strategy<Value = Limits> {
    let whole = (MAX_PROMPT + FEATURES + MAX_NEW).div_ceil(PAGE);
    let least = move |chunk| if window > 0 { Limits::least_pages(window, chunk).min(whole) } else { whole };
    let policy = prop::sample::select(Policy::NAMED.to_vec());
    let sizes = (
        1..80usize,
        1..12usize,
        prop_oneof![2 => 0..4usize, 1 => 0..MAX_NEW],
        prop_oneof![2 => 0..4usize, 1 => 0..40usize],
    );
    (sizes, policy, prop::bool::weighted(0.9)).prop_map(
        move |((chunk, max_running, ahead, spare), (_, policy), reuse)| {
            let pages = least(chunk) + spare;
            Limits { chunk, max_running, max_queued: 1000, ahead, pages, window, policy, reuse }
        },
    )
}

/// The requests with their prompts filled in, and what each is told alone.
fn expected(stage: &mut Stage, draws: Vec<Draw>) -> (Vec<Ask>, Vec<Outcome>) {
    let (mut asks, mut outcomes) = (Vec::<Ask>::new(), Vec::<Outcome>::new());
    for Draw { mut ask, continues } in draws {
        if let Some(i) = continues.filter(|_| !asks.is_empty()).map(|i| i % asks.len()) {
            ask.prompt = [&asks[i].prompt[..], &outcomes[i].tokens, &ask.prompt[..1]].concat();
            ask.prompt.truncate(MAX_PROMPT);
            (ask.picture, ask.namespace) = (asks[i].picture, asks[i].namespace);
        }
        ask.prompt_start = ask.prompt_start.filter(|&start| start < ask.prompt.len());
        outcomes.push(stage.alone(&ask));
        asks.push(ask);
    }
    (asks, outcomes)
}

fn check(stage: &mut Stage, limits: &Limits, draws: Vec<Draw>, tally: &mut Tally) -> Result<(), TestCaseError> {
    let (asks, expected) = expected(stage, draws);
    let outcomes = stage.play(limits, &asks, tally);
    for (outcome, expected) in outcomes.iter().zip(&expected) {
        if outcome.finish == Some(FinishReason::Aborted) {
            prop_assert!(expected.tokens.starts_with(&outcome.tokens));
            prop_assert!(expected.text.starts_with(&outcome.text));
            prop_assert!(expected.logprobs.starts_with(&outcome.logprobs));
        } else {
            prop_assert_eq!(outcome, expected);
        }
    }
    Ok(())
}

/// Runs `cases` random schedules; what happened in them.
fn the_schedule_does_not_change_the_text(stage: Stage, cases: u32) -> Tally {
    let window = stage.unlimited.window;
    let (stage, tally) = (RefCell::new(stage), RefCell::new(Tally::default()));
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let schedules = (limits(window), prop::collection::vec(draw(), 2..20));
    let result = runner
        .run(&schedules, |(limits, draws)| check(&mut stage.borrow_mut(), &limits, draws, &mut tally.borrow_mut()));
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{reason}\nminimal failing schedule: {input:#?}"),
        Err(error) => panic!("{error}"),
    }
    tally.into_inner()
}

/// All that can happen to a request did happen.
fn not_tame(tally: Tally) {
    println!("{tally:?}");
    assert!(tally.cached > 0 && tally.evicted > 0 && tally.retracted > 0 && tally.aborted > 0, "tame: {tally:?}");
}

fn n_schedules() -> u32 {
    std::env::var("SGLANG_SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

#[test]
fn on_the_double() {
    not_tame(the_schedule_does_not_change_the_text(Stage::fake(), n_schedules()));
}

#[test]
fn on_the_double_with_a_window() {
    let mut all = Tally::default();
    for window in [1, 7, 16, 24, 50] {
        all += the_schedule_does_not_change_the_text(Stage::fake_with_window(window), n_schedules());
    }
    not_tame(all);
}

/// Full precision, groups of heads with biases and norms, a sliding window (whose pages are given back, while those of the
/// requests alone are not), blocks of four bits, and pictures.
#[test]
fn on_tiny_checkpoints() {
    let mut all = Tally::default();
    for checkpoint in ["llama3", "qwen3", "mistral", "gguf/Q4_1.gguf", "llava"] {
        let n_schedules = n_schedules().div_ceil(10).max(20);
        all += the_schedule_does_not_change_the_text(Stage::tiny(checkpoint), n_schedules);
    }
    not_tame(all);
}

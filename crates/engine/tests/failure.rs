//! When the computation fails, every open and every later request is told so, once, and nothing hangs.

mod fixtures;

use sglang_engine::batch::{Answers, Batch};
use sglang_engine::engine::Sink;
use sglang_engine::request::{Event, FinishReason, Prompt, Request, SamplingParams};
use sglang_engine::runner::{Fake, Runner};
use sglang_engine::scheduler::{Limits, Policy};
use sglang_engine::{Engine, Error, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{channel, Receiver};
use std::time::Duration;

/// Computes some steps, then fails.
struct Failing {
    fake: Fake,
    steps: usize,
    fail: fn() -> Result<Answers>,
}

impl Runner for Failing {
    fn run(&mut self, batch: &Batch) -> Result<Answers> {
        match self.steps.checked_sub(1) {
            None => (self.fail)(),
            Some(left) => {
                self.steps = left;
                self.fake.run(batch)
            }
        }
    }

    fn describe(&self) -> String {
        "failing".into()
    }
}

fn start(fail: fn() -> Result<Answers>) -> (Engine, Receiver<Vec<Event>>) {
    let (send, events) = channel();
    (start_with(3, fail, Box::new(move |e| drop(send.send(e)))), events)
}

fn start_with(steps: usize, fail: fn() -> Result<Answers>, sink: Sink) -> Engine {
    let tokenizer = fixtures::tokenizer("llama");
    let fake = Fake::new(tokenizer.vocab() as u32, 64);
    let runner = Box::new(Failing { fake, steps, fail });
    let limits = Limits {
        chunk: 64,
        max_running: 4,
        max_queued: 10,
        ahead: 256,
        pages: 64,
        window: 0,
        policy: Policy::Lpm,
        reuse: true,
    };
    Engine::start(runner, tokenizer, limits, 512, sink)
}

fn request(id: u64) -> Request {
    let sampling = SamplingParams { max_new_tokens: Some(100), ignore_eos: true, ..Default::default() };
    Request { id, prompt: Prompt::Tokens(vec![5, 6, id as u32 + 7]), sampling, ..Default::default() }
}

/// Code and message of the failure of each request; each must come exactly once.
fn failures(events: &Receiver<Vec<Event>>, n: usize) -> BTreeMap<u64, (&'static str, String)> {
    let mut failed = BTreeMap::new();
    while failed.len() < n {
        for event in events.recv_timeout(Duration::from_secs(60)).expect("the engine still reports") {
            let Some(finish) = event.finish else { continue };
            let FinishReason::Failed { code, message, .. } = finish.reason else { panic!("{:?}", finish.reason) };
            assert_eq!(failed.insert(event.id, (code, message)), None, "two ends of request {}", event.id);
        }
    }
    failed
}

fn check(fail: fn() -> Result<Answers>, code: &'static str, message: &str) {
    let (mut engine, events) = start(fail);
    (0..6).for_each(|id| engine.submit(request(id)));
    let open = failures(&events, 6);
    assert!(open.values().all(|failure| *failure == (code, message.to_owned())), "{open:?}");
    assert_eq!(engine.stats(), None);
    engine.submit(request(6));
    assert_eq!(failures(&events, 1)[&6], (code, message.to_owned()));
    let (send, flushed) = channel();
    engine.flush(Box::new(move |dropped| send.send(dropped.is_err()).unwrap()));
    assert!(flushed.recv().unwrap());
    engine.close();
}

#[test]
fn an_error_of_the_runner_ends_all_requests() {
    check(|| Err(Error::Load("the device is gone".into())), "load_failed", "the device is gone");
}

#[test]
fn a_panic_of_the_runner_ends_all_requests() {
    check(|| panic!("index out of range"), "engine_closed", "the engine failed: index out of range");
}

/// In the first step one request ends and another goes on. The loop fails when the scheduler has let go of the first and
/// nobody was told yet.
#[test]
fn a_panic_between_the_end_of_a_request_and_its_event_ends_all_requests() {
    let (send, events) = channel();
    let told = AtomicBool::new(false);
    let sink = move |events: Vec<Event>| {
        let ends = events.iter().any(|event| event.finish.is_some());
        assert!(!ends || told.swap(true, Ordering::Relaxed), "nobody listens");
        drop(send.send(events));
    };
    let mut engine = start_with(1000, || panic!("is not reached"), Box::new(sink));
    let mut short = request(0);
    short.sampling.max_new_tokens = Some(1);
    [short, request(1)].into_iter().for_each(|request| engine.submit(request));
    let failed = failures(&events, 2);
    let expected = ("engine_closed", "the engine failed: nobody listens".to_owned());
    assert!(failed.values().all(|failure| *failure == expected), "{failed:?}");
    engine.close();
}

#[test]
fn closing_ends_open_requests() {
    let (mut engine, events) = start(|| Err(Error::Closed("three steps were enough".into())));
    engine.submit(request(1));
    engine.close();
    assert_eq!(failures(&events, 1)[&1].0, "engine_closed");
    assert!(events.recv().is_err(), "the sink is gone with the engine");
}

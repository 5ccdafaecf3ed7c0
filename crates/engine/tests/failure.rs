//! When the computation fails, every open and every later request is told so, once, and nothing hangs.

mod fixtures;

use sglang_engine::batch::{Answers, Batch};
use sglang_engine::request::{Event, FinishReason, Prompt, Request, SamplingParams};
use sglang_engine::runner::{Fake, Runner};
use sglang_engine::scheduler::{Limits, Policy};
use sglang_engine::{Engine, Error, Result};
use std::collections::BTreeMap;
use std::sync::mpsc::{channel, Receiver};

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
    let tokenizer = fixtures::tokenizer("llama");
    let fake = Fake::new(tokenizer.vocab() as u32, 64);
    let runner = Box::new(Failing { fake, steps: 3, fail });
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
    let (send, events) = channel();
    (Engine::start(runner, tokenizer, limits, 512, Box::new(move |e| drop(send.send(e)))), events)
}

fn request(id: u64) -> Request {
    let sampling = SamplingParams { max_new_tokens: Some(100), ignore_eos: true, ..Default::default() };
    Request { id, prompt: Prompt::Tokens(vec![5, 6, id as u32 + 7]), sampling, ..Default::default() }
}

/// Code and message of the failure of each request; each must come exactly once.
fn failures(events: &Receiver<Vec<Event>>, n: usize) -> BTreeMap<u64, (&'static str, String)> {
    let mut failed = BTreeMap::new();
    while failed.len() < n {
        for event in events.recv().expect("the engine still reports") {
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

#[test]
fn closing_ends_open_requests() {
    let (mut engine, events) = start(|| Err(Error::Closed("three steps were enough".into())));
    engine.submit(request(1));
    engine.close();
    assert_eq!(failures(&events, 1)[&1].0, "engine_closed");
    assert!(events.recv().is_err(), "the sink is gone with the engine");
}

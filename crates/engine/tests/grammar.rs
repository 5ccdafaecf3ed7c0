//! Constrained requests through a whole engine: constrained and free ones share batches, and every output keeps its
//! constraint, or says that it was cut off, or why it was refused.

mod fixtures;

use fixtures::{constrained, drain, fixture, limits, tokenizer};
use sglang_engine::grammar::{Allowed, Constraint, Grammar};
use sglang_engine::loader::{self, LoadOptions};
use sglang_engine::request::{Event, FinishReason, Prompt, Request, SamplingParams};
use sglang_engine::runner::Fake;
use sglang_engine::scheduler::Scheduler;
use sglang_engine::{Engine, Error};
use std::collections::BTreeMap;
use std::sync::mpsc::{channel, Receiver};

struct Running {
    engine: Engine,
    events: Receiver<Vec<Event>>,
}

impl Running {
    fn start(checkpoint: &str) -> Self {
        let options =
            LoadOptions { model_path: fixture(checkpoint), context_length: Some(512), ..LoadOptions::default() };
        let (send, events) = channel();
        let loaded = loader::load(&options, &mut |_, _| {}).unwrap();
        Running { engine: loaded.start(Box::new(move |events| drop(send.send(events)))), events }
    }

    fn submit(&self, asked: Vec<SamplingParams>) {
        for (id, sampling) in (0..).zip(asked) {
            self.engine.submit(Request { id, prompt: Prompt::Text("Say: ".into()), sampling, ..Request::default() });
        }
    }

    /// Runs all at once; text and end of each, in their order.
    fn ask(&self, asked: Vec<SamplingParams>) -> Vec<(String, FinishReason)> {
        let (n, mut texts, mut ends) = (asked.len(), BTreeMap::<u64, String>::new(), BTreeMap::new());
        self.submit(asked);
        while ends.len() < n {
            for event in self.events.recv().unwrap() {
                texts.entry(event.id).or_default().push_str(&event.text);
                ends.extend(event.finish.map(|finish| (event.id, finish.reason)));
            }
        }
        texts.into_values().zip(ends.into_values()).collect()
    }
}

fn params(constraint: Option<Constraint>, temperature: f32, seed: u64) -> SamplingParams {
    SamplingParams { temperature, seed, max_new_tokens: Some(60), constraint, ..SamplingParams::default() }
}

const REGEX: &str = r"(yes|no): [0-9]{1,3}(\.[0-9]{2})?";
const SCHEMA: &str = r#"{"type":"object","properties":{"ok":{"type":"boolean"},"kind":{"enum":["a","bc"]},
    "n":{"type":"integer","minimum":10,"maximum":99}},"required":["ok","kind","n"],"additionalProperties":false}"#;
const EBNF: &str = "root ::= sum\nsum ::= [1-9] (\"+\" [1-9]){1,3} | \"(\" sum \")\"";

fn constraints() -> [Constraint; 3] {
    [Constraint::Regex(REGEX.into()), Constraint::JsonSchema(SCHEMA.into()), Constraint::Ebnf(EBNF.into())]
}

/// Whether a complete output is right, judged by means other than ours.
fn is_right(constraint: &Constraint, text: &str) -> bool {
    let matches = |pattern: &str| regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(text);
    match constraint {
        Constraint::Regex(pattern) => matches(pattern),
        Constraint::JsonSchema(_) => {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return false };
            let n = value["n"].as_i64().unwrap_or(0);
            let right = value["ok"].is_boolean() && [Some("a"), Some("bc")].contains(&value["kind"].as_str());
            right && (10..=99).contains(&n) && value.as_object().map(|o| o.len()) == Some(3)
        }
        _ => {
            let inner = text.trim_start_matches('(');
            let depth = text.len() - inner.len();
            let sum = inner.strip_suffix(&")".repeat(depth)).unwrap_or("");
            regex::Regex::new(r"^[1-9](\+[1-9]){1,3}$").unwrap().is_match(sum)
        }
    }
}

#[test]
fn every_output_keeps_its_constraint() {
    for checkpoint in ["llama", "llama3"] {
        let running = Running::start(checkpoint);
        let mut asked = Vec::new();
        for seed in 0..8 {
            let temperature = if seed == 0 { 0.0 } else { 1.5 };
            asked.extend(constraints().map(|constraint| params(Some(constraint), temperature, seed)));
            asked.push(params(None, temperature, seed));
        }
        let answers = running.ask(asked.clone());
        for (sampling, (text, end)) in asked.iter().zip(answers) {
            let Some(constraint) = &sampling.constraint else { continue };
            let cut_off = end == FinishReason::Length && matches!(constraint, Constraint::Ebnf(_));
            assert!(cut_off || is_right(constraint, &text), "{checkpoint}: {constraint:?}: {text:?}, {end:?}");
        }
    }
}

#[test]
fn an_output_that_can_only_end_is_complete() {
    let running = Running::start("llama3");
    let constraint = Constraint::Regex("abc".into());
    let free = SamplingParams { ignore_eos: true, ..params(Some(constraint.clone()), 1.0, 1) };
    let empty = params(Some(Constraint::Regex(String::new())), 0.0, 0);
    let answers = running.ask(vec![params(Some(constraint), 0.0, 0), free, empty]);
    assert_eq!(answers[..2], vec![("abc".to_owned(), FinishReason::Complete); 2]);
    assert_eq!(answers[2], (String::new(), FinishReason::Complete));
}

#[test]
fn an_output_that_is_cut_off_says_so() {
    let running = Running::start("llama3");
    let constraint = Constraint::Regex("[a-z]{500}".into());
    let [(text, end)] = &running.ask(vec![params(Some(constraint), 1.0, 0)])[..] else { panic!("one answer") };
    assert_eq!(*end, FinishReason::Length);
    assert!((1..500).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase()), "{text:?}");
}

#[test]
fn without_end_tokens_an_output_goes_on_while_it_may() {
    let running = Running::start("llama");
    let asked = SamplingParams { ignore_eos: true, ..params(Some(Constraint::Regex("[0-9]*".into())), 1.0, 3) };
    let [(text, end)] = &running.ask(vec![asked])[..] else { panic!("one answer") };
    assert_eq!(*end, FinishReason::Length);
    assert!(text.len() >= 60 && text.bytes().all(|b| b.is_ascii_digit()), "{text:?}");
}

#[test]
fn a_bad_constraint_fails_alone() {
    let running = Running::start("llama");
    let bad =
        [Constraint::Regex("(?=a)".into()), Constraint::JsonSchema("{".into()), Constraint::Ebnf("root ::=".into())];
    let mut asked: Vec<_> = bad.map(|constraint| params(Some(constraint), 0.0, 0)).into();
    asked.push(params(Some(Constraint::Regex("ok".into())), 0.0, 0));
    let answers = running.ask(asked);
    let params = answers.iter().map(|(_, end)| match end {
        FinishReason::Failed { code: "bad_request", param, .. } => *param,
        _ => None,
    });
    let expected = [Some("sampling_params.regex"), Some("sampling_params.json_schema"), None, None];
    assert_eq!(params.collect::<Vec<_>>(), expected);
    assert_eq!(answers[2].0, "");
    assert_eq!(answers[3], ("ok".to_owned(), FinishReason::Complete));
}

#[test]
fn others_run_while_a_constraint_is_compiled() {
    let running = Running::start("llama3");
    let free = SamplingParams { ignore_eos: true, ..params(None, 1.0, 0) };
    // It takes longer to compile than the other request takes in all.
    let slow = params(Some(Constraint::Regex(r"\p{L}{1,100}".into())), 1.0, 0);
    running.submit(vec![free, slow]);
    let mut events = running.events.iter().flatten().take_while(|event| event.id == 0);
    assert!(events.any(|event| event.finish.is_some()), "the constrained request began before the free one ended");
}

/// Allows some tokens, a number of times, and never an end.
struct GivesUp(usize);

impl Grammar for GivesUp {
    fn allowed(&mut self) -> Result<Allowed, Error> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| Error::bad("sampling_params.ebnf", "too complex"))?;
        Ok(Allowed { mask: vec![0b10000; 100].into(), only_end: false })
    }

    fn accept(&mut self, _token: u32) {}

    fn is_accepting(&self) -> bool {
        false
    }
}

#[test]
fn a_grammar_that_gives_up_fails_its_request() {
    let tokenizer = tokenizer("llama3");
    let limits = limits(64, true);
    let mut fake = Fake::new(tokenizer.vocab() as u32, limits.pages);
    for n in 0..5 {
        let mut scheduler = Scheduler::new(limits.clone(), tokenizer.clone());
        let asked = constrained(0, SamplingParams::default(), 20, Box::new(GivesUp(n)));
        let mut events: Vec<Event> = scheduler.push(asked).into_iter().collect();
        events.extend(drain(&mut scheduler, &mut fake));
        let finish = events.last().and_then(|event| event.finish.clone()).unwrap();
        assert!(matches!(finish.reason, FinishReason::Failed { code: "bad_request", .. }), "{finish:?}");
        assert_eq!(finish.completion_tokens, n);
        assert!(scheduler.is_idle());
        assert_eq!(scheduler.cache().stats().leased, 0);
    }
}

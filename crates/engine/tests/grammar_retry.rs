//! Values that break their schema when they are complete: they are written again, and none is handed over.

mod fixtures;

use fixtures::{constrained, drain, limits, tokenizer};
use serde_json::Value;
use sglang_engine::batch::{Answers, Batch, Pick, Picked};
use sglang_engine::grammar::{Constraint, Grammars};
use sglang_engine::request::{Event, Finish, FinishReason, LogprobParams, SamplingParams};
use sglang_engine::runner::{Fake, Runner};
use sglang_engine::scheduler::{Limits, Scheduler};
use sglang_engine::sequence::Prepared;
use sglang_engine::Result;
use std::collections::HashSet;
use std::sync::Arc;

const UNIQUE: &str = r#"{"type":"object","properties":{"name":{"enum":["a","b"]},"tags":{"type":"array",
    "items":{"enum":[1,2,3]},"uniqueItems":true,"minItems":2,"maxItems":2},"end":{"type":"boolean"}},
    "required":["name","tags","end"],"additionalProperties":false}"#;
const IMPOSSIBLE: &str = r#"{"type":"array","items":{"const":1},"minItems":2,"maxItems":2,"uniqueItems":true}"#;

/// Chooses each allowed token as often as any other, by what the double makes of the tokens before.
struct Fair(Fake);

impl Runner for Fair {
    fn run(&mut self, batch: &Batch) -> Result<Answers> {
        let mut free = batch.clone();
        let masks: Vec<_> = free
            .outputs
            .iter_mut()
            .map(|output| match &mut output.ask.pick {
                Pick::Sample(params) => params.allowed.take().unwrap(),
                Pick::Given(_) => panic!("only draws are wanted"),
            })
            .collect();
        let fair = |(mut picked, mask): (Picked, Arc<[u32]>)| {
            let allowed: Vec<u32> =
                (0..mask.len() as u32 * 32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
            picked.token = allowed[picked.token as usize % allowed.len()];
            picked
        };
        let Answers { picked, states } = self.0.run(&free)?;
        Ok(Answers { picked: picked.into_iter().zip(masks).map(fair).collect(), states })
    }

    fn describe(&self) -> String {
        "fair".into()
    }
}

/// Runs requests at once; the events of each.
fn generate(schema: &str, asked: &[SamplingParams], limits: Limits, logprobs: bool) -> Vec<Vec<Event>> {
    let tokenizer = tokenizer("llama3");
    let mut grammars = Grammars::new(tokenizer.clone());
    let mut runner = Fair(Fake::new(tokenizer.vocab() as u32, limits.pages));
    let mut scheduler = Scheduler::new(limits, tokenizer);
    let mut events = Vec::new();
    for (id, sampling) in (0..).zip(asked) {
        let grammar = grammars.start(&Constraint::JsonSchema(schema.into())).unwrap();
        let logprobs = LogprobParams { enabled: logprobs, ..LogprobParams::default() };
        events.extend(scheduler.push(Prepared { logprobs, ..constrained(id, sampling.clone(), 300, grammar) }));
    }
    events.extend(drain(&mut scheduler, &mut runner));
    assert_eq!(scheduler.cache().stats().leased, 0);
    let of = |id: u64| events.iter().filter(|event| event.id == id).cloned().collect();
    (0..asked.len() as u64).map(of).collect()
}

/// Text and end of a request that handed over nothing before its end.
fn answer(mut events: Vec<Event>) -> (String, Finish) {
    let last = events.pop().unwrap();
    assert!(events.iter().all(|event| event.text.is_empty() && event.tokens.is_empty() && event.finish.is_none()));
    let finish = last.finish.unwrap();
    assert_eq!(finish.completion_tokens, last.tokens.len());
    (last.text, finish)
}

fn is_right(text: &str) -> bool {
    let value: Value = serde_json::from_str(text).unwrap();
    let tags = value["tags"].as_array().unwrap();
    tags.len() == 2 && tags.iter().map(Value::to_string).collect::<HashSet<_>>().len() == 2
}

fn seeds() -> Vec<SamplingParams> {
    let asked =
        |seed: u64| SamplingParams { seed, temperature: if seed < 4 { 0.0 } else { 1.0 }, ..SamplingParams::default() };
    (0..40).map(asked).collect()
}

#[test]
fn a_value_that_breaks_its_schema_is_written_again_whatever_the_chunks() {
    let mut expected = None;
    for (chunk, reuse, logprobs) in [(64, true, false), (1, true, false), (5, false, false), (64, true, true)] {
        let answers: Vec<_> =
            generate(UNIQUE, &seeds(), limits(chunk, reuse), logprobs).into_iter().map(answer).collect();
        let complete = answers.iter().filter(|(_, finish)| finish.reason == FinishReason::Complete);
        assert!(complete.clone().all(|(text, _)| is_right(text)));
        assert!(complete.clone().count() >= 38, "{}", complete.count());
        let mended = complete.filter(|(_, finish)| finish.discarded_tokens > 0).count();
        assert!(mended > 5, "{mended}");
        // With log-probabilities there are no jumps, so tokens count otherwise.
        if !logprobs {
            let texts: Vec<_> = answers.into_iter().map(|(text, finish)| (text, finish.discarded_tokens)).collect();
            assert_eq!(&texts, expected.get_or_insert_with(|| texts.clone()));
        }
    }
}

#[test]
fn what_never_gets_right_fails_after_some_tries_without_a_text() {
    for (text, finish) in generate(IMPOSSIBLE, &seeds()[3..5], limits(64, true), false).into_iter().map(answer) {
        assert_eq!(text, "");
        assert!(matches!(finish.reason, FinishReason::Failed { code: "bad_request", .. }), "{finish:?}");
        assert!(finish.discarded_tokens >= 8, "{finish:?}");
    }
}

#[test]
fn log_probabilities_are_those_of_the_tokens_handed_over() {
    for mut events in generate(UNIQUE, &seeds(), limits(64, true), true) {
        let last = events.pop().unwrap();
        let scored: Vec<u32> = last.logprobs.iter().map(|position| position.token).collect();
        assert_eq!(scored, last.tokens);
    }
}

//! Jump-forward: forced text costs no steps, is spelled as the tokenizer would, and changes nothing about what is free.

mod fixtures;

use fixtures::{constrained, default_model, drain, fixture, limits, text_mask, tokenizer, Scratch};
use sglang_engine::batch::{Answers, Batch, Pick, Picked};
use sglang_engine::grammar::{Allowed, Constraint, Grammar, Grammars};
use sglang_engine::model::config::ModelConfig;
use sglang_engine::request::{Event, FinishReason, SamplingParams};
use sglang_engine::runner::{Fake, Runner};
use sglang_engine::scheduler::Scheduler;
use sglang_engine::text::Tokenizer;
use sglang_engine::{weights, Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

fn default_tokenizer() -> Arc<Tokenizer> {
    let files = weights::open(&default_model()).unwrap();
    Arc::new(Tokenizer::of(&files, &ModelConfig::of(&files).unwrap()).unwrap())
}

fn regex(pattern: &str) -> Constraint {
    Constraint::Regex(pattern.into())
}

const PERSON: &str = r#"{"type":"object","properties":{"first_name":{"type":"string"},"is_employed":{"type":"boolean"},
    "years_of_experience":{"type":"integer"},"favourite_colour":{"enum":["red","green","blue"]},
    "postal_address":{"type":"object","properties":{"street_name":{"type":"string"},"house_number":{"type":"integer"}},
    "required":["street_name","house_number"],"additionalProperties":false}},"required":["first_name","is_employed",
    "years_of_experience","favourite_colour","postal_address"],"additionalProperties":false}"#;
const PERSONS: [&str; 2] = [
    r#"{"first_name":"Ada","is_employed":true,"years_of_experience":12,"favourite_colour":"green","postal_address":{"street_name":"Main Street","house_number":7}}"#,
    r#"{"first_name":"日本 \"x\"","is_employed":false,"years_of_experience":-3,"favourite_colour":"blue","postal_address":{"street_name":"","house_number":100}}"#,
];

/// Constraints and whole texts that they allow.
fn texts() -> Vec<(Constraint, Vec<&'static str>)> {
    let ebnf = "root ::= \"Sum: \" sum \" is the whole of it.\"\nsum ::= [1-9] (\"+\" [1-9])* | \"(\" sum \")\"";
    vec![
        (Constraint::JsonSchema(PERSON.into()), PERSONS.to_vec()),
        (regex("Name: [A-Z][a-z]+, aged [0-9]{1,3} years"), vec!["Name: Ada, aged 36 years", "Name: Xy, aged 7 years"]),
        (regex("(yes|no), because it is( not)? so"), vec!["yes, because it is so", "no, because it is not so"]),
        (regex("日本(語|人)です🙂+"), vec!["日本語です🙂", "日本人です🙂🙂"]),
        (regex(r"    return \w+;\n\}"), vec!["    return value;\n}", "    return x;\n}"]),
        (Constraint::Ebnf(ebnf.into()), vec!["Sum: ((1+2)) is the whole of it.", "Sum: 3 is the whole of it."]),
    ]
}

/// Walks a text in the tokenizer's own tokens, jumping where possible; the number of tokens that had to be chosen.
fn walk(tokenizer: &Arc<Tokenizer>, constraint: &Constraint, text: &str) -> (usize, usize) {
    let expected = tokenizer.encode_piece(text).unwrap();
    let mut grammar = Grammars::new(tokenizer.clone()).start(constraint).unwrap();
    let (mut tokens, mut chosen) = (grammar.jump(None).unwrap_or_default(), 0);
    assert!(expected.starts_with(&tokens), "{text:?}: {tokens:?}");
    while tokens.len() < expected.len() {
        let token = expected[tokens.len()];
        let mask = text_mask(&mut *grammar, tokenizer);
        assert!(
            mask[token as usize / 32] >> (token % 32) & 1 == 1,
            "{text:?} after {:?}",
            tokenizer.decode(&tokens, false)
        );
        grammar.accept(token);
        tokens.extend(grammar.jump(Some(token)).unwrap_or_else(|| vec![token]));
        chosen += 1;
        assert!(
            expected.starts_with(&tokens),
            "{text:?}: {:?}",
            tokens.iter().map(|&t| tokenizer.token_text(t)).collect::<Vec<_>>()
        );
    }
    assert!(grammar.is_accepting(), "{text:?}");
    (chosen, expected.len())
}

#[test]
fn forced_text_is_spelled_as_the_tokenizer_would() {
    for tokenizer in [default_tokenizer(), tokenizer("llama"), tokenizer("llama3"), tokenizer("qwen2")] {
        for (constraint, texts) in texts() {
            // The smallest vocabularies do not spell every text.
            for text in texts.into_iter().filter(|text| tokenizer.encode_piece(text).is_some()) {
                walk(&tokenizer, &constraint, text);
            }
        }
    }
}

#[test]
fn json_of_fixed_keys_takes_half_the_steps() {
    for text in PERSONS {
        let (chosen, all) = walk(&default_tokenizer(), &Constraint::JsonSchema(PERSON.into()), text);
        assert!(2 * chosen <= all, "{chosen} of {all} tokens of {text}");
    }
}

#[test]
fn a_chosen_token_may_be_joined_to_forced_text() {
    let tokenizer = default_tokenizer();
    let mut grammar = Grammars::new(tokenizer.clone()).start(&regex("(hello|good) world")).unwrap();
    let first = tokenizer.encode_piece("h").unwrap()[0];
    grammar.accept(first);
    assert_eq!(grammar.jump(Some(first)), tokenizer.encode_piece("hello world"));
    assert!(grammar.is_accepting());
}

#[test]
fn text_that_is_forced_from_the_start_waits_for_no_step() {
    let tokenizer = tokenizer("llama3");
    let vocab = tokenizer.vocab() as u32;
    let mut grammars = Grammars::new(tokenizer.clone());
    for (pattern, steps) in [("Yes, of course!", 0), ("Answer[01]", 1), ("[01]", 1)] {
        let grammar = grammars.start(&regex(pattern)).unwrap();
        let (text, end, taken) = generate(&mut Fake::new(vocab, 64), &tokenizer, grammar, 64);
        assert!(::regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(&text), "{text:?}");
        assert_eq!((end, taken), (FinishReason::Complete, steps), "{pattern}");
    }
}

/// A grammar without jumps.
struct Plain(Box<dyn Grammar>);

impl Grammar for Plain {
    fn allowed(&mut self) -> std::result::Result<Allowed, Error> {
        self.0.allowed()
    }

    fn accept(&mut self, token: u32) {
        self.0.accept(token);
    }

    fn is_accepting(&self) -> bool {
        self.0.is_accepting()
    }
}

/// Runs one request; its text, its end, and the steps that it took.
fn generate(
    runner: &mut dyn Runner,
    tokenizer: &Arc<Tokenizer>,
    grammar: Box<dyn Grammar>,
    chunk: usize,
) -> (String, FinishReason, u64) {
    let mut scheduler = Scheduler::new(limits(chunk, true), tokenizer.clone());
    let asked = constrained(0, SamplingParams::default(), 300, grammar);
    let mut events: Vec<Event> = scheduler.push(asked).into_iter().collect();
    events.extend(drain(&mut scheduler, runner));
    let tokens: Vec<u32> = events.iter().flat_map(|event| event.tokens.clone()).collect();
    let text: String = events.iter().map(|event| event.text.as_str()).collect();
    let finish = events.pop().and_then(|event| event.finish).unwrap();
    assert_eq!(finish.completion_tokens, tokens.len());
    assert!(tokenizer.decode(&tokens, true).contains(&text));
    (text, finish.reason, scheduler.totals().steps)
}

#[test]
fn jumps_take_fewer_steps_whatever_their_chunks() {
    let tokenizer = tokenizer("llama3");
    let mut grammars = Grammars::new(tokenizer.clone());
    let vocab = tokenizer.vocab() as u32;
    for pattern in ["Name: [A-Z][a-z]{1,9}, aged [0-9]{1,3} years", "(yes|no), because it is( not)? so"] {
        let mut run = |plain: bool, chunk| {
            let grammar = grammars.start(&regex(pattern)).unwrap();
            let grammar = if plain { Box::new(Plain(grammar)) } else { grammar };
            generate(&mut Fake::new(vocab, 64), &tokenizer, grammar, chunk)
        };
        let (text, end, steps) = run(false, 64);
        assert!(::regex::Regex::new(&format!("^(?:{pattern})$")).unwrap().is_match(&text), "{text:?}");
        assert!(2 * steps <= run(true, 64).2, "{steps} steps");
        for chunk in [1, 2, 5] {
            let (other, other_end, _) = run(false, chunk);
            assert_eq!((&other, &other_end), (&text, &end), "chunks of {chunk}");
        }
    }
}

/// A model whose next token depends on the tokens before it, and whose every draw is made by a script.
struct Scripted {
    tokens: Vec<u32>,
    /// Which of the possible tokens to draw, and of how many.
    draws: Vec<(usize, usize)>,
    n_drawn: usize,
    probability: f64,
}

impl Scripted {
    fn weight(&self, token: u32) -> f64 {
        let hash =
            self.tokens.iter().chain([&token]).fold(7u64, |hash, &token| {
                (hash ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23)
            });
        1.0 + (hash % 1000) as f64
    }

    fn draw(&mut self, possible: &[u32]) -> u32 {
        if self.n_drawn == self.draws.len() {
            self.draws.push((0, possible.len()));
        }
        let token = possible[self.draws[self.n_drawn].0];
        let all: f64 = possible.iter().map(|&token| self.weight(token)).sum();
        self.probability *= self.weight(token) / all;
        self.n_drawn += 1;
        token
    }

    /// Goes to the next sequence of draws; false after the last.
    fn next(&mut self) -> bool {
        while let Some((at, n)) = self.draws.pop() {
            if at + 1 < n {
                self.draws.push((at + 1, n));
                return true;
            }
        }
        false
    }
}

impl Runner for Scripted {
    fn run(&mut self, batch: &Batch) -> Result<Answers> {
        self.tokens.extend(&batch.tokens);
        let mut picked = Vec::new();
        for output in &batch.outputs {
            let Pick::Sample(params) = &output.ask.pick else { panic!("only draws are wanted") };
            let mask = params.allowed.clone().unwrap();
            let possible: Vec<u32> =
                (0..mask.len() as u32 * 32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
            picked.push(Picked { token: self.draw(&possible), ..Picked::default() });
        }
        Ok(Answers { picked, states: Vec::new() })
    }

    fn describe(&self) -> String {
        "scripted".into()
    }
}

/// All texts with their probabilities.
fn distribution(tokenizer: &Arc<Tokenizer>, start: &mut dyn FnMut() -> Box<dyn Grammar>) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut model = Scripted { tokens: Vec::new(), draws: Vec::new(), n_drawn: 0, probability: 1.0 };
    loop {
        (model.tokens, model.n_drawn, model.probability) = (Vec::new(), 0, 1.0);
        let (text, _, _) = generate(&mut model, tokenizer, start(), 64);
        *found.entry(text).or_default() += model.probability;
        if !model.next() {
            return found;
        }
    }
}

/// The tokens of the checkpoint that are one byte, so that a text has one spelling.
fn tokenizer_of_bytes(scratch: &Scratch) -> Arc<Tokenizer> {
    let mut json = fixtures::json("llama3/tokenizer.json");
    json["model"]["merges"] = serde_json::json!([]);
    json["model"]["vocab"].as_object_mut().unwrap().retain(|token, _| token.chars().count() == 1);
    let path = scratch.write("tokenizer.json", json.to_string());
    let config = ModelConfig::of(&weights::open(&fixture("llama3")).unwrap()).unwrap();
    Arc::new(Tokenizer::at(&path, &config).unwrap())
}

#[test]
fn free_parts_are_distributed_as_without_jumps() {
    let scratch = Scratch::new();
    let tokenizer = tokenizer_of_bytes(&scratch);
    let schema = r#"{"type":"object","properties":{"is_ok":{"type":"boolean"},"kind":{"enum":["a","bc",10]}},
        "required":["is_ok","kind"],"additionalProperties":false}"#;
    let constraints =
        [regex("(yes|no), because( it)? is [0-2]{1,2} so"), regex("ab?c?d?"), Constraint::JsonSchema(schema.into())];
    let mut grammars = Grammars::new(tokenizer.clone());
    for constraint in constraints {
        let jumping = distribution(&tokenizer, &mut || grammars.start(&constraint).unwrap());
        let plain = distribution(&tokenizer, &mut || Box::new(Plain(grammars.start(&constraint).unwrap())));
        assert!(jumping.len() > 4 && jumping.keys().eq(plain.keys()), "{jumping:?} {plain:?}");
        for (text, probability) in &jumping {
            assert!((probability - plain[text]).abs() < 1e-12, "{text}: {probability}, {}", plain[text]);
        }
        assert!((jumping.values().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}

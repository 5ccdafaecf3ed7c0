//! Texts walked through a constraint's own masks, token by token, as a model's output would be. JSON is also tried with
//! its keys in the order of the schema, in which they are generated.

use super::{Constraint, Grammar, Grammars};
use crate::error::Error;
use crate::text::Tokenizer;
use serde_json::{json, Value};
use std::time::{Duration, Instant};

/// What a constraint makes of some texts.
#[derive(Debug)]
pub struct Examined {
    /// Time until the grammar could start.
    pub compile: Duration,
    /// In the order of the texts.
    pub walks: Vec<Walk>,
}

/// The way of one text.
#[derive(Debug)]
pub struct Walk {
    /// Every token was allowed and so was the end after them.
    pub accepted: bool,
    /// The text from where it was refused, at most 60 characters.
    pub rest: String,
    /// Time of each mask.
    pub first_masks: Vec<Duration>,
    /// The same on the same way again, after the warm-up that the first was.
    pub masks: Vec<Duration>,
}

impl Examined {
    /// `{compileUs, walks: [{accepted, rest, firstMaskUs, maskUs}]}`
    pub fn json(&self) -> String {
        let us = |time: &Duration| time.as_secs_f64() * 1e6;
        let all_us = |times: &[Duration]| times.iter().map(us).collect::<Vec<f64>>();
        let walk = |walk: &Walk| {
            let (first, again) = (all_us(&walk.first_masks), all_us(&walk.masks));
            json!({ "accepted": walk.accepted, "rest": walk.rest, "firstMaskUs": first, "maskUs": again })
        };
        json!({ "compileUs": us(&self.compile), "walks": self.walks.iter().map(walk).collect::<Vec<_>>() }).to_string()
    }
}

impl Grammars {
    /// Walks texts through a constraint; an error where it is refused.
    pub fn examine(&mut self, constraint: &Constraint, texts: &[String]) -> Result<Examined, Error> {
        let begin = Instant::now();
        self.start(constraint)?;
        let compile = begin.elapsed();
        let orders = match constraint {
            Constraint::JsonSchema(schema) => serde_json::from_str(schema).map(|schema| key_orders(&schema)),
            _ => Ok(Vec::new()),
        };
        let orders = orders.unwrap_or_default();
        let tokenizer = self.tokenizer.clone();
        let mut walks = Vec::with_capacity(texts.len());
        for text in texts {
            let mut text = text.clone();
            let mut seen = walk(&tokenizer, self.start(constraint)?, &text);
            if let (false, Some(ordered)) = (seen.accepted, in_order(&text, &orders)) {
                seen = walk(&tokenizer, self.start(constraint)?, &ordered);
                text = ordered;
            }
            seen.masks = walk(&tokenizer, self.start(constraint)?, &text).first_masks;
            walks.push(seen);
        }
        Ok(Examined { compile, walks })
    }
}

fn walk(tokenizer: &Tokenizer, mut grammar: Box<dyn Grammar>, text: &str) -> Walk {
    let mut walk = Walk { accepted: false, rest: String::new(), first_masks: Vec::new(), masks: Vec::new() };
    let tokens = tokenizer.encode_piece(text).unwrap_or_default();
    let mut passed = 0;
    for token in &tokens {
        let begin = Instant::now();
        let allowed = grammar.allowed();
        walk.first_masks.push(begin.elapsed());
        if !allowed.is_ok_and(|allowed| allowed.mask[*token as usize / 32] >> (token % 32) & 1 == 1) {
            break;
        }
        grammar.accept(*token);
        passed += tokenizer.token_bytes(*token).len();
    }
    walk.accepted = passed == text.len() && grammar.is_accepting();
    walk.rest = String::from_utf8_lossy(&text.as_bytes()[passed..]).chars().take(60).collect();
    walk
}

/// The names of every `properties` in a schema.
fn key_orders(schema: &Value) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        found.push(properties.keys().cloned().collect());
    }
    match schema {
        Value::Object(keywords) => found.extend(keywords.values().flat_map(key_orders)),
        Value::Array(items) => found.extend(items.iter().flat_map(key_orders)),
        _ => {}
    }
    found
}

/// A JSON text with the keys of each object in the order that knows most of them, as they are generated.
fn in_order(text: &str, orders: &[Vec<String>]) -> Option<String> {
    let mut value = serde_json::from_str(text).ok()?;
    order_keys(&mut value, orders);
    Some(value.to_string())
}

fn order_keys(value: &mut Value, orders: &[Vec<String>]) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(|value| order_keys(value, orders));
            let known = |order: &&Vec<String>| object.keys().filter(|key| order.contains(key)).count();
            let Some(order) = orders.iter().rev().max_by_key(known) else { return };
            let place = |key: &String| order.iter().position(|name| name == key).unwrap_or(order.len());
            let mut entries: Vec<_> = std::mem::take(object).into_iter().collect();
            entries.sort_by_key(|(key, _)| place(key));
            object.extend(entries);
        }
        Value::Array(items) => items.iter_mut().for_each(|value| order_keys(value, orders)),
        _ => {}
    }
}

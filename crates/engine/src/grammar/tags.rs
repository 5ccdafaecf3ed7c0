//! Structural tags: free text in which, wherever one of the triggers is written, one of the tags that begin with it must
//! follow, its content a JSON value of the tag's schema.
//!
//! The schema is honoured in full, as [`schema`] does, or refused; one that asks for a check of the complete value is
//! refused too.
//!
//! Where one trigger begins with another, the shorter one is written first, and all tags that begin with it may follow.

use super::parsing::{Parser, Parsers};
use super::schema;
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write;

const PARAM: &str = "sampling_params.structural_tag";

/// As in the original's API.
#[derive(Deserialize)]
struct Structural {
    structures: Vec<Tag>,
    triggers: Vec<String>,
}

#[derive(Deserialize)]
struct Tag {
    begin: String,
    #[serde(default = "any")]
    schema: Value,
    end: String,
}

fn any() -> Value {
    Value::Bool(true)
}

/// Tags given as JSON text. An error is a sentence without its end, here and below.
pub fn compile(text: &str, parsers: &Parsers) -> Result<Parser, String> {
    let tags: Structural = serde_json::from_str(text)
        .map_err(|e| format!("expected {{structures: [{{begin, schema, end}}], triggers: [text]}} as JSON: {e}"))?;
    parsers.lark(PARAM, &lark(&tags)?).map_err(|reason| {
        let refusal = |(i, tag): (usize, &Tag)| schema::refusal(&tag.schema, parsers).map(|reason| in_tag(i, &reason));
        let refusal = tags.structures.iter().enumerate().find_map(refusal);
        // What follows the first line is the grammar, which nobody wrote.
        refusal.unwrap_or_else(|| reason.lines().next().unwrap_or_default().to_owned())
    })
}

/// A reason with its place in the schema of a tag, as seen from the whole.
fn in_tag(i: usize, reason: &str) -> String {
    match reason.strip_prefix("at \"") {
        Some(place) => format!("at \"/structures/{i}/schema{place}"),
        None => format!("at \"/structures/{i}/schema\": {reason}"),
    }
}

/// The grammar in llguidance's variant of Lark's notation.
fn lark(Structural { structures, triggers }: &Structural) -> Result<String, String> {
    if triggers.iter().any(String::is_empty) {
        return Err("a trigger must not be empty".into());
    }
    let first_written = shortest(triggers);
    let mut rules = String::from("TEXT: /(.|\\n)*/\n");
    let mut names = Vec::new();
    for (i, trigger) in first_written.iter().enumerate() {
        let _ = writeln!(rules, "trigger_{i}[lazy]: TEXT {}", quoted(trigger));
    }
    for (i, Tag { begin, schema, end }) in structures.iter().enumerate() {
        let found = first_written.iter().enumerate().find_map(|(t, trigger)| Some((t, begin.strip_prefix(trigger)?)));
        let Some((trigger, rest)) = found else {
            return Err(format!("at \"/structures/{i}/begin\": {begin:?} begins with none of the triggers"));
        };
        let schema = schema::enforced(schema).map_err(|reason| in_tag(i, &reason))?;
        let text = |text: &str| if text.is_empty() { String::new() } else { quoted(text) };
        let _ = writeln!(rules, "tag_{i}: trigger_{trigger} {} %json {schema} {}", text(rest), text(end));
        names.push(format!("tag_{i}"));
    }
    if names.is_empty() {
        return Err("there are no structures".into());
    }
    let is_unused = |trigger: &String| !structures.iter().any(|tag| tag.begin.starts_with(trigger));
    if let Some(i) = triggers.iter().position(is_unused) {
        return Err(format!(
            "at \"/triggers/{i}\": no structure begins with {:?}, so it could never be written",
            triggers[i]
        ));
    }
    Ok(format!("start: ({})* text_end\ntext_end: TEXT\n{rules}", names.join(" | ")))
}

/// The triggers that begin with no other.
fn shortest(triggers: &[String]) -> Vec<&str> {
    let mut by_length: Vec<&str> = triggers.iter().map(String::as_str).collect();
    by_length.sort_by_key(|trigger| trigger.len());
    let mut found: Vec<&str> = Vec::new();
    for trigger in by_length {
        if !found.iter().any(|shorter| trigger.starts_with(shorter)) {
            found.push(trigger);
        }
    }
    found
}

/// As a string of the notation, which has JSON's escapes.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

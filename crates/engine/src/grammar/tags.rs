//! Structural tags: free text in which, wherever one of the triggers is written, one of the tags that begin with it must
//! follow, its content a JSON value of the tag's schema.

use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write;

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

/// The grammar in llguidance's variant of Lark's notation. An error is a sentence without its end.
pub fn lark(text: &str) -> Result<String, String> {
    let Structural { structures, triggers } = serde_json::from_str(text)
        .map_err(|e| format!("expected {{structures: [{{begin, schema, end}}], triggers: [text]}} as JSON: {e}"))?;
    if triggers.iter().any(String::is_empty) {
        return Err("a trigger must not be empty".into());
    }
    let mut rules = String::from("TEXT: /(.|\\n)*/\n");
    let mut names = Vec::new();
    for (i, trigger) in triggers.iter().enumerate() {
        let _ = writeln!(rules, "trigger_{i}[lazy]: TEXT {}", quoted(trigger));
    }
    for (i, Tag { begin, schema, end }) in structures.iter().enumerate() {
        let found =
            triggers.iter().enumerate().find_map(|(t, trigger)| Some((t, begin.strip_prefix(trigger.as_str())?)));
        let Some((trigger, rest)) = found else {
            return Err(format!("at \"/structures/{i}/begin\": {begin:?} begins with none of the triggers"));
        };
        let text = |text: &str| if text.is_empty() { String::new() } else { quoted(text) };
        let _ = writeln!(rules, "tag_{i}: trigger_{trigger} {} %json {schema} {}", text(rest), text(end));
        names.push(format!("tag_{i}"));
    }
    if names.is_empty() {
        return Err("there are no structures".into());
    }
    Ok(format!("start: ({})* text_end\ntext_end: TEXT\n{rules}", names.join(" | ")))
}

/// As a string of the notation, which has JSON's escapes.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

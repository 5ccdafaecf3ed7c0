//! Schemas in terms that can be enforced token by token.
//!
//! Law: a value that satisfies a schema satisfies its looser form too. What the looser form lets through beyond that is
//! found when the value is complete ([`super::checked`]). Keywords that llguidance passes over need no care here.

use super::schema::OF_NAMED_SCHEMAS;
use serde_json::{json, Map, Value};

/// Keywords that hold values.
const OF_VALUES: [&str; 4] = ["const", "default", "enum", "examples"];

/// Loosens a schema and all within it.
pub fn loosen(schema: &mut Value) {
    if let Some(keywords) = schema.as_object_mut() {
        if keywords.get("pattern").and_then(Value::as_str).is_some_and(is_irregular) {
            keywords.shift_remove("pattern");
        }
        // Their patterns may match the same names.
        if keywords.get("patternProperties").and_then(Value::as_object).is_some_and(|named| named.len() > 1) {
            keywords.shift_remove("patternProperties");
            keywords.shift_remove("additionalProperties");
        }
        if let Some(conditions) = conditions(keywords) {
            let all = keywords.entry("allOf").or_insert_with(|| json!([]));
            all.as_array_mut().into_iter().for_each(|all| all.push(conditions.clone()));
        }
    }
    // References may lead to anywhere in a schema, but not into values.
    match schema {
        Value::Object(keywords) => keywords.iter_mut().for_each(|(keyword, part)| match (keyword.as_str(), part) {
            (keyword, _) if OF_VALUES.contains(&keyword) => {}
            (keyword, Value::Object(named)) if OF_NAMED_SCHEMAS.contains(&keyword) => {
                named.values_mut().for_each(loosen);
            }
            (_, part) => loosen(part),
        }),
        Value::Array(parts) => parts.iter_mut().for_each(loosen),
        _ => {}
    }
}

/// `if` with its branches as alternatives that may both hold.
fn conditions(keywords: &mut Map<String, Value>) -> Option<Value> {
    let condition = keywords.shift_remove("if")?;
    let mut branch = |name: &str| keywords.shift_remove(name).unwrap_or(Value::Bool(true));
    Some(json!({ "anyOf": [{ "allOf": [condition, branch("then")] }, branch("else")] }))
}

fn is_irregular(pattern: &str) -> bool {
    regex_syntax::parse(pattern).is_err()
}

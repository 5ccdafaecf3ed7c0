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
    for_each_schema(schema, &mut loosen_keywords);
}

fn loosen_keywords(keywords: &mut Map<String, Value>) {
    // Their patterns may match the same names.
    if keywords.get("patternProperties").and_then(Value::as_object).is_some_and(|named| named.len() > 1) {
        keywords.shift_remove("patternProperties");
        keywords.shift_remove("additionalProperties");
    }
    // Counted by llguidance without the properties that the schema names.
    for keyword in ["minProperties", "maxProperties"] {
        keywords.shift_remove(keyword);
    }
    if let Some(conditions) = conditions(keywords) {
        let all = keywords.entry("allOf").or_insert_with(|| json!([]));
        all.as_array_mut().into_iter().for_each(|all| all.push(conditions.clone()));
    }
}

/// Changes a schema, then all within it.
pub fn for_each_schema(schema: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    if let Some(keywords) = schema.as_object_mut() {
        change(keywords);
    }
    // References may lead to anywhere in a schema, but not into values.
    match schema {
        Value::Object(keywords) => keywords.iter_mut().for_each(|(keyword, part)| match (keyword.as_str(), part) {
            (keyword, _) if OF_VALUES.contains(&keyword) => {}
            (keyword, Value::Object(named)) if OF_NAMED_SCHEMAS.contains(&keyword) => {
                named.values_mut().for_each(|part| for_each_schema(part, change));
            }
            (_, part) => for_each_schema(part, change),
        }),
        Value::Array(parts) => parts.iter_mut().for_each(|part| for_each_schema(part, change)),
        _ => {}
    }
}

/// `if` with its branches as alternatives that may both hold.
fn conditions(keywords: &mut Map<String, Value>) -> Option<Value> {
    let condition = keywords.shift_remove("if")?;
    let mut branch = |name: &str| keywords.shift_remove(name).unwrap_or(Value::Bool(true));
    Some(json!({ "anyOf": [{ "allOf": [condition, branch("then")] }, branch("else")] }))
}

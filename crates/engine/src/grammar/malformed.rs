//! Keywords of a schema whose values have no meaning, such as `"minLength": "3"`. Passed over, they would let anything
//! through.

use super::schema::{subschemas, OF_NAMED_SCHEMAS};
use serde_json::Value;

/// Keywords, what their value must be, and whether a value is.
type Rule = (&'static [&'static str], &'static str, fn(&Value) -> bool);

/// Keywords whose values are counts.
pub const COUNTS: [&str; 8] =
    ["maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties", "maxContains", "minContains"];

/// What schemas lie in the value of a keyword, [`subschemas`] knows.
const RULES: [Rule; 12] = [
    (&["$ref", "$id", "$schema", "$anchor", "$dynamicRef", "format", "pattern"], "a string", Value::is_string),
    (&COUNTS, "a whole number that is not negative", is_count),
    (&["maximum", "minimum"], "a number", Value::is_number),
    // They were booleans in draft 4.
    (&["exclusiveMaximum", "exclusiveMinimum"], "a number", |value| value.is_number() || value.is_boolean()),
    (&["multipleOf"], "a number greater than 0", |value| value.as_f64().is_some_and(|number| number > 0.0)),
    (&["uniqueItems"], "a boolean", Value::is_boolean),
    (&["required"], "a list of strings", is_strings),
    (&["enum"], "a list", Value::is_array),
    (&["type"], "the name of a type, or a list of names", is_type),
    (&["dependentRequired"], "lists of strings by name", |value| {
        value.as_object().is_some_and(|named| named.values().all(is_strings))
    }),
    (&OF_NAMED_SCHEMAS, "schemas by name", Value::is_object),
    (&["allOf", "anyOf", "oneOf"], "a list of schemas that is not empty", |value| {
        value.as_array().is_some_and(|schemas| !schemas.is_empty())
    }),
];

/// Characters of a value in a message.
const MAX_SHOWN: usize = 60;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// Whether a value counts something, be it written `3` or `3.0`.
pub fn is_count(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number >= 0.0 && number.fract() == 0.0)
}

fn is_strings(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}

fn is_type(value: &Value) -> bool {
    let is_name = |value: &Value| value.as_str().is_some_and(|name| TYPES.contains(&name));
    is_name(value) || value.as_array().is_some_and(|names| !names.is_empty() && names.iter().all(is_name))
}

/// What is wrong with the first such keyword, and its JSON pointer: a sentence without its end.
pub fn malformed(schema: &mut Value) -> Option<String> {
    part(schema, "")
}

fn part(schema: &mut Value, pointer: &str) -> Option<String> {
    let keywords = match schema {
        Value::Object(keywords) => keywords,
        Value::Bool(_) => return None,
        other => return Some(flaw(pointer, "a schema", other)),
    };
    let wrong = keywords.iter().find_map(|(keyword, value)| {
        let (_, expected, is_right) = RULES.iter().find(|(names, ..)| names.contains(&keyword.as_str()))?;
        (!is_right(value)).then(|| flaw(&format!("{pointer}/{keyword}"), expected, value))
    });
    // Names that another name requires stand among the schemas of `dependencies`.
    let mut schemas =
        subschemas(schema).into_iter().filter(|(step, part)| !(step.starts_with("/dependencies/") && is_strings(part)));
    wrong.or_else(|| schemas.find_map(|(step, schema)| part(schema, &format!("{pointer}{step}"))))
}

fn flaw(pointer: &str, expected: &str, value: &Value) -> String {
    let given: String = value.to_string().chars().take(MAX_SHOWN).collect();
    format!("at \"{pointer}\": expected {expected}, got {given}")
}

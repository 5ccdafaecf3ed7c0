//! How values of a schema are written, where the schema allows several ways: its own keyword `x-sglang` says.
//!
//! Law: a style narrows what a schema allows and never widens it; white space is the one exception, and is bounded.

use super::endless::unescaped;
use super::loosen::for_each_schema;
use super::MAX_TEXT_BYTES;
use serde::Deserialize;
use serde_json::{json, Map, Value};
use std::collections::BTreeMap;

/// The value of `x-sglang`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Style {
    whitespace: Whitespace,
    key_order: KeyOrder,
    /// How deep references may lie in each other.
    max_depth: Option<usize>,
}

/// Between the parts of a value.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Whitespace {
    /// None.
    #[default]
    Compact,
    /// Up to 20 characters.
    Any,
}

/// Of properties that the schema names; others follow them, where there is an order.
#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum KeyOrder {
    /// As the schema names them.
    #[default]
    Schema,
    /// Alphabetical.
    Sorted,
    /// In any order, which no grammar enforces: that none is missing or repeated is checked when the value is complete.
    Any,
}

/// References within references, at most.
const MAX_DEPTH: usize = 100;

/// Of all levels of references together. They copy parts of a text of at most [`MAX_TEXT_BYTES`], which may lie in each
/// other.
const MAX_LEVELS_BYTES: usize = 8 * MAX_TEXT_BYTES;

impl Style {
    /// Takes the style out of a schema. An error is a sentence without its end.
    pub fn taken_from(schema: &mut Value) -> Result<Self, String> {
        let Some(style) = schema.as_object_mut().and_then(|keywords| keywords.shift_remove("x-sglang")) else {
            return Ok(Style::default());
        };
        let style: Style = serde_json::from_value(style).map_err(|e| format!("at \"/x-sglang\": {e}"))?;
        match style.max_depth {
            Some(depth) if !(1..=MAX_DEPTH).contains(&depth) => {
                Err(format!("at \"/x-sglang/maxDepth\": expected 1 to {MAX_DEPTH}, got {depth}"))
            }
            _ => Ok(style),
        }
    }

    /// The schema of the values in this style. An error is a sentence without its end.
    pub fn apply(&self, schema: &mut Value) -> Result<(), String> {
        match self.key_order {
            KeyOrder::Schema => {}
            KeyOrder::Sorted => sort_properties(schema),
            KeyOrder::Any => for_each_schema(schema, &mut unordered),
        }
        if let Some(depth) = self.max_depth {
            *schema = unrolled(schema, depth)?;
        }
        Ok(())
    }

    /// The schema of the values in this style lets more through than the schema itself.
    pub fn is_loose(&self) -> bool {
        matches!(self.key_order, KeyOrder::Any)
    }

    /// For llguidance. `loose` takes `oneOf` as `anyOf` and passes over what is not supported.
    pub fn options(&self, loose: bool, unicode_escapes: bool) -> Value {
        // With `\u`, an additional key could spell the name of a property in other letters than its own.
        let escapes = if unicode_escapes { "nrbtf\\\"u" } else { "nrbtf\\\"" };
        let mut options = json!({ "coerce_one_of": loose, "lenient": loose, "json_allowed_escapes": escapes });
        match self.whitespace {
            Whitespace::Compact => options["whitespace_flexible"] = false.into(),
            Whitespace::Any => options["whitespace_pattern"] = "[ \\t\\n\\r]{0,20}".into(),
        }
        options
    }
}

/// Properties as patterns that match their names only: those have no order.
fn unordered(keywords: &mut Map<String, Value>) {
    let Some(Value::Object(properties)) = keywords.shift_remove("properties") else { return };
    let named = properties.into_iter().map(|(name, part)| (format!("^{}$", regex_syntax::escape(&name)), part));
    let named: Map<String, Value> = named.collect();
    // Others may match the same names.
    if keywords.shift_remove("patternProperties").is_some() {
        keywords.shift_remove("additionalProperties");
    }
    keywords.insert("patternProperties".into(), named.into());
    if let Some(Value::Array(required)) = keywords.shift_remove("required") {
        keywords.entry("minProperties").or_insert(required.len().into());
    }
}

fn sort_properties(schema: &mut Value) {
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.sort_keys();
    }
    match schema {
        Value::Object(keywords) => keywords.values_mut().for_each(sort_properties),
        Value::Array(items) => items.iter_mut().for_each(sort_properties),
        _ => {}
    }
}

/// The schema with a copy of what is referred to for each level of references; the last level refers to nothing.
fn unrolled(schema: &Value, depth: usize) -> Result<Value, String> {
    let mut numbers = Numbers::new();
    number_references(schema, schema, &mut numbers);
    let (mut parts, mut n_bytes) = (Vec::with_capacity(numbers.len()), 0);
    for (pointer, &number) in &numbers {
        let part = part_at(schema, pointer);
        n_bytes += depth * part.to_string().len();
        if n_bytes > MAX_LEVELS_BYTES {
            return Err(format!(
                "at \"/x-sglang/maxDepth\": {depth} levels of the parts that are referred to take more than \
                 {MAX_LEVELS_BYTES} bytes; choose a smaller depth"
            ));
        }
        parts.push((number, part));
    }
    let mut whole = schema.clone();
    refer_to_level(&mut whole, &numbers, Some(1));
    for level in 1..=depth {
        for (number, part) in &parts {
            let mut part = part.clone();
            refer_to_level(&mut part, &numbers, (level < depth).then_some(level + 1));
            whole["$defs"][level_name(*number, level)] = part;
        }
    }
    Ok(whole)
}

/// What lies at a pointer; of the whole schema, what is not a part for others to refer to.
fn part_at(schema: &Value, pointer: &str) -> Value {
    let mut part = schema.pointer(pointer).cloned().unwrap_or_default();
    if let (true, Some(keywords)) = (pointer.is_empty(), part.as_object_mut()) {
        keywords.shift_remove("$defs");
    }
    part
}

fn level_name(number: usize, level: usize) -> String {
    format!("x-sglang-{number}-{level}")
}

/// What is referred to, by pointer.
type Numbers = BTreeMap<String, usize>;

/// What a reference within the same schema points to.
fn local(reference: &Value) -> Option<String> {
    let pointer = reference.as_str()?.strip_prefix('#')?;
    (pointer.is_empty() || pointer.starts_with('/')).then(|| unescaped(pointer))
}

/// References that lead nowhere get no number: they are refused under the names that they have.
fn number_references(part: &Value, whole: &Value, numbers: &mut Numbers) {
    match part {
        Value::Object(keywords) => {
            let pointer = keywords.get("$ref").and_then(local).filter(|pointer| whole.pointer(pointer).is_some());
            if let Some(pointer) = pointer {
                let next = numbers.len();
                numbers.entry(pointer).or_insert(next);
            }
            keywords.values().for_each(|part| number_references(part, whole, numbers));
        }
        Value::Array(items) => items.iter().for_each(|part| number_references(part, whole, numbers)),
        _ => {}
    }
}

fn refer_to_level(part: &mut Value, numbers: &Numbers, level: Option<usize>) {
    let number = part.get("$ref").and_then(local).and_then(|pointer| numbers.get(&pointer));
    match (number, level) {
        (Some(_), None) => *part = Value::Bool(false),
        (Some(&number), Some(level)) => part["$ref"] = format!("#/$defs/{}", level_name(number, level)).into(),
        (None, _) => {}
    }
    match part {
        Value::Object(keywords) => keywords.values_mut().for_each(|part| refer_to_level(part, numbers, level)),
        Value::Array(items) => items.iter_mut().for_each(|part| refer_to_level(part, numbers, level)),
        _ => {}
    }
}

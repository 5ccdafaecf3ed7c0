//! How values of a schema are written, where the schema allows several ways: its own keyword `x-sglang` says.
//!
//! Law: a style narrows what a schema allows and never widens it; white space is the one exception, and is bounded.

use super::endless::unescaped;
use super::loosen::for_each_schema;
use serde::Deserialize;
use serde_json::{json, Map, Value};

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

    /// The schema of the values in this style.
    pub fn apply(&self, schema: &mut Value) {
        match self.key_order {
            KeyOrder::Schema => {}
            KeyOrder::Sorted => sort_properties(schema),
            KeyOrder::Any => for_each_schema(schema, &mut unordered),
        }
        if let Some(depth) = self.max_depth {
            *schema = unrolled(schema, depth);
        }
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
fn unrolled(schema: &Value, depth: usize) -> Value {
    let mut pointers = Vec::new();
    collect_references(schema, &mut pointers);
    // References that lead nowhere are refused under the names that they have.
    pointers.retain(|pointer| schema.pointer(pointer).is_some());
    let mut whole = schema.clone();
    refer_to_level(&mut whole, &pointers, Some(1));
    for level in 1..=depth {
        for (i, pointer) in pointers.iter().enumerate() {
            let Some(mut part) = schema.pointer(pointer).cloned() else { continue };
            if let (true, Some(keywords)) = (pointer.is_empty(), part.as_object_mut()) {
                keywords.shift_remove("$defs");
            }
            refer_to_level(&mut part, &pointers, (level < depth).then_some(level + 1));
            whole["$defs"][level_name(i, level)] = part;
        }
    }
    whole
}

fn level_name(i: usize, level: usize) -> String {
    format!("x-sglang-{i}-{level}")
}

/// What a reference within the same schema points to.
fn local(reference: &Value) -> Option<String> {
    let pointer = reference.as_str()?.strip_prefix('#')?;
    (pointer.is_empty() || pointer.starts_with('/')).then(|| unescaped(pointer))
}

fn collect_references(part: &Value, found: &mut Vec<String>) {
    match part {
        Value::Object(keywords) => {
            if let Some(pointer) = keywords.get("$ref").and_then(local).filter(|pointer| !found.contains(pointer)) {
                found.push(pointer);
            }
            keywords.values().for_each(|part| collect_references(part, found));
        }
        Value::Array(items) => items.iter().for_each(|part| collect_references(part, found)),
        _ => {}
    }
}

fn refer_to_level(part: &mut Value, pointers: &[String], level: Option<usize>) {
    let place = part.get("$ref").and_then(local).and_then(|pointer| pointers.iter().position(|p| *p == pointer));
    match (place, level) {
        (Some(_), None) => *part = Value::Bool(false),
        (Some(i), Some(level)) => part["$ref"] = format!("#/$defs/{}", level_name(i, level)).into(),
        (None, _) => {}
    }
    match part {
        Value::Object(keywords) => keywords.values_mut().for_each(|part| refer_to_level(part, pointers, level)),
        Value::Array(items) => items.iter_mut().for_each(|part| refer_to_level(part, pointers, level)),
        _ => {}
    }
}

//! JSON Schema as grammars. Objects are written without white space, their keys in the order of the schema, unless the
//! schema's own [`style`](super::style) says otherwise.
//!
//! Law: a schema is honoured in full or refused with the JSON pointer of the part that cannot be; annotations, among
//! them formats that the specification does not name, are no constraints (JSON Schema 2020-12, "Validation", 7).

use super::checked::Check;
use super::exact::{make_exact, needs_unicode_escapes};
use super::loosen::{for_each_schema, loosen};
use super::malformed::{is_count, malformed, COUNTS};
use super::parsing::{Parser, Parsers};
use super::style::Style;
use super::Compiled;
use serde_json::{json, Map, Value};
use std::sync::Arc;

const PARAM: &str = "sampling_params.json_schema";

const UNCHECKED: &str = "would have to be checked in the complete value, and values between tags are not";

/// Schemas that are tried one by one to find out which part is refused.
const MAX_TRIES: usize = 100;

/// Formats of the specification (2020-12, "Validation", 7.3), which are taken as constraints.
pub const FORMATS: [&str; 19] = [
    "date-time",
    "date",
    "time",
    "duration",
    "email",
    "idn-email",
    "hostname",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "uri",
    "uri-reference",
    "iri",
    "iri-reference",
    "uuid",
    "uri-template",
    "json-pointer",
    "relative-json-pointer",
    "regex",
];

/// Keywords whose value is a schema, or a list of schemas.
const OF_SCHEMAS: [&str; 16] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords whose value holds schemas by name.
pub const OF_NAMED_SCHEMAS: [&str; 6] =
    ["$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"];

/// A schema given as JSON text. An error is a sentence without its end.
pub fn compile(text: &str, parsers: &Parsers) -> Result<Compiled, String> {
    let (schema, style) = read(text)?;
    let (schema, enforced) = exact(schema, &style)?;
    let parser = match parsers.json_schema(PARAM, schema) {
        Ok(parser) if enforced => return Ok(Compiled::Parser(Arc::new(parser))),
        strict => strict,
    };
    // Once more from the text: of most schemas no copy is needed.
    let (schema, style) = read(text)?;
    let parser = parser.or_else(|_| looser(&schema, &style, parsers))?;
    let check = Check::new(&schema, parsers.vocabulary(), PARAM)?;
    Ok(Compiled::Checked(Arc::new(parser), Arc::new(check)))
}

/// A schema for a part of a grammar, with llguidance's options. All of it is enforced: no complete value is checked.
pub fn enforced(schema: &Value) -> Result<Value, String> {
    let (schema, style) = taken_apart(schema.clone())?;
    match exact(schema.clone(), &style)? {
        (exact, true) => Ok(exact),
        _ if style.is_loose() => Err(format!("at \"/x-sglang/keyOrder\": any order {UNCHECKED}")),
        _ => {
            let at = smallest_part(&schema, |_, part| !enforces_all(&mut part.clone()));
            Err(format!("at \"{at}\": this {UNCHECKED}"))
        }
    }
}

/// Why such a part of a grammar is refused, if it is.
pub fn refusal(schema: &Value, parsers: &Parsers) -> Option<String> {
    let (mut schema, style) = taken_apart(schema.clone()).ok()?;
    let (exact, _) = exact(schema.clone(), &style).ok()?;
    parsers.json_schema(PARAM, exact).err()?;
    Some(looser(&schema, &style, parsers).err().unwrap_or_else(|| {
        enforces_all(&mut schema);
        format!("at \"{}\": this {UNCHECKED}", refused_part(&schema, false, parsers))
    }))
}

/// A schema in words that llguidance reads as they are meant, with its options, and whether that enforces all of it.
fn exact(mut schema: Value, style: &Style) -> Result<(Value, bool), String> {
    style.apply(&mut schema)?;
    let options = style.options(false, needs_unicode_escapes(&schema));
    let enforced = enforces_all(&mut schema) && !style.is_loose();
    schema["x-guidance"] = options;
    Ok((schema, enforced))
}

/// Makes a schema exact. Whether a grammar of it lets nothing else through.
fn enforces_all(schema: &mut Value) -> bool {
    let escapes = needs_unicode_escapes(schema);
    make_exact(schema) && !escapes && !counts_keys(schema)
}

fn read(text: &str) -> Result<(Value, Style), String> {
    taken_apart(serde_json::from_str(text).map_err(|e| format!("not JSON: {e}"))?)
}

/// A schema without what constrains nothing, its counts in digits, and its style.
fn taken_apart(schema: Value) -> Result<(Value, Style), String> {
    let mut schema = match schema {
        schema @ Value::Object(_) => schema,
        Value::Bool(true) => json!({}),
        other => return Err(format!("expected a schema that allows some value, got {other}")),
    };
    if let Some(flaw) = malformed(&mut schema) {
        return Err(flaw);
    }
    for_each_schema(&mut schema, &mut drop_annotations);
    for_each_schema(&mut schema, &mut write_counts_in_digits);
    let style = Style::taken_from(&mut schema)?;
    Ok((schema, style))
}

fn looser(schema: &Value, style: &Style, parsers: &Parsers) -> Result<Parser, String> {
    let mut plain = schema.clone();
    loosen(&mut plain);
    let mut styled = plain.clone();
    style.apply(&mut styled)?;
    make_exact(&mut styled);
    parser(styled, style.options(true, needs_unicode_escapes(schema)), parsers).map_err(|reason| {
        // A style has parts of its own, many for a large depth.
        make_exact(&mut plain);
        let at = refused_part(&plain, true, parsers);
        format!("at \"{at}\": {}", reworded(&reason))
    })
}

/// Whether keys that are repeated could pass for several.
fn counts_keys(schema: &mut Value) -> bool {
    schema.get("minProperties").and_then(Value::as_u64).is_some_and(|least| least > 1)
        || subschemas(schema).into_iter().any(|(_, part)| counts_keys(part))
}

/// A reason in one line, in terms of the request.
fn reworded(reason: &str) -> String {
    // It names a level of a reference by a word of our own; the place is known.
    let lines = reason.lines().map(str::trim).filter(|line| !line.starts_with("while processing "));
    let line = lines.collect::<Vec<_>>().join(" ");
    line.replace("Unimplemented keys", "keywords that are not supported")
}

fn parser(mut schema: Value, options: Value, parsers: &Parsers) -> Result<Parser, String> {
    schema["x-guidance"] = options;
    parsers.json_schema(PARAM, schema)
}

/// Removes what constrains nothing, and would be refused.
fn drop_annotations(keywords: &mut Map<String, Value>) {
    let is_annotation = |format: &Value| format.as_str().is_some_and(|name| !FORMATS.contains(&name));
    if keywords.get("format").is_some_and(is_annotation) {
        keywords.shift_remove("format");
    }
    if keywords.get("uniqueItems") == Some(&Value::Bool(false)) {
        keywords.shift_remove("uniqueItems");
    }
}

/// `3.0` is a count as `3` is, and other readers of the schema take it for none.
fn write_counts_in_digits(keywords: &mut Map<String, Value>) {
    for (_, count) in keywords.iter_mut().filter(|(keyword, _)| COUNTS.contains(&keyword.as_str())) {
        if let Some(number) = count.as_f64().filter(|_| count.is_f64() && is_count(count)) {
            *count = (number as u64).into();
        }
    }
}

/// Of the smallest part that llguidance refuses when it stands alone.
fn refused_part(schema: &Value, loose: bool, parsers: &Parsers) -> String {
    let mut tries = 0;
    smallest_part(schema, |pointer, _| {
        tries += 1;
        tries <= MAX_TRIES && parser(alone(schema, pointer), Style::default().options(loose, true), parsers).is_err()
    })
}

/// The JSON pointer of the smallest part with a flaw that all parts around it share; empty for the whole schema.
fn smallest_part(schema: &Value, mut is_flawed: impl FnMut(&str, &Value) -> bool) -> String {
    let (mut part, mut pointer) = (schema.clone(), String::new());
    loop {
        let found = subschemas(&mut part).into_iter().find_map(|(step, part)| {
            let deeper = format!("{pointer}{step}");
            is_flawed(&deeper, part).then(|| (part.take(), deeper))
        });
        match found {
            Some(found) => (part, pointer) = found,
            None => return pointer,
        }
    }
}

/// A schema that is one part of another, in which references keep their meaning.
fn alone(schema: &Value, pointer: &str) -> Value {
    let mut whole = schema.clone();
    let id = whole["$id"].as_str().unwrap_or("urn:sglang:schema").to_owned();
    whole["$id"] = id.as_str().into();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/~-._".contains(&byte);
    let fragment = pointer.bytes().map(|byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    });
    json!({ "$ref": format!("{id}#{}", fragment.collect::<String>()), "$defs": { "whole": whole } })
}

/// The schemas directly within one, with the JSON pointers that lead to them.
pub fn subschemas(schema: &mut Value) -> Vec<(String, &mut Value)> {
    let mut found = Vec::new();
    for (keyword, value) in schema.as_object_mut().into_iter().flatten() {
        let step = |key: &str| format!("/{keyword}/{}", key.replace('~', "~0").replace('/', "~1"));
        let (of_schemas, of_named) =
            (OF_SCHEMAS.contains(&keyword.as_str()), OF_NAMED_SCHEMAS.contains(&keyword.as_str()));
        match value {
            part if of_schemas && !part.is_array() => found.push((format!("/{keyword}"), part)),
            Value::Array(parts) if of_schemas => {
                found.extend(parts.iter_mut().enumerate().map(|(i, part)| (step(&i.to_string()), part)));
            }
            Value::Object(parts) if of_named => found.extend(parts.iter_mut().map(|(name, part)| (step(name), part))),
            _ => {}
        }
    }
    found
}

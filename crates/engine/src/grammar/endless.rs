//! Schemas of which no validation would end: they refer to themselves for the same value, or to others in too many
//! ways.

use super::schema::subschemas;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// Keywords whose schemas are about the value itself, not about its parts.
const OF_SAME_VALUE: [&str; 9] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"];

/// Schemas that one may hold a value to; validation of so many takes some tenths of a second.
const MAX_HELD_TO: usize = 100_000;

/// What is wrong with a schema that depends on itself or on what only its `$id` or `$anchor` tells, or has too many
/// ways to others, and its JSON pointer: a sentence without its end.
pub fn endless(schema: &Value) -> Option<String> {
    let mut parts = BTreeMap::new();
    collect(&mut schema.clone(), String::new(), &mut parts);
    let mut counts = Counts { parts: &parts, known: HashMap::new() };
    parts.keys().find_map(|pointer| match counts.held_to(pointer) {
        None => Some(format!(
            "at \"{pointer}\": a schema that refers to itself for the same value, or to another by its name, cannot be \
             checked"
        )),
        Some(n) if n > MAX_HELD_TO => Some(format!(
            "at \"{pointer}\": a schema that holds a value to more than {MAX_HELD_TO} others, each as often as it is \
             referred to, cannot be checked"
        )),
        Some(_) => None,
    })
}

/// The pointers of what a schema asks of the same value, by the schema's own pointer.
fn collect(schema: &mut Value, pointer: String, parts: &mut BTreeMap<String, Vec<String>>) {
    let reference = schema.get("$ref").and_then(Value::as_str).map(|reference| match reference.strip_prefix('#') {
        Some(local) => unescaped(local),
        None => reference.to_owned(),
    });
    let mut same: Vec<String> = reference.into_iter().collect();
    for (step, part) in subschemas(schema) {
        let inner = format!("{pointer}{step}");
        if OF_SAME_VALUE.iter().any(|keyword| step[1..].split('/').next() == Some(keyword)) {
            same.push(inner.clone());
        }
        collect(part, inner, parts);
    }
    parts.insert(pointer, same);
}

/// A fragment of a URI as the pointer that it is.
pub fn unescaped(fragment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = fragment.as_bytes();
    while let [byte, after @ ..] = rest {
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let (byte, after) = match code.filter(|_| *byte == b'%') {
            Some(code) => (code, &after[2..]),
            None => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Counts<'a> {
    parts: &'a BTreeMap<String, Vec<String>>,
    known: HashMap<&'a str, Option<usize>>,
}

impl<'a> Counts<'a> {
    /// How many schemas one holds a value to, itself included, each once for every way that leads to it. `None` where
    /// there is no end of them.
    fn held_to(&mut self, pointer: &'a str) -> Option<usize> {
        // What lies elsewhere may lead anywhere.
        let same = self.parts.get(pointer)?;
        if let Some(known) = self.known.get(pointer) {
            return *known;
        }
        // A way that comes back here has no end.
        self.known.insert(pointer, None);
        let count = same.iter().try_fold(1_usize, |count, next| Some(count.saturating_add(self.held_to(next)?)));
        self.known.insert(pointer, count);
        count
    }
}

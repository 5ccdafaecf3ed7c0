//! Schemas that refer to themselves for the same value: no validation of them would end.

use super::schema::subschemas;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};

/// Keywords whose schemas are about the value itself, not about its parts.
const OF_SAME_VALUE: [&str; 9] =
    ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies"];

/// The JSON pointer of a schema that depends on itself, or on what only its `$id` or `$anchor` tells.
pub fn endless(schema: &Value) -> Option<String> {
    let mut parts = BTreeMap::new();
    collect(&mut schema.clone(), String::new(), &mut parts);
    let mut search = Search { parts: &parts, done: HashSet::new(), path: HashSet::new() };
    parts.keys().find(|pointer| search.returns_to_itself(pointer)).cloned()
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

struct Search<'a> {
    parts: &'a BTreeMap<String, Vec<String>>,
    done: HashSet<&'a str>,
    path: HashSet<&'a str>,
}

impl<'a> Search<'a> {
    fn returns_to_itself(&mut self, pointer: &'a str) -> bool {
        // What lies elsewhere may lead anywhere.
        let Some(same) = self.parts.get(pointer) else { return true };
        if self.path.contains(pointer) {
            return true;
        }
        if !self.done.insert(pointer) {
            return false;
        }
        self.path.insert(pointer);
        let found = same.iter().any(|next| self.returns_to_itself(next));
        self.path.remove(pointer);
        found
    }
}

//! Parts of JSON texts as they are written, among them keys that an object repeats: readers keep the last of them only.

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt::{self, Formatter};

/// Byte at which the part of a text begins to which a JSON pointer leads.
pub fn place(text: &str, pointer: &str) -> Option<usize> {
    let mut part = text;
    for step in pointer.split('/').skip(1) {
        let name = step.replace("~1", "/").replace("~0", "~");
        part = parts(part)?.into_iter().rev().find(|(key, _)| *key == name)?.1;
    }
    Some(part.as_ptr() as usize - text.as_ptr() as usize)
}

/// Whether an object of a text, at whatever depth, has a key twice.
pub fn repeats_key(text: &str) -> bool {
    let parts = parts(text).unwrap_or_default();
    let mut keys = HashSet::new();
    !parts.iter().all(|(key, _)| keys.insert(key)) || parts.iter().any(|(_, part)| repeats_key(part))
}

/// The values of an object by key, or of a list by place; `None` where the text is neither.
fn parts(text: &str) -> Option<Vec<(String, &str)>> {
    if text.trim_start().starts_with('[') {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        return Some(items.into_iter().enumerate().map(|(i, item)| (i.to_string(), item.get())).collect());
    }
    let Entries(entries) = serde_json::from_str(text).ok()?;
    Some(entries.into_iter().map(|(key, value)| (key, value.get())).collect())
}

/// Of an object, in order.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        text.deserialize_map(EntriesVisitor).map(Entries)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_where_they_are_written() {
        let text = r#"{"a":[1, {"b/c":"x"}],"d":{}}"#;
        let at = |pointer: &str| place(text, pointer).map(|at| &text[at..]);
        assert_eq!(at(""), Some(text));
        assert_eq!(at("/a/1/b~1c"), Some(r#""x"}],"d":{}}"#));
        assert_eq!(at("/d"), Some("{}}"));
        assert_eq!(at("/a/2"), None);
        assert!(!repeats_key(text));
        assert!(repeats_key(r#"[{"a":{"b":1,"\u0062":2}}]"#));
    }
}

//! Patterns and formats of a schema in words that llguidance reads as they are meant.
//!
//! Law: a value that satisfies the exact form satisfies the schema. Patterns follow the [`dialect`], so they mean the
//! same to every reader; formats follow the RFCs that the specification names, dates and leap seconds included.

use super::dialect;
use super::loosen::for_each_schema;
use serde_json::{json, Map, Value};
use std::sync::LazyLock;

/// Makes a schema and all within it exact. A pattern that cannot be is dropped, and the answer is `false`.
pub fn make_exact(schema: &mut Value) -> bool {
    let mut all = true;
    for_each_schema(schema, &mut |keywords| {
        all &= exact_pattern(keywords);
        all &= exact_names(keywords);
        exact_format(keywords);
    });
    all
}

/// Whether a text in a schema holds a character that JSON writes as `\u…` only.
pub fn needs_unicode_escapes(value: &Value) -> bool {
    let is_written_so = |c: char| c.is_control() && !"\u{8}\t\n\u{c}\r".contains(c);
    match value {
        Value::String(text) => text.contains(is_written_so),
        Value::Array(parts) => parts.iter().any(needs_unicode_escapes),
        Value::Object(parts) => {
            parts.iter().any(|(key, part)| key.contains(is_written_so) || needs_unicode_escapes(part))
        }
        _ => false,
    }
}

fn exact_pattern(keywords: &mut Map<String, Value>) -> bool {
    let Some(pattern) = keywords.get("pattern").and_then(Value::as_str) else { return true };
    match rewritten(pattern) {
        Some(exact) => keywords.insert("pattern".into(), exact.into()).is_some(),
        None => keywords.shift_remove("pattern").is_none(),
    }
}

/// Patterns for names: where one cannot be exact, none of them is known not to match.
fn exact_names(keywords: &mut Map<String, Value>) -> bool {
    let Some(Value::Object(named)) = keywords.get("patternProperties") else { return true };
    let mut exact = Map::new();
    for (pattern, part) in named {
        let is_new = rewritten(pattern).is_some_and(|pattern| exact.insert(pattern, part.clone()).is_none());
        if !is_new {
            keywords.shift_remove("patternProperties");
            keywords.shift_remove("additionalProperties");
            return false;
        }
    }
    keywords.insert("patternProperties".into(), exact.into());
    true
}

fn rewritten(pattern: &str) -> Option<String> {
    dialect::parse(pattern).ok().map(|tree| tree.to_string())
}

fn exact_format(keywords: &mut Map<String, Value>) {
    let Some(format) = keywords.get("format").and_then(Value::as_str) else { return };
    let Some((_, pattern, longest)) = EXACT.iter().find(|(name, ..)| *name == format) else { return };
    keywords.shift_remove("format");
    if let Some(longest) = longest {
        let given = keywords.get("maxLength").and_then(Value::as_u64);
        keywords.insert("maxLength".into(), given.map_or(*longest, |given| given.min(*longest)).into());
    }
    if !keywords.contains_key("pattern") {
        keywords.insert("pattern".into(), pattern.as_str().into());
        return;
    }
    let all = keywords.entry("allOf").or_insert_with(|| json!([]));
    all.as_array_mut().into_iter().for_each(|all| all.push(json!({ "pattern": pattern })));
}

/// Names of formats, their patterns, and their most characters.
static EXACT: LazyLock<[(&str, String, Option<u64>); 4]> = LazyLock::new(|| {
    let time = time();
    [
        ("date", format!("^(?:{DATE})$"), None),
        ("date-time", format!("^(?:{DATE})[tT](?:{time})$"), None),
        ("time", format!("^(?:{time})$"), None),
        ("hostname", format!(r"^(?:{LABEL})(?:\.(?:{LABEL}))*$"), Some(253)),
    ]
});

/// RFC 3339, 5.6 and appendix C.
const DATE: &str = "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)\
    |02-(?:0[1-9]|1[0-9]|2[0-8]))\
    |(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29";

/// RFC 3339, 5.6. A leap second is the last one of a day in UTC; offsets of whole and half hours are known.
fn time() -> String {
    const CLOCK: &str = "(?:[01][0-9]|2[0-3]):[0-5][0-9]";
    let mut leaps = vec!["23:59:60(?:\\.[0-9]+)?[zZ]".to_owned()];
    for hour in 0..24 {
        let (east, west) = ((23 + hour) % 24, 23 - hour);
        leaps.push(format!("(?:{east:02}:59:60(?:\\.[0-9]+)?\\+{hour:02}:00)"));
        leaps.push(format!("(?:{:02}:29:60(?:\\.[0-9]+)?\\+{hour:02}:30)", (east + 1) % 24));
        leaps.push(format!("(?:{west:02}:59:60(?:\\.[0-9]+)?-{hour:02}:00)"));
        leaps.push(format!("(?:{west:02}:29:60(?:\\.[0-9]+)?-{hour:02}:30)"));
    }
    format!("{CLOCK}:[0-5][0-9](?:\\.[0-9]+)?(?:[zZ]|[+-]{CLOCK})|{}", leaps.join("|"))
}

/// A label of at most 63 characters (RFC 1123, 2.1). Those that begin with `xn--` stand for others, and whether they
/// do is beyond a pattern: they are left out.
const LABEL: &str = "[a-wyzA-WYZ0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\
    |[xX](?:[a-mo-zA-MO-Z0-9]|(?:[a-mo-zA-MO-Z0-9-][a-zA-Z0-9-]{0,60}[a-zA-Z0-9]))?\
    |[xX][nN](?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,59}[a-zA-Z0-9])?|-[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,58}[a-zA-Z0-9])?)?";

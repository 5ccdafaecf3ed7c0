//! Constraints from anywhere: whatever the text, the answer is a grammar that keeps its law or an error; never a panic.
//! `PROPTEST_CASES=100000 cargo test --release -p sglang-engine --test grammar_fuzz` looks longer.

mod fixtures;

use fixtures::{text_mask, tokenizer};
use proptest::prelude::*;
use serde_json::{json, Value};
use sglang_engine::grammar::{endless, Constraint, Grammars};
use sglang_engine::text::Tokenizer;
use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| tokenizer("llama3"));

thread_local! {
    static GRAMMARS: RefCell<Grammars> = RefCell::new(Grammars::new(TOKENIZER.clone()));
}

/// Goes through allowed tokens as `choices` say, jumping now and then. The law: there is a token or an end, always.
fn stroll(constraint: &Constraint, choices: &[u16]) -> Option<Vec<u8>> {
    let mut grammar = GRAMMARS.with(|grammars| grammars.borrow_mut().start(constraint)).ok()?;
    let mut text = Vec::new();
    for &choice in choices {
        // A constraint may be too complex to go on, and a finished value may be wrong: errors, told as such.
        grammar.allowed().ok()?;
        let mask = text_mask(&mut *grammar, &TOKENIZER);
        let allowed: Vec<u32> =
            (0..TOKENIZER.vocab() as u32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
        let Some(&token) = allowed.get(usize::from(choice) % allowed.len().max(1)) else {
            assert!(grammar.is_accepting(), "{constraint:?}: a dead end after {:?}", String::from_utf8_lossy(&text));
            break;
        };
        grammar.accept(token);
        let jumped = if choice % 2 == 0 { grammar.jump(Some(token)) } else { None };
        let bytes = jumped.unwrap_or_else(|| vec![token]).into_iter().flat_map(|token| TOKENIZER.token_bytes(token));
        text.extend(bytes);
    }
    grammar.is_accepting().then_some(text)
}

/// Schemas that may well contradict themselves.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({})),
        Just(json!(false)),
        prop::sample::select(vec!["null", "boolean", "integer", "number", "string", "array", "object", "what"])
            .prop_map(|name| json!({ "type": name })),
        (any::<i8>(), any::<i8>()).prop_map(|(a, b)| json!({ "type": "integer", "minimum": a, "maximum": b })),
        (0..4u8, 0..4u8).prop_map(|(a, b)| json!({ "type": "string", "minLength": a, "maxLength": b })),
        "[ab(|)*+?^$\\[\\]\\\\]{0,8}".prop_map(|pattern| json!({ "type": "string", "pattern": pattern })),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(|values| json!({ "enum": values })),
        Just(json!({ "$ref": "#" })),
        Just(json!({ "$ref": "#/properties/a" })),
        Just(json!({ "type": "string", "format": "date" })),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..3);
        let keyword = prop::sample::select(vec!["allOf", "anyOf", "oneOf", "prefixItems", "not", "if", "items"]);
        prop_oneof![
            (keyword, list).prop_map(|(keyword, list)| json!({ keyword: list })),
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|(a, b, closed)| json!({
                "type": "object", "properties": { "a": a, "b": b }, "required": ["a"], "additionalProperties": !closed,
            })),
            (inner.clone(), 0..3u8, any::<bool>()).prop_map(|(items, n, unique)| json!({
                "type": "array", "items": items, "maxItems": n, "uniqueItems": unique,
            })),
            inner.prop_map(|branch| json!({ "if": branch, "then": { "type": "string" } })),
        ]
    })
}

/// As many cases as `PROPTEST_CASES` says, else few.
fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(32);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_text_is_a_pattern_or_an_error(
        pattern in "([a-c0é]|[()|*+?.^$\\\\]|\\[|\\]|\\{|\\}|[,dwsbpu1-3:<>=!-]){0,16}",
        choices in prop::collection::vec(any::<u16>(), 12),
    ) {
        if let Some(text) = stroll(&Constraint::Regex(pattern.clone()), &choices) {
            prop_assert!(std::str::from_utf8(&text).is_ok(), "{:?}", pattern);
        }
    }

    #[test]
    fn any_schema_is_a_grammar_or_an_error(schema in schema(), choices in prop::collection::vec(any::<u16>(), 24)) {
        if let Some(text) = stroll(&Constraint::JsonSchema(schema.to_string()), &choices) {
            let value: Value = match serde_json::from_slice(&text) {
                Ok(value) => value,
                // JSON allows numbers that are larger than any float.
                Err(e) => {
                    prop_assert!(e.to_string().contains("number out of range"), "{}", e);
                    return Ok(());
                }
            };
            if endless(&schema).is_some() {
                return Ok(()); // The validator would not end.
            }
            let right = jsonschema::options().should_validate_formats(true).build(&schema).map(|v| v.is_valid(&value));
            prop_assert!(right.unwrap_or(true), "{}: {}", schema, value);
        }
    }

    #[test]
    fn any_text_is_a_grammar_or_an_error(
        rules in "(root|a|b| ::= |\"[ab]{0,2}\"|\\[[ab]-?c?\\]|[()|*+?\n ]|\\{2\\}){0,12}",
        choices in prop::collection::vec(any::<u16>(), 12),
    ) {
        stroll(&Constraint::Ebnf(format!("root ::= {rules}")), &choices);
        stroll(&Constraint::Lark(rules), &choices);
    }

    #[test]
    fn any_json_is_tags_or_an_error(begin in "<?[a-c]{0,2}", trigger in "<?a?", choices in prop::collection::vec(any::<u16>(), 12)) {
        let tags = json!({ "structures": [{ "begin": begin, "schema": { "type": "null" }, "end": "" }], "triggers": [trigger] });
        stroll(&Constraint::StructuralTag(tags.to_string()), &choices);
    }
}

//! JSON Schema and EBNF: which texts they allow, token by token, and what they refuse.

mod fixtures;

use fixtures::{default_model, fixture, text_mask as mask};
use serde::de::IgnoredAny;
use sglang_engine::grammar::{Constraint, Grammar, Grammars};
use sglang_engine::model::config::ModelConfig;
use sglang_engine::text::Tokenizer;
use sglang_engine::weights;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

fn load(path: &Path) -> Arc<Tokenizer> {
    let files = weights::open(path).unwrap();
    Arc::new(Tokenizer::of(&files, &ModelConfig::of(&files).unwrap()).unwrap())
}

static LLAMA3: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| load(&fixture("llama3")));
static DEFAULT: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| load(&default_model()));

/// The part of a text that the masks let through, and whether it is complete.
fn walk(mut grammar: Box<dyn Grammar>, tokenizer: &Tokenizer, tokens: &[u32]) -> (String, bool) {
    for (i, &token) in tokens.iter().enumerate() {
        let is_set = |mask: Vec<u32>| mask[token as usize / 32] >> (token % 32) & 1 == 1;
        let allowed = grammar.allowed().is_ok() && is_set(mask(&mut *grammar, tokenizer));
        if !allowed {
            return (tokenizer.decode(&tokens[..i], false), false);
        }
        grammar.accept(token);
    }
    (tokenizer.decode(tokens, false), grammar.is_accepting())
}

fn single_bytes(text: &str) -> Vec<u32> {
    let token = |byte| (0..LLAMA3.vocab() as u32).find(|&token| LLAMA3.token_bytes(token) == [byte]).unwrap();
    text.bytes().map(token).collect()
}

/// Walks both a text's own tokens and its single bytes.
fn check(constraint: &Constraint, text: &str, expected: bool) {
    let walks = [(&*DEFAULT, DEFAULT.encode(text, false).unwrap()), (&*LLAMA3, single_bytes(text))];
    for (tokenizer, tokens) in walks {
        let grammar =
            Grammars::new(tokenizer.clone()).start(constraint).unwrap_or_else(|e| panic!("{constraint:?}: {e}"));
        let (passed, complete) = walk(grammar, tokenizer, &tokens);
        assert_eq!(complete, expected, "{constraint:?}: of {text:?} passed {passed:?}");
    }
}

/// Schema, instances that satisfy it, instances that do not.
const SCHEMAS: &[(&str, &[&str], &[&str])] = &[
    (
        r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":["name","age"],"additionalProperties":false}"#,
        &[r#"{"name":"Bob","age":7}"#, r#"{"name":"日本 🙂 \"x\"","age":-12}"#],
        &[
            r#"{"name":"Bob"}"#,
            r#"{"name":"Bob","age":"7"}"#,
            r#"{"name":"Bob","age":7,"x":1}"#,
            r#"{"name":"Bob","age":7.5}"#,
            r#"{"name": "Bob","age":7}"#,
            "[]",
        ],
    ),
    (r#"{"enum":["red","green",3,null]}"#, &[r#""red""#, "3", "null"], &[r#""blue""#, "4", "red"]),
    (r#"{"const":{"a":[1,true]}}"#, &[r#"{"a":[1,true]}"#], &[r#"{"a":[1,false]}"#]),
    (
        r#"{"type":"array","items":{"type":"number","minimum":0,"maximum":10},"minItems":1,"maxItems":3}"#,
        &["[1]", "[0,2.5,10]"],
        &["[]", "[11]", "[-1]", "[1,2,3,4]"],
    ),
    (r#"{"type":"string","pattern":"^\\d{3}-\\w+$"}"#, &[r#""123-ab_9""#], &[r#""12-ab""#, r#""123-é""#, r#""123-""#]),
    (r#"{"type":"string","pattern":"a\\/b"}"#, &[r#""a/b""#, r#""xxa/byy""#], &[r#""ab""#]),
    (r#"{"type":"string","minLength":2,"maxLength":3}"#, &[r#""ab""#, r#""日本語""#], &[r#""a""#, r#""abcd""#]),
    (r#"{"type":"string","pattern":"^.\\s\\S$"}"#, &[r#""é a""#], &[r#""\r a""#, "\"\u{2028} a\"", "\"a \u{feff}\""]),
    (
        r#"{"type":"string","format":"date"}"#,
        &[r#""2024-02-29""#, r#""2000-02-29""#, r#""2023-04-30""#],
        &[r#""2024-13-01""#, r#""2023-02-29""#, r#""2100-02-29""#, r#""2023-04-31""#, r#""today""#],
    ),
    (
        r#"{"type":"string","format":"time"}"#,
        &[r#""08:30:06Z""#, r#""23:59:60.5z""#, r#""15:59:60-08:00""#, r#""05:29:60+05:30""#],
        &[r#""08:30:06""#, r#""22:59:60Z""#, r#""23:59:60+01:00""#, r#""24:00:00Z""#],
    ),
    (
        r#"{"type":"string","format":"date-time","pattern":"^20"}"#,
        &[r#""2016-12-31T23:59:60Z""#, r#""2024-02-29t10:00:00.25+02:00""#],
        &[r#""1999-12-31T00:00:00Z""#, r#""2023-02-29T10:00:00Z""#, r#""2024-02-29""#],
    ),
    (
        r#"{"type":"string","format":"hostname","maxLength":20}"#,
        &[r#""a""#, r#""x""#, r#""xn""#, r#""xn-a.example""#, r#""n--a.X0-b""#],
        &[r#""xn--a""#, r#""a.XN--a""#, r#""-a""#, r#""a-.b""#, r#""a..b""#, "\"\"", r#""a.b.c.d.e.f.g.h.i.j.k""#],
    ),
    (r#"{"type":"string","format":"int32"}"#, &[r#""anything""#], &["1"]),
    (
        r##"{"$ref":"#/$defs/tree","$defs":{"tree":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/tree"},{"type":"null"}]}},"required":["v","next"],"additionalProperties":false}}}"##,
        &[r#"{"v":1,"next":null}"#, r#"{"v":1,"next":{"v":2,"next":null}}"#],
        &[r#"{"v":1,"next":{}}"#, r#"{"v":1}"#],
    ),
    (r#"{"oneOf":[{"type":"integer"},{"type":"boolean"}]}"#, &["12", "true"], &[r#""a""#, "null"]),
    (r#"{"allOf":[{"type":"integer","minimum":3},{"maximum":5}]}"#, &["3", "5"], &["2", "6"]),
    (r#"{"type":["string","null"]}"#, &[r#""a""#, "null"], &["1"]),
    (r#"{"type":"object","properties":{"a":{"type":"null"}}}"#, &[r#"{"a":null}"#, r#"{"b":1}"#], &[r#"{"\u0061":1}"#]),
    (r#"{"type":"object"}"#, &["{}", r#"{"a":[1,{"b":null}],"c":"d"}"#], &["[]", "1", r#"{"a"}"#]),
    ("{}", &["null", "-1.5e3", r#"[{"a":"b"}]"#], &["nul", "{", "01", "[1,]"]),
    ("true", &["{}", "[]"], &["x"]),
    (
        r#"{"type":"array","items":{"type":"integer"},"uniqueItems":false,"title":"t","default":[],"x-mine":1}"#,
        &["[1,1]"],
        &["1"],
    ),
    // A whole number may be written with a fraction.
    (
        r#"{"type":"string","format":"hostname","minLength":2.0,"maxLength":3.0}"#,
        &[r#""ab""#, r#""abc""#],
        &[r#""a""#, r#""abcd""#],
    ),
    (r#"{"type":"array","items":{"type":"null"},"maxItems":1e0}"#, &["[]", "[null]"], &["[null,null]"]),
    (
        r#"{"x-guidance":{"lenient":true,"whitespace_flexible":true},"type":"array","items":{"type":"integer"}}"#,
        &["[1,2]"],
        &["[1, 2]"],
    ),
];

#[test]
fn schemas_allow_their_instances_and_nothing_else() {
    for &(schema, valid, invalid) in SCHEMAS {
        let constraint = Constraint::JsonSchema(schema.into());
        valid.iter().for_each(|instance| check(&constraint, instance, true));
        invalid.iter().for_each(|instance| check(&constraint, instance, false));
    }
}

/// Schemas with keywords that no grammar enforces: the finished value is checked.
const CHECKED: &[(&str, &[&str], &[&str])] = &[
    (
        r#"{"type":"array","items":{"enum":[1,2,"a"]},"uniqueItems":true}"#,
        &["[]", r#"[2,"a",1]"#],
        &["[1,1]", r#"["a",2,"a"]"#, "[3]"],
    ),
    (r#"{"type":"integer","not":{"multipleOf":3}}"#, &["1", "31"], &["3", "30", "1.5"]),
    (
        r#"{"type":"array","contains":{"const":"x"},"minContains":2,"maxContains":3}"#,
        &[r#"["x",1,"x"]"#],
        &[r#"["x",1]"#, r#"["x","x","x","x"]"#],
    ),
    (
        r#"{"type":"object","properties":{"kind":{"enum":["a","b"]},"n":{"type":"integer"}},"required":["kind"],
            "if":{"properties":{"kind":{"const":"a"}}},"then":{"required":["n"]},"additionalProperties":false}"#,
        &[r#"{"kind":"b"}"#, r#"{"kind":"a","n":1}"#],
        &[r#"{"kind":"a"}"#],
    ),
    (r#"{"oneOf":[{"type":"integer"},{"type":"number","minimum":0}]}"#, &["-1", "0.5"], &["1", "-0.5"]),
    (r#"{"type":"string","pattern":"^(?=.*1)[a1]{2}$"}"#, &[r#""a1""#], &[r#""aa""#, r#""1""#]),
    (r#"{"type":"string","format":"regex"}"#, &[r#""a|b""#], &[r#""a(b""#, r#""(?P<a>b)""#, r#""(?i)a""#]),
    (r#"{"type":"array","uniqueItems":true}"#, &["[[1,2],[2,1]]"], &[r#"[{"a":1,"b":2},{"b":2,"a":1}]"#]),
    (r#"{"enum":["a\u0000b",1]}"#, &[r#""a\u0000b""#, "1"], &[r#""ab""#]),
    (
        r#"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"dependentRequired":{"a":["b"]}}"#,
        &["{}", r#"{"b":null}"#, r#"{"a":null,"b":null}"#],
        &[r#"{"a":null}"#],
    ),
    (r#"{"type":"object","minProperties":2}"#, &[r#"{"a":1,"b":1}"#], &[r#"{"a":1}"#, r#"{"a":1,"a":2}"#]),
    (
        r#"{"type":"object","properties":{"a":{"type":"null"},"b":{"type":"null"}},"minProperties":1}"#,
        &[r#"{"a":null}"#, r#"{"a":null,"b":null}"#, r#"{"c":1}"#],
        &["{}"],
    ),
    (
        r#"{"$schema":"http://json-schema.org/draft-04/schema#","type":"string","format":"iri"}"#,
        &[r#""a:b""#],
        &[r#""b""#],
    ),
    (r#"{"type":"object","propertyNames":{"maxLength":2}}"#, &[r#"{"ab":1}"#], &[r#"{"abc":1}"#]),
    // References lead to the schema, by whatever name, in each draft.
    (
        r##"{"$schema":"http://json-schema.org/draft-04/schema#","id":"#","properties":{"a":{"$ref":"#"}},
            "not":{"type":"number","minimum":5,"exclusiveMinimum":true}}"##,
        &["5", r#"{"a":{"a":5}}"#],
        &["6", r#"{"a":{"a":6}}"#],
    ),
    (
        r##"{"$schema":"http://json-schema.org/draft-07/schema#","$id":"https://example.com/a",
            "properties":{"a":{"$ref":"#"},"b":{"$ref":"#/definitions/b"}},"not":{"const":1},
            "definitions":{"b":{"type":"array","uniqueItems":true}}}"##,
        &[r#"{"a":{"a":2}}"#, r#"{"a":{"b":[1,2]}}"#],
        &["1", r#"{"a":{"a":1}}"#, r#"{"a":{"b":[1,1]}}"#],
    ),
    (
        r##"{"$schema":"https://json-schema.org/draft/2019-09/schema","$ref":"#/$defs/a","not":{"const":3},
            "$defs":{"a":{"type":"integer","multipleOf":3}}}"##,
        &["6"],
        &["3", "4"],
    ),
];

#[test]
fn what_no_grammar_enforces_is_checked_when_the_value_is_complete() {
    for &(schema, valid, invalid) in CHECKED {
        let constraint = Constraint::JsonSchema(schema.into());
        valid.iter().for_each(|instance| check(&constraint, instance, true));
        invalid.iter().for_each(|instance| check(&constraint, instance, false));
    }
}

#[test]
fn a_finished_value_that_breaks_its_schema_is_an_error_and_never_an_end() {
    let constraint = Constraint::JsonSchema(r#"{"type":"array","items":{"const":1},"uniqueItems":true}"#.into());
    let mut grammar = Grammars::new(LLAMA3.clone()).start(&constraint).unwrap();
    single_bytes("[1,1]").into_iter().for_each(|token| grammar.accept(token));
    assert!(!grammar.is_accepting());
    let error = grammar.allowed().unwrap_err().to_string();
    let expected =
        "the model ended a value that does not satisfy it: its part at \"\" breaks the schema at \"/uniqueItems\"";
    assert_eq!(error, format!("sampling_params.json_schema: {expected}"));
}

#[test]
fn a_schema_may_say_how_its_values_are_written() {
    let of = |style: &str, rest: &str| Constraint::JsonSchema(format!(r#"{{"x-sglang":{style},{rest}}}"#));
    let object = r#""type":"object","properties":{"b":{"type":"null"},"a":{"type":"integer"}},"required":["b","a"]"#;
    check(&of("{}", object), r#"{"b":null,"a":1}"#, true);
    check(&of("{}", object), r#"{"a":1,"b":null}"#, false);
    let sorted = of(r#"{"keyOrder":"sorted"}"#, object);
    check(&sorted, r#"{"a":1,"b":null}"#, true);
    check(&sorted, r#"{"b":null,"a":1}"#, false);
    let unordered = of(r#"{"keyOrder":"any"}"#, object);
    for text in [r#"{"a":1,"b":null}"#, r#"{"b":null,"a":1}"#, r#"{"a":1,"c":[],"b":null}"#] {
        check(&unordered, text, true);
    }
    for text in [r#"{"a":1}"#, r#"{"a":1,"a":2,"b":null}"#, r#"{"b":null,"a":null}"#, r#"{"b":null,"b":null}"#] {
        check(&unordered, text, false);
    }
    let any = of(r#"{"whitespace":"any"}"#, object);
    for text in [r#"{"b":null,"a":1}"#, "{\n  \"b\": null,\n  \"a\": 1\n}"] {
        check(&any, text, true);
    }
    check(&any, &format!("{{{}\"b\":null,\"a\":1}}", " ".repeat(21)), false);
    let list = r##""$ref":"#/$defs/list","$defs":{"list":{"type":"object","properties":{"next":{"$ref":"#/$defs/list"}},"additionalProperties":false}}"##;
    let nested = |depth: usize| r#"{"next":"#.repeat(depth) + "{}" + &"}".repeat(depth);
    check(&of("{}", list), &nested(5), true);
    check(&of(r#"{"maxDepth":3}"#, list), &nested(2), true);
    check(&of(r#"{"maxDepth":3}"#, list), &nested(3), false);
    let tree =
        r##""type":"object","properties":{"kids":{"type":"array","items":{"$ref":"#"}}},"additionalProperties":false"##;
    check(&of(r#"{"maxDepth":1}"#, tree), r#"{"kids":[{"kids":[]},{}]}"#, true);
    check(&of(r#"{"maxDepth":1}"#, tree), r#"{"kids":[{"kids":[{}]}]}"#, false);
    let spaced = list.replace("list", "a list").replace("#/$defs/a list", "#/$defs/a%20list");
    check(&of(r#"{"maxDepth":3}"#, &spaced), &nested(2), true);
    check(&of(r#"{"maxDepth":3}"#, &spaced), &nested(3), false);
    assert_eq!(
        refusal(&of(r#"{"maxDepth":3}"#, r##""properties":{"a":{"$ref":"#/$defs/x"}}"##)),
        r#"sampling_params.json_schema: at "/properties/a": Pointer '/$defs/x' does not exist"#
    );
    for (style, expected) in [
        (r#"{"whitespace":"some"}"#, "at \"/x-sglang\": unknown variant `some`, expected `compact` or `any`"),
        (r#"{"maxDepth":0}"#, "at \"/x-sglang/maxDepth\": expected 1 to 100, got 0"),
    ] {
        assert_eq!(refusal(&of(style, object)), format!("sampling_params.json_schema: {expected}"));
    }
}

#[test]
fn levels_of_references_have_a_limit_and_places_are_those_of_the_schema() {
    let deep = (0..50).fold(r#"{"type":"null"}"#.to_owned(), |part, _| {
        format!(r#"{{"type":"object","properties":{{"next":{part}}},"additionalProperties":false}}"#)
    });
    let references =
        (1..50).map(|n| format!(r##""r{n}":{{"$ref":"#/properties/deep{}"}}"##, "/properties/next".repeat(n)));
    let properties = references.collect::<Vec<_>>().join(",");
    let schema = |depth: usize| {
        let style = format!(r#""x-sglang":{{"maxDepth":{depth}}}"#);
        Constraint::JsonSchema(format!(r#"{{{style},"type":"object","properties":{{"deep":{deep},{properties}}}}}"#))
    };
    check(&schema(2), r#"{"deep":{"next":{}},"r48":{"next":{}}}"#, true);
    let expected =
        "at \"/x-sglang/maxDepth\": 30 levels of the parts that are referred to take more than 2097152 bytes; \
         choose a smaller depth";
    assert_eq!(refusal(&schema(30)), format!("sampling_params.json_schema: {expected}"));
    let part = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":3,"maximum":2}},"required":["n"]}"#;
    let schema = format!(r##"{{"x-sglang":{{"maxDepth":2}},"$ref":"#/$defs/a","$defs":{{"a":{part}}}}}"##);
    let expected = r#"at "/$defs/a/properties/n": Unsatisfiable schema: required property 'n' is unsatisfiable"#;
    assert_eq!(refusal(&Constraint::JsonSchema(schema)), format!("sampling_params.json_schema: {expected}"));
}

/// Text that is free until a tag begins.
const TAGS: &str = r#"{"structures":[
    {"begin":"<f=add>","schema":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]},"end":"</f>"},
    {"begin":"<f=now>","schema":{"type":"null"},"end":"</f>"}],"triggers":["<f="]}"#;

#[test]
fn tags_hold_json_and_text_around_them_is_free() {
    let constraint = Constraint::StructuralTag(TAGS.into());
    for text in ["", "Hello <b>!\n", "Sum: <f=add>{\"n\":3}</f>.", "<f=now>null</f><f=add>{\"n\":-1}</f>"] {
        check(&constraint, text, true);
    }
    for text in ["<f=", "<f=sub>", "a <f=add>{\"n\":1.5}</f>", "<f=now>1</f>", "<f=now>null"] {
        check(&constraint, text, false);
    }
    let refused = |text: &str| refusal(&Constraint::StructuralTag(text.into()));
    assert!(refused("[]").contains("expected {structures: [{begin, schema, end}], triggers: [text]} as JSON"));
    let message = "at \"/structures/0/begin\": \"x\" begins with none of the triggers";
    assert!(refused(r#"{"structures":[{"begin":"x","schema":true,"end":""}],"triggers":["y"]}"#).ends_with(message));
}

/// Tags with a name and the schema of their values.
fn tags(schemas: &[(&str, &str)], triggers: &[&str]) -> Constraint {
    let tag = |(name, schema): &(&str, &str)| format!(r#"{{"begin":"<{name}>","schema":{schema},"end":"</{name}>"}}"#);
    let structures = schemas.iter().map(tag).collect::<Vec<_>>().join(",");
    Constraint::StructuralTag(format!(r#"{{"structures":[{structures}],"triggers":{triggers:?}}}"#))
}

#[test]
fn of_triggers_that_begin_alike_the_shortest_counts() {
    for triggers in [["<fn", "<f"], ["<f", "<fn"]] {
        let constraint = tags(&[("fn", r#"{"type":"integer"}"#), ("foo", r#"{"type":"null"}"#)], &triggers);
        for text in ["<fn>1</fn>", "<foo>null</foo><fn>2</fn>", "<b>"] {
            check(&constraint, text, true);
        }
        for text in ["<f", "<fx", "<fnx", "<fn>null</fn>"] {
            check(&constraint, text, false);
        }
    }
    let message = refusal(&tags(&[("f", "true")], &["<f", "<g"]));
    let expected = r#"at "/triggers/1": no structure begins with "<g", so it could never be written"#;
    assert_eq!(message, format!("sampling_params.structural_tag: {expected}"));
}

#[test]
fn values_of_tags_keep_their_schemas_as_other_values_do() {
    for &(schema, valid, invalid) in SCHEMAS {
        let constraint = tags(&[("f", schema)], &["<f"]);
        valid.iter().for_each(|instance| check(&constraint, &format!("a <f>{instance}</f>"), true));
        invalid.iter().for_each(|instance| check(&constraint, &format!("a <f>{instance}</f>"), false));
    }
    let named = r#"{"type":"object","properties":{"k":{"type":"string"}},"additionalProperties":{"type":"integer"}}"#;
    check(&tags(&[("f", named)], &["<f"]), r#"<f>{"k":"x","\u006b":2}</f>"#, false);
    let spaced = r#"{"x-sglang":{"whitespace":"any","keyOrder":"sorted"},"type":"object","properties":{"b":{"type":"null"},"a":{"type":"null"}}}"#;
    check(&tags(&[("f", spaced)], &["<f"]), r#"<f>{ "a": null, "b": null }</f>"#, true);
    check(&tags(&[("f", spaced)], &["<f"]), r#"<f>{ "b": null, "a": null }</f>"#, false);
}

/// Schema of a tag, and what the error says after the place of the schema.
const REFUSED_IN_TAGS: &[(&str, &str)] = &[
    ("3", r#"": expected a schema that allows some value, got 3"#),
    (r#"{"items":{"minLength":-1}}"#, r#"/items/minLength": expected a whole number that is not negative, got -1"#),
    (
        r#"{"x-sglang":{"depth":1}}"#,
        r#"/x-sglang": unknown field `depth`, expected one of `whitespace`, `keyOrder`, `maxDepth`"#,
    ),
    (
        r#"{"type":"integer","minimum":3,"maximum":2}"#,
        r#"": Unsatisfiable schema: minimum (3) is greater than maximum (2)"#,
    ),
    (r#"{"items":{"type":"integer","not":{"const":1}}}"#, r#"/items": this UNCHECKED"#),
    (r#"{"items":{"oneOf":[{"type":"integer"},{"type":"number"}]}}"#, r#"/items": this UNCHECKED"#),
    (r#"{"items":{"type":"string","pattern":"(?=a)b"}}"#, r#"/items": this UNCHECKED"#),
    (r#"{"items":{"type":"object","minProperties":2}}"#, r#"/items": this UNCHECKED"#),
    (r#"{"x-sglang":{"keyOrder":"any"},"type":"object"}"#, r#"/x-sglang/keyOrder": any order UNCHECKED"#),
];

#[test]
fn what_would_be_checked_in_a_complete_value_is_refused_in_tags() {
    for (schema, expected) in REFUSED_IN_TAGS {
        let message = refusal(&tags(&[("e", "true"), ("f", schema)], &["<"]));
        let unchecked = "would have to be checked in the complete value, and values between tags are not";
        let expected = expected.replace("UNCHECKED", unchecked);
        assert_eq!(message, format!("sampling_params.structural_tag: at \"/structures/1/schema{expected}"), "{schema}");
    }
}

fn refusal(constraint: &Constraint) -> String {
    let refused = Grammars::new(LLAMA3.clone()).start(constraint);
    refused.err().unwrap_or_else(|| panic!("{constraint:?} is not refused")).to_string()
}

/// Schema, and what the error says after the name of the field.
const REFUSED_SCHEMAS: &[(&str, &str)] = &[
    ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
    ("3", "expected a schema that allows some value, got 3"),
    ("false", "expected a schema that allows some value, got false"),
    (r##"{"properties":{"a":{"$ref":"#/$defs/x"}}}"##, r#"at "/properties/a": Pointer '/$defs/x' does not exist"#),
    (
        r#"{"type":"integer","minimum":3,"maximum":2}"#,
        r#"at "": Unsatisfiable schema: minimum (3) is greater than maximum (2)"#,
    ),
    (
        r##"{"properties":{"a":{"$ref":"#x"}},"$defs":{"x":{"$anchor":"x","type":"null"}},"not":{"required":["b"]}}"##,
        "at \"/properties/a\": a schema that refers to itself for the same value, or to another by its name, cannot be \
         checked",
    ),
    (
        r#"{"not":{"const":1},"properties":{"a":{"$id":"sglang:///schema"}}}"#,
        r#"at "": a part of the schema bears the name of the whole"#,
    ),
    (r#"{"not":{"pattern":"(?<=a"}}"#, r#"at "/not/pattern": "(?<=a" is not a "regex""#),
    (
        r#"{"properties":{"a":{"$ref":"https://example.com/s"}}}"#,
        "at \"/properties/a\": Resource 'https://example.com/s' is not present in a registry and retrieving it failed: \
         Default retriever does not fetch resources",
    ),
];

#[test]
fn schemas_that_cannot_be_honoured_are_refused_with_their_place() {
    for (schema, expected) in REFUSED_SCHEMAS {
        let message = refusal(&Constraint::JsonSchema((*schema).into()));
        assert_eq!(message, format!("sampling_params.json_schema: {expected}"), "{schema}");
    }
}

#[test]
fn schemas_with_too_many_ways_to_check_a_value_are_refused() {
    let twice = |n: usize| {
        let level =
            |i| format!(r##""a{i}":{{"allOf":[{{"$ref":"#/$defs/a{0}"}},{{"$ref":"#/$defs/a{0}"}}]}},"##, i + 1);
        let levels: String = (0..n).map(level).collect();
        let schema = format!(r##""const":7,"not":{{"not":{{"$ref":"#/$defs/a0"}}}},"$defs":{{{levels}"a{n}":{{}}}}"##);
        Constraint::JsonSchema(format!("{{{schema}}}"))
    };
    check(&twice(8), "7", true);
    let reason =
        "a schema that holds a value to more than 100000 others, each as often as it is referred to, cannot be \
         checked";
    assert_eq!(refusal(&twice(45)), format!("sampling_params.json_schema: at \"\": {reason}"));
}

/// Of checks, and the one that compiles.
#[cfg(target_os = "linux")]
fn large_threads() -> usize {
    let names = std::fs::read_dir("/proc/self/task").unwrap();
    let names = names.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "sglang-grammar").count()
}

#[test]
fn a_check_that_takes_too_long_is_the_last_and_leaves_no_thread() {
    let items = r##"{"type":"array","items":{"$ref":"#/$defs/a"}}"##;
    let part = format!(r#"{{"not":{{"const":3}},"anyOf":[{{"type":"integer"}},{items},{items}]}}"#);
    let schema = format!(r##"{{"$ref":"#/$defs/a","$defs":{{"a":{part}}}}}"##);
    let nested = |n: i32, depth: usize| format!("{}{n}{}", "[".repeat(depth), "]".repeat(depth));
    let mut grammars = Grammars::new(LLAMA3.clone());
    let mut written = |text: &str| {
        let mut grammar = grammars.start(&Constraint::JsonSchema(schema.clone())).unwrap();
        single_bytes(text).into_iter().for_each(|token| grammar.accept(token));
        grammar
    };
    let begin = Instant::now();
    let mut endless = written(&nested(3, 40));
    let error = endless.allowed().unwrap_err().to_string();
    assert!(error.ends_with("it could not be checked within a second"), "{error}");
    assert_eq!(endless.take_back(), None);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(written(&nested(4, 40)).is_accepting());
    assert_eq!(written(&nested(3, 2)).take_back(), Some(0));
    #[cfg(target_os = "linux")]
    while large_threads() > 1 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} threads", large_threads());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Keywords, values that make no sense for them, what the error says.
const MALFORMED: &[(&[&str], &[&str], &str)] = &[
    (&["minLength", "maxItems", "minContains"], &["-1", "1.5", r#""1""#], "a whole number that is not negative"),
    (&["minimum", "exclusiveMaximum"], &[r#""1""#, "null"], "a number"),
    (&["multipleOf"], &["0", "-1", "true"], "a number greater than 0"),
    (&["uniqueItems"], &[r#""yes""#, "1"], "a boolean"),
    (&["pattern", "format", "$ref"], &["1", "{}"], "a string"),
    (&["required"], &["true", r#""a""#, "[1]"], "a list of strings"),
    (&["enum"], &[r#""a""#], "a list"),
    (&["type"], &[r#""int""#, "[]", r#"["null",1]"#], "the name of a type, or a list of names"),
    (&["allOf", "oneOf"], &["{}", "[]"], "a list of schemas that is not empty"),
    (&["properties", "$defs", "dependencies"], &["true", "[]"], "schemas by name"),
    (&["dependentRequired"], &["[]", r#"{"a":"b"}"#], "lists of strings by name"),
    (&["additionalProperties", "if", "items", "not"], &[r#""a""#, "1"], "a schema"),
];

#[test]
fn keywords_without_a_meaning_are_refused_with_their_place() {
    for (keyword, value, expected) in MALFORMED.iter().flat_map(|(keywords, values, expected)| {
        keywords.iter().flat_map(move |keyword| values.iter().map(move |value| (keyword, value, expected)))
    }) {
        for (before, place, after) in [("", "", ""), (r#""items":{"anyOf":[{"#, "/items/anyOf/0", "}]}")] {
            let schema = format!(r#"{{"uniqueItems":true,{before}"{keyword}":{value}{after}}}"#);
            let schema = schema.replace(r#"{"uniqueItems":true,"uniqueItems""#, r#"{"uniqueItems""#);
            let message = refusal(&Constraint::JsonSchema(schema));
            let reason = format!("at \"{place}/{keyword}\": expected {expected}, got {value}");
            assert_eq!(message, format!("sampling_params.json_schema: {reason}"));
        }
    }
}

/// Grammar, texts that it derives, texts that it does not.
const GRAMMARS: &[(&str, &[&str], &[&str])] = &[
    // The example of the original system.
    (
        "root ::= city | description\n\
         city ::= \"London\" | \"Paris\" | \"Berlin\" | \"Rome\"\n\
         description ::= city \" is \" status\n\
         status ::= \"the capital of \" country\n\
         country ::= \"England\" | \"France\" | \"Germany\" | \"Italy\"",
        &["London", "Paris is the capital of France"],
        &["Madrid", "Paris is", "London is the capital of Spain"],
    ),
    ("root ::= [a-z]* \"b\"", &["b", "aab", "bbb"], &["", "a"]),
    ("root ::= ([0-9]{2} \"-\"?){1,2} # dates\n", &["12", "12-34", "1234"], &["1", "123"]),
    ("root ::= item (\",\" item)*\nitem ::= \"\\\"\" [^\"\\n]* \"\\\"\" | .", &["\"ab\",c,日"], &["ab"]),
    // Recursion.
    (
        "root ::= expr\nexpr ::= term ([-+] term)*\nterm ::= number | \"(\" expr \")\"\nnumber ::= [0-9]+",
        &["1", "1+2-(3+45)", "((7))"],
        &["", "1+", "(1", "1)"],
    ),
    (
        "root   ::= object\n\
         value  ::= object | array | string | number | (\"true\" | \"false\" | \"null\") ws\n\
         object ::= \"{\" ws ( string \":\" ws value (\",\" ws string \":\" ws value)* )? \"}\" ws\n\
         array  ::= \"[\" ws ( value (\",\" ws value)* )? \"]\" ws\n\
         string ::= \"\\\"\" ( [^\"\\\\\\x7F\\x00-\\x1F] | \"\\\\\" ([\"\\\\bfnrt] | \"u\" [0-9a-fA-F]{4}) )* \"\\\"\" ws\n\
         number ::= (\"-\"? ([0-9] | [1-9] [0-9]{0,15})) (\".\" [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws\n\
         ws ::= | \" \" | \"\\n\" [ \\t]{0,20}",
        &["{}", "{\"a\": [1, -2.5e3, \"x\\n\\u00e9\"],\"b\":{ }}\n  "],
        &["[]", "{\"a\"}", "{\"a\":01}", "{a:1}"],
    ),
    ("root ::= \"a\" ws \"b\"\nws ::= ([ \\t] ws)?", &["ab", "a \t b"], &["a", "a b "]),
    ("root ::= left \"c\"\nleft ::= left \"ab\" | \"x\"", &["xc", "xababc"], &["c", "abc"]),
    ("root ::= p\np ::= \"\" | \"(\" p \")\" p", &["", "()", "(()())()"], &["(", ")("]),
    (
        "root ::= p [ ]* p? [;\\n]*\np ::= \"(\" p \")\" | \"/\" p \"\\n\" | [x/]",
        &["x", "x  ((x))", "//\n(/);\n;", "/x\n"],
        &["", " x", "(x"],
    ),
    // Lark.
    ("start: greeting \" \" NAME\ngreeting: \"hello\" | \"bye\"\nNAME: /[A-Z][a-z]+/", &["hello Bob"], &["hello bob", "hi Bob"]),
];

#[test]
fn grammars_derive_their_texts_and_nothing_else() {
    for &(grammar, derived, others) in GRAMMARS {
        let constraint = Constraint::Ebnf(grammar.into());
        derived.iter().for_each(|text| check(&constraint, text, true));
        others.iter().for_each(|text| check(&constraint, text, false));
    }
}

/// Grammar, and what the error says after the name of the field.
const REFUSED_GRAMMARS: &[(&str, &str)] = &[
    ("start ::= \"a\"", "at line 1, column 1: there is no rule `root`; the output is derived from it"),
    ("root ::= \"a\" b\n\nc ::= d", "at line 1, column 14: the rule `b` is not defined"),
    ("root ::= \"a\"\nroot ::= \"b\"", "at line 2, column 1: the rule `root` is defined twice"),
    ("root ::= \"a\n\"", "at line 1, column 10: this text has no `\"` at its end"),
    ("root ::= [a", "at line 1, column 10: this `[` has no `]`; write `\\[` for the character"),
    ("root ::= (\"a\"", "at line 1, column 10: this `(` has no `)`"),
    ("root ::= \"a\"\n  )", "at line 2, column 3: expected a rule, `name ::= …`"),
    ("root ::= \"a\" = b", "at line 1, column 14: expected a \"text\", a [class], a name, or a group in parentheses"),
    ("root ::= \"a\\d\"", "at line 1, column 12: a text holds characters; write a [class] for a set"),
    ("root ::= \"a\" | b\nb ::= \"c\" b", "at line 1, column 16: the rule `b` derives no text: it never ends"),
    ("root ::= \"a\"{100000000}", "too large: the automaton would take more than 8 MiB"),
    ("", "no start rule found"),
    ("start: \"a\" b", "at 1(8): unknown name: \"b\"\n   1 | start: \"a\" b\n              ^\n"),
];

#[test]
fn grammars_with_flaws_are_refused_with_their_place() {
    for (grammar, expected) in REFUSED_GRAMMARS {
        let message = refusal(&Constraint::Ebnf((*grammar).into()));
        assert_eq!(message, format!("sampling_params.ebnf: {expected}"), "{grammar}");
    }
}

#[test]
fn deep_and_large_constraints_end_no_process() {
    let chain = |n: usize| -> String {
        let rules: String = (1..n).map(|i| format!("r{i} ::= \"a\" r{}\n", i + 1)).collect();
        format!("root ::= r1\n{rules}r{n} ::= \"b\"")
    };
    let lark = |n: usize| chain(n).replace("root ::=", "start:").replace(" ::=", ":");
    let doubling: String = (1..60).map(|i| format!("r{i} ::= r{0} r{0}\n", i + 1)).collect();
    let groups = |n: usize| format!("root ::= {}\"a\"{}", "(".repeat(n), ")".repeat(n));
    let references: String = (0..4_000).map(|i| format!(r##""d{i}":{{"$ref":"#/$defs/d{}"}},"##, i + 1)).collect();
    let schema = format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{references}"d4000":{{"type":"null"}}}}}}"##);
    let ebnf = |text: String| Constraint::Ebnf(text);
    check(&ebnf(chain(50)), &("a".repeat(49) + "b"), true);
    check(&ebnf(chain(900)), &("a".repeat(899) + "b"), true);
    check(&ebnf(lark(10_000)), "ab", false);
    check(&ebnf(groups(60)), "a", true);
    check(&ebnf(format!("root ::= r1\n{doubling}r60 ::= \"a\"")), "b", false);
    check(&Constraint::JsonSchema(schema), "null", true);
    assert!(refusal(&ebnf(chain(2_000))).ends_with("the grammar has more than 1000 rules"));
    assert!(refusal(&ebnf(groups(100_000))).ends_with("groups lie more than 200 deep in each other"));
    let too_large = "sampling_params.ebnf: too large: 400011 bytes, at most 262144 are possible";
    assert_eq!(refusal(&ebnf(groups(200_000)[..400_011].into())), too_large);
}

fn constraints() -> impl Iterator<Item = (Constraint, &'static str)> {
    let schemas = SCHEMAS.iter().map(|(schema, valid, _)| (Constraint::JsonSchema((*schema).into()), valid[0]));
    let grammars = GRAMMARS.iter().map(|(grammar, derived, _)| (Constraint::Ebnf((*grammar).into()), derived[0]));
    schemas.chain(grammars)
}

#[test]
fn no_walk_meets_a_special_token_or_a_dead_end() {
    for (case, (constraint, _)) in constraints().enumerate() {
        for walk in 0..6 {
            let mut grammar = Grammars::new(LLAMA3.clone()).start(&constraint).unwrap();
            let mut text = Vec::new();
            for step in 0..40 {
                let mask = mask(&mut *grammar, &LLAMA3);
                let allowed: Vec<u32> =
                    (0..LLAMA3.vocab() as u32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect();
                assert!(!allowed.iter().any(|&t| LLAMA3.is_special(t) || LLAMA3.eos().contains(&t)), "{constraint:?}");
                if grammar.is_accepting() && matches!(constraint, Constraint::JsonSchema(_)) {
                    let value = serde_json::from_slice::<IgnoredAny>(&text);
                    assert!(value.is_ok(), "{constraint:?}: {:?}", String::from_utf8_lossy(&text));
                }
                let Some(&token) = allowed.get((case * 31 + walk * 17 + step * 7) % allowed.len().max(1)) else {
                    assert!(grammar.is_accepting(), "{constraint:?}: {:?}", String::from_utf8_lossy(&text));
                    break;
                };
                text.extend_from_slice(LLAMA3.token_bytes(token));
                grammar.accept(token);
            }
        }
    }
}

/// `cargo test --release -p sglang-engine --test grammar_schema -- --ignored --nocapture`
#[test]
#[ignore = "prints measurements"]
fn time_of_compilation_and_masks() {
    let mut grammars = Grammars::new(DEFAULT.clone());
    for (constraint, text) in constraints() {
        let begin = Instant::now();
        let mut grammar = grammars.start(&constraint).unwrap();
        let compile = begin.elapsed();
        let begin = Instant::now();
        let _again = grammars.start(&constraint).unwrap();
        let again = begin.elapsed();
        let mut times = Vec::new();
        for token in DEFAULT.encode(text, false).unwrap() {
            let begin = Instant::now();
            mask(&mut *grammar, &DEFAULT);
            times.push(begin.elapsed());
            grammar.accept(token);
        }
        println!("{compile:.1?} compile, {again:.1?} again, masks {times:.1?} {constraint:.60?}");
    }
}

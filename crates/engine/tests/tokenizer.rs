//! Tokenizers from files: reference token ids, agreement with the `tokenizers` library, and round trips.

mod fixtures;

use fixtures::{default_model, fixture, json, Scratch};
use proptest::prelude::*;
use sglang_engine::model::config::ModelConfig;
use sglang_engine::text::Tokenizer;
use sglang_engine::weights::{self, Description, Metadata, Value};
use std::sync::LazyLock;
use tokenizers::models::bpe::{Vocab, BPE};
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence};

fn load(name: &str) -> Tokenizer {
    let files = weights::open(&fixture(name)).unwrap();
    Tokenizer::of(&files, &ModelConfig::of(&files).unwrap()).unwrap()
}

fn smollm_metadata() -> Metadata {
    match weights::open(&default_model()).unwrap().description {
        Description::Gguf(metadata) => metadata,
        Description::Folder(_) => unreachable!("the default model is a GGUF file"),
    }
}

static SMOLLM: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_gguf(&smollm_metadata()).unwrap());
static LLAMA: LazyLock<Tokenizer> = LazyLock::new(|| load("llama"));
static LLAMA3: LazyLock<Tokenizer> = LazyLock::new(|| load("llama3"));
static GGUF: LazyLock<Tokenizer> = LazyLock::new(|| load("gguf/Q4_K.gguf"));

fn ids(value: &serde_json::Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Strings that tokenizers disagree about.
const TRICKY: [&str; 16] = [
    "",
    " ",
    "   leading and trailing   ",
    "tabs\tand\n\nnewlines \n  x \r\n",
    "12345 3.14159 1,000,000 ٣٤٥ ½ Ⅷ",
    "naïve café — 日本語 🙂 👩‍👩‍👧‍👦 é",
    "I'm you're WE'LL o'clock don’t",
    "<|im_start|>user\nhi<|im_end|>\n",
    "text<|im_end|><|endoftext|>text <|not_special|>",
    "<s>a</s> b <unk><0x0A>",
    "▁ is a character Ġ too",
    "def f(x):\n\treturn x**2  # ok",
    "\u{0}\u{7f}\u{a0}\u{ad}\u{200b}\u{feff}",
    "!!!???...,,,;;;",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "안녕하세요 Здравствуйте مرحبا",
];

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        ".{0,6}",
        "[ \n\t\r]{1,4}",
        "[0-9]{1,5}",
        "[a-zA-Z']{1,8}",
        Just("<|im_end|>".to_owned()),
        Just("</s>".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

#[test]
fn checkpoints_encode_and_decode_as_the_reference_does() {
    for name in ["llama", "llama3", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"] {
        let tokenizer = load(name);
        let reference = json(&format!("{name}/reference.json"));
        for case in reference["cases"].as_array().unwrap() {
            let prompt = case["prompt"].as_str().unwrap();
            assert_eq!(tokenizer.encode(prompt, true).unwrap(), ids(&case["input_ids"]), "{name}: {prompt:?}");
            assert_eq!(tokenizer.decode(&ids(&case["input_ids"]), true), prompt, "{name}");
        }
    }
}

#[test]
fn gguf_vocabularies_encode_as_the_reference_does() {
    let reference = json("gguf/reference.json");
    assert_eq!(GGUF.encode(reference["prompt"].as_str().unwrap(), true).unwrap(), ids(&reference["input_ids"]));
}

/// A folder with the SentencePiece model and more files.
fn with_sentencepiece(files: &[(&str, serde_json::Value)]) -> Scratch {
    let scratch = Scratch::new();
    std::fs::copy(fixture("sentencepiece/tokenizer.model"), scratch.0.join("tokenizer.model")).unwrap();
    for (name, content) in files {
        scratch.write(name, content.to_string());
    }
    scratch
}

/// What the sentencepiece library makes of the same model.
#[test]
fn sentencepiece_models_encode_as_their_library_does() {
    let tokenizer = Tokenizer::from_file(&fixture("sentencepiece/tokenizer.model")).unwrap();
    for case in json("sentencepiece/expected.json").as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids"]), "{text:?}");
        assert_eq!(tokenizer.decode(&ids(&case["ids"]), false), case["decoded"].as_str().unwrap());
    }
    assert_eq!(tokenizer.encode("", true).unwrap(), [1]);
}

#[test]
fn folders_add_tokens_to_a_sentencepiece_model() {
    let added = serde_json::json!({ "<image>": 600 });
    let config = serde_json::json!({ "add_bos_token": false, "added_tokens_decoder": {
        "602": { "content": "<pad>", "special": false }, "2": { "content": "</s>", "special": true } } });
    let scratch = with_sentencepiece(&[("added_tokens.json", added), ("tokenizer_config.json", config)]);
    let tokenizer = Tokenizer::from_file(&scratch.0.join("tokenizer.model")).unwrap();
    assert_eq!(tokenizer.encode("<image></s><pad>", true).unwrap(), [600, 2, 602]);
    assert_eq!((tokenizer.is_special(600), tokenizer.is_special(602)), (true, false));
    let far = with_sentencepiece(&[("added_tokens.json", serde_json::json!({ "<far>": u32::MAX }))]);
    let error = Tokenizer::from_file(&far.0.join("tokenizer.model")).err().unwrap().to_string();
    assert!(error.ends_with("token 4294967295 (\"<far>\"), which its folder adds, is beyond 66136"), "{error}");
}

#[test]
fn default_model_encodes_and_decodes_as_the_reference_does() {
    let reference = json("smollm2-135m-q4_1.json");
    for case in reference["cases"].as_array().unwrap() {
        let prompt = case["prompt"].as_str().unwrap();
        assert_eq!(SMOLLM.encode(prompt, true).unwrap(), ids(&case["input_ids"]), "{prompt:?}");
        assert_eq!(SMOLLM.decode(&ids(&case["input_ids"]), false), prompt);
        assert_eq!(SMOLLM.decode(&ids(&case["greedy_ids"]), false), case["greedy_text"].as_str().unwrap());
    }
}

/// The default model's tokenizer put together from the parts its publisher uses: digits one by one, then the splits
/// built into the byte-level step.
fn published_smollm() -> tokenizers::Tokenizer {
    let metadata = smollm_metadata();
    let tokens = metadata.texts("tokenizer.ggml.tokens").unwrap().unwrap();
    let merges = metadata.texts("tokenizer.ggml.merges").unwrap().unwrap().iter();
    let merges = merges.map(|line| line.split_once(' ').unwrap()).map(|(l, r)| (l.to_owned(), r.to_owned()));
    let vocab: Vocab = tokens.iter().cloned().zip(0..).collect();
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::new(vocab, merges.collect()));
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![Digits::new(true).into(), bytes.into()])));
    tokenizer.with_decoder(Some(bytes));
    let special = tokens[..17].iter().map(|token| tokenizers::AddedToken::from(token.clone(), true));
    tokenizer.add_special_tokens(special).unwrap();
    tokenizer
}

static PUBLISHED: LazyLock<tokenizers::Tokenizer> = LazyLock::new(published_smollm);
static LLAMA_JSON: LazyLock<tokenizers::Tokenizer> =
    LazyLock::new(|| tokenizers::Tokenizer::from_file(fixture("llama/tokenizer.json")).unwrap());

fn check_against_library(ours: &Tokenizer, library: &tokenizers::Tokenizer, text: &str, add_special: bool) {
    let expected = library.encode(text, add_special).unwrap();
    let found = ours.encode(text, add_special).unwrap();
    assert_eq!(found, expected.get_ids(), "{text:?}");
    for skip_special in [false, true] {
        assert_eq!(ours.decode(&found, skip_special), library.decode(&found, skip_special).unwrap(), "{text:?}");
    }
}

#[test]
fn tricky_strings_are_encoded_as_the_library_does() {
    for text in TRICKY {
        check_against_library(&SMOLLM, &PUBLISHED, text, true);
        check_against_library(&GGUF, &LLAMA_JSON, text, false);
        check_against_library(&LLAMA, &LLAMA_JSON, text, false);
    }
}

proptest! {
    #[test]
    fn damage_to_sentencepiece_never_panics(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = std::fs::read(fixture("sentencepiece/tokenizer.model")).unwrap();
        hits.iter().for_each(|(at, byte)| { let at = at.index(file.len()); file[at] = *byte; });
        file.truncate(4 * cut.index(file.len()));
        let scratch = Scratch::new();
        let _ = Tokenizer::from_file(&scratch.write("tokenizer.model", file));
    }

    #[test]
    fn byte_level_from_gguf_agrees_with_the_library(text in text()) {
        check_against_library(&SMOLLM, &PUBLISHED, &text, true);
    }

    #[test]
    fn merges_from_scores_agree_with_the_published_merges(text in text()) {
        check_against_library(&GGUF, &LLAMA_JSON, &text, false);
    }

    #[test]
    fn bytes_of_tokens_are_the_text(text in text()) {
        let ids = LLAMA3.encode(&text, true).unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| LLAMA3.token_bytes(id)).copied().collect();
        prop_assert_eq!(bytes, text.as_bytes());
    }
}

#[test]
fn bos_is_added_once() {
    for tokenizer in [&*LLAMA, &*GGUF] {
        let plain = tokenizer.encode("hello", false).unwrap();
        assert_eq!(tokenizer.encode("hello", true).unwrap(), [&[1], &plain[..]].concat());
        let spelled = tokenizer.encode("<s>hello", false).unwrap();
        assert_eq!(spelled[0], 1);
        assert_eq!(tokenizer.encode("<s>hello", true).unwrap(), spelled);
        assert_eq!(tokenizer.encode("", true).unwrap(), [1]);
    }
    assert_eq!(LLAMA3.encode("", true).unwrap(), Vec::<u32>::new());
}

#[test]
fn gguf_flags_decide_what_goes_around_a_prompt() {
    let mut metadata = smollm_metadata();
    let flag = |on| Value::Bool(on);
    metadata.values.insert("tokenizer.ggml.add_bos_token".into(), flag(true));
    metadata.values.insert("tokenizer.ggml.add_eos_token".into(), flag(true));
    let both = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(both.encode("", true).unwrap(), [1, 2]);
    assert_eq!(both.encode("<|im_start|>a", true).unwrap(), [1, 81, 2]);
    assert_eq!(both.encode("a", false).unwrap(), [81]);
}

#[test]
fn only_normal_pieces_are_made_from_text() {
    let pieces = ["<unk>", "a", "b", "ab", "ba", "bb"].map(str::to_owned);
    let values = [
        ("model", Value::Text("llama".into())),
        ("tokens", Value::Texts(pieces.into())),
        ("scores", Value::Floats(vec![0.0, -3.0, -4.0, -1.0, -2.0, -5.0])),
        ("token_type", Value::Ints(vec![2, 1, 1, 5, 1, 1])),
        ("add_bos_token", Value::Bool(false)),
        ("add_space_prefix", Value::Bool(false)),
    ];
    let values = values.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    let tokenizer = Tokenizer::from_gguf(&Metadata { file: "m.gguf".into(), values }).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [1, 2], "piece 3 is marked unused");
    assert_eq!(tokenizer.encode("bbab", true).unwrap(), [2, 4, 2], "the higher score merges first");
    assert_eq!(tokenizer.decode(&[4, 5], false), "babb");
}

#[test]
fn special_tokens_are_known_by_name() {
    let end = SMOLLM.id_of("<|im_end|>").unwrap();
    assert_eq!((end, SMOLLM.is_special(end), SMOLLM.token_text(end)), (2, true, Some("<|im_end|>")));
    let the = SMOLLM.id_of("Ġthe").unwrap();
    assert_eq!((SMOLLM.is_special(the), SMOLLM.token_text(the)), (false, Some(" the")));
    assert_eq!(SMOLLM.decode(&[end, the, end], true), " the");
    assert_eq!(SMOLLM.id_of("no such token"), None);
}

#[test]
fn ids_without_text_are_harmless() {
    let (vocab, last) = (SMOLLM.vocab(), SMOLLM.vocab() as u32 - 1);
    assert_eq!(vocab, 49_152);
    assert!(!SMOLLM.token_bytes(last).is_empty());
    assert_eq!(SMOLLM.token_bytes(last + 1), b"");
    assert_eq!(SMOLLM.token_text(u32::MAX), None);
    assert_eq!(SMOLLM.decode(&[u32::MAX], false), "");
}

#[test]
fn a_tokenizer_fits_its_model() {
    let files = weights::open(&fixture("llama3")).unwrap();
    let mut config = ModelConfig::of(&files).unwrap();
    config.vocab += 88;
    let larger = Tokenizer::of(&files, &config).unwrap();
    assert_eq!((larger.vocab(), larger.token_bytes(599)), (600, &b""[..]));
    config.vocab = 300;
    let smaller = Tokenizer::at(&fixture("llama3/tokenizer.json"), &config).unwrap();
    assert_eq!((smaller.vocab(), smaller.eos()), (300, &[1][..]));
    let error = smaller.encode("The license", false).unwrap_err().to_string();
    assert_eq!(error, "contains token 452 (\"he\"), for which the model has no embedding");
}

/// The message of a tokenizer made from changed keys of the default model; `None` removes a key.
fn gguf_error(key: &str, value: Option<Value>) -> String {
    let mut metadata = Metadata { file: "m.gguf".into(), ..smollm_metadata() };
    match value {
        Some(value) => metadata.values.insert(key.to_owned(), value),
        None => metadata.values.remove(key),
    };
    Tokenizer::from_gguf(&metadata).err().expect("must fail").to_string()
}

#[test]
fn wrong_keys_are_named() {
    let text = |t: &str| Some(Value::Text(t.to_owned()));
    let check = |key: &str, value, expected: &str| assert_eq!(gguf_error(key, value), expected);
    check(
        "tokenizer.ggml.pre",
        text("unheard-of"),
        "m.gguf: tokenizer.ggml.pre \"unheard-of\" is not supported; supported are gpt-2, smollm, starcoder, refact, \
         command-r, llama-bpe, llama3, llama-v3, falcon3, qwen2, deepseek-r1-qwen, tekken, deepseek-coder, default",
    );
    check(
        "tokenizer.ggml.model",
        text("bert"),
        "m.gguf: tokenizer.ggml.model \"bert\" is not supported; supported are gpt2, llama",
    );
    check("tokenizer.ggml.tokens", None, "m.gguf: key tokenizer.ggml.tokens is missing");
    check("tokenizer.ggml.tokens", text("x"), "m.gguf: key tokenizer.ggml.tokens must be a list of texts");
    check(
        "tokenizer.ggml.token_type",
        Some(Value::Ints(vec![1, 2])),
        "m.gguf: tokenizer.ggml.token_type lists 2 types for 49152 tokens",
    );
    check(
        "tokenizer.ggml.merges",
        Some(Value::Texts(vec!["ab".into()])),
        "m.gguf: tokenizer.ggml.merges has \"ab\", which is not two tokens",
    );
    check(
        "tokenizer.ggml.merges",
        Some(Value::Texts(vec!["Ġt zzzzz".into()])),
        "m.gguf: its tokenizer cannot be built: Token `zzzzz` out of vocabulary",
    );
    check("tokenizer.ggml.model", text("llama"), "m.gguf: key tokenizer.ggml.scores is missing");
}

#[test]
fn wrong_tokenizer_files_are_named() {
    let scratch = Scratch::new();
    let error = |path: &std::path::Path| Tokenizer::from_json_file(path).err().expect("must fail").to_string();
    let missing = scratch.0.join("tokenizer.json");
    assert!(error(&missing).contains("tokenizer.json: cannot be read: "));
    assert!(error(&scratch.write("a.json", "{")).contains("a.json: EOF while parsing"));
    let mut word_pieces = json("llama3/tokenizer.json");
    word_pieces["decoder"] = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let path = scratch.write("b.json", word_pieces.to_string());
    assert!(error(&path).ends_with("is not supported; supported are ByteLevel, ByteFallback, Metaspace"));
}

//! What cannot work is refused before the weights are read.

mod fixtures;

use fixtures::fixture;
use sglang_engine::loader::{self, LoadOptions};

#[track_caller]
fn check(options: LoadOptions, expected: &str) {
    let model_path = if options.model_path.as_os_str().is_empty() { fixture("llama3") } else { options.model_path };
    let options = LoadOptions { model_path, ..options };
    let loaded = loader::load(&options, &mut |done, _| panic!("{done} bytes were read"));
    assert_eq!(loaded.err().expect("a refusal").to_string(), expected);
}

#[test]
fn sizes_and_names_are_checked_first() {
    let options = LoadOptions::default;
    check(
        LoadOptions { context_length: Some(5000), ..options() },
        "context length 5000: the model was made for 1 to 2048 tokens",
    );
    check(LoadOptions { tp: Some(0), ..options() }, "tp 0: expected 1 to 64");
    check(
        LoadOptions { tp: Some(9), ..options() },
        "tp 9: 8 heads in blocks of 1 over 2 key/value heads and a feed-forward of 176 in blocks of 1 cannot be split so; tp \
         can be 1, 2, 3, 4, 5, 6, 7, 8",
    );
    let blocks = LoadOptions { model_path: fixture("gguf/Q4_K.gguf"), tp: Some(2), ..options() };
    check(
        blocks,
        "tp 2: 4 heads in blocks of 4 over 2 key/value heads and a feed-forward of 256 in blocks of 256 cannot be split so; \
         tp can be 1",
    );
    check(
        LoadOptions { max_total_tokens: Some(0), ..options() },
        "a KV cache of 0 tokens is too small: at least 16 are needed",
    );
    check(
        LoadOptions { schedule_policy: Some("lifo".into()), ..options() },
        "schedule policy \"lifo\": expected one of lpm, fcfs, dfs-weight, random",
    );
}

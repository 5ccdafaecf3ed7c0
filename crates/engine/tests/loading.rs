//! What cannot work is refused before the weights are read.

mod fixtures;

use fixtures::fixture;
use sglang_engine::loader::{self, LoadOptions};

#[track_caller]
fn check(options: LoadOptions, expected: &str) {
    let options = LoadOptions { model_path: fixture("llama3"), ..options };
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
    check(
        LoadOptions { max_total_tokens: Some(20), ..options() },
        "a KV cache of 20 tokens is too small: at least 48 are needed",
    );
    check(
        LoadOptions { schedule_policy: Some("lifo".into()), ..options() },
        "schedule policy \"lifo\": expected one of lpm, fcfs, dfs-weight, random",
    );
}

//! JSON Schema on instances from outside: a folder of files `{schema, tests: [{valid, data}]}`.

mod fixtures;

use fixtures::{default_model, large_tokenizer};
use sglang_engine::grammar::{spawn_large, Constraint, Grammars};
use sglang_engine::model::config::ModelConfig;
use sglang_engine::text::Tokenizer;
use sglang_engine::weights;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A part of the files with `SGLANG_EVERY=4 SGLANG_FIRST=1`, by 128,000 tokens with `SGLANG_LARGE=1`; all with
/// `SGLANG_MASKBENCH=folder cargo test --release -p sglang-engine --test grammar_maskbench -- --ignored --nocapture`
#[test]
#[ignore = "prints measurements"]
fn how_much_is_compiled_and_accepted() {
    // As the front thread is.
    spawn_large("measure", measure).unwrap().join().unwrap();
}

fn measure() {
    let folder = std::env::var("SGLANG_MASKBENCH").unwrap();
    let number = |name: &str, default: usize| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let (first, every) = (number("SGLANG_FIRST", 0), number("SGLANG_EVERY", 1));
    let files = weights::open(&default_model()).unwrap();
    let mut tokenizer = Arc::new(Tokenizer::of(&files, &ModelConfig::of(&files).unwrap()).unwrap());
    if std::env::var_os("SGLANG_LARGE").is_some() {
        tokenizer = large_tokenizer(&tokenizer);
    }
    let mut grammars = Grammars::new(tokenizer);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let (mut compiles, mut first_masks, mut masks, mut slowest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for path in paths.iter().skip(first).step_by(every) {
        let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let tests = file["tests"].as_array().unwrap();
        let texts: Vec<String> = tests.iter().map(|test| test["data"].to_string()).collect();
        let name = path.file_name().unwrap().to_string_lossy();
        let mut count = |what: &'static str| *counts.entry(what).or_default() += 1;
        count("schemas");
        match grammars.examine(&Constraint::JsonSchema(file["schema"].to_string()), &texts) {
            Err(error) => {
                count("refused");
                println!("refused {name}: {:.400}", error.to_string());
            }
            Ok(examined) => {
                compiles.push(examined.compile);
                let slow =
                    examined.walks.iter().flat_map(|walk| walk.masks.iter().enumerate()).max_by_key(|mask| mask.1);
                slowest.extend(slow.map(|(at, time)| (*time, at, name.to_string())));
                for ((walk, test), text) in examined.walks.iter().zip(tests).zip(&texts) {
                    first_masks.extend(&walk.first_masks);
                    masks.extend(&walk.masks);
                    let valid = test["valid"].as_bool().unwrap();
                    count(match (valid, walk.accepted) {
                        (true, true) => "valid accepted",
                        (true, false) => "valid rejected",
                        (false, true) => "invalid accepted",
                        (false, false) => "invalid rejected",
                    });
                    if valid != walk.accepted {
                        println!("wrong {name}: valid {valid}, stopped before {:?} of {}", walk.rest, text.len());
                    }
                }
            }
        }
    }
    println!("{counts:?}");
    println!("compile {}", spread(compiles));
    println!("first masks {}", spread(first_masks));
    println!("masks again {}", spread(masks));
    slowest.sort();
    slowest
        .iter()
        .rev()
        .take(100)
        .for_each(|(time, at, name)| println!("slowest mask {time:?}, number {at} of {name}"));
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!("p50 {:?}, p90 {:?}, p99 {:?}, p99.9 {:?}, max {:?}", at(0.5), at(0.9), at(0.99), at(0.999), at(1.0))
}

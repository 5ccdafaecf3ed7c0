//! JSON Schema's own test suite (draft 2020-12) as a ratchet: what of it is not supported is counted by file in
//! `fixtures/schema-suite.txt`, and no count may grow. It is not part of this repository: give the folder of its `*.json`
//! files as `SGLANG_SCHEMA_SUITE` and run the ignored test.

mod fixtures;

use fixtures::{fixture, tokenizer};
use serde_json::Value;
use sglang_engine::grammar::{Constraint, Grammars};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Of one file: schemas refused, valid instances rejected, invalid ones accepted.
type Counts = [usize; 3];

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn count(grammars: &mut Grammars, file: &Path) -> Counts {
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let mut counts = Counts::default();
    for case in cases {
        let tests = case["tests"].as_array().unwrap();
        let texts: Vec<String> = tests.iter().map(|test| test["data"].to_string()).collect();
        match grammars.examine(&Constraint::JsonSchema(case["schema"].to_string()), &texts) {
            // That no value is allowed is known.
            Err(_) if tests.iter().all(|test| test["valid"] == false) => {}
            Err(_) => counts[0] += 1,
            Ok(examined) => {
                for (walk, test) in examined.walks.iter().zip(tests) {
                    match (test["valid"].as_bool().unwrap(), walk.accepted) {
                        (true, false) => counts[1] += 1,
                        (false, true) => {
                            println!("accepted though invalid: {} against {}", test["data"], case["schema"]);
                            counts[2] += 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    counts
}

fn expected() -> BTreeMap<String, Counts> {
    let list = std::fs::read_to_string(fixture("schema-suite.txt")).unwrap();
    let lines = list.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap().to_owned();
        (name, std::array::from_fn(|_| words.next().unwrap().parse().unwrap()))
    });
    lines.collect()
}

#[test]
#[ignore = "needs the files of the test suite"]
fn no_more_of_the_suite_fails_than_is_known() {
    let folder = PathBuf::from(std::env::var_os("SGLANG_SCHEMA_SUITE").expect("SGLANG_SCHEMA_SUITE names a folder"));
    let mut grammars = Grammars::new(tokenizer("llama3"));
    let expected = expected();
    let mut grown = Vec::new();
    for file in files(&folder) {
        let name = file.strip_prefix(&folder).unwrap().display().to_string().replace('\\', "/");
        let counts = count(&mut grammars, &file);
        let known = expected.get(&name).copied().unwrap_or_default();
        if counts != [0; 3] {
            println!("{name} {} {} {}", counts[0], counts[1], counts[2]);
        }
        if counts.iter().zip(known).any(|(count, known)| *count > known) {
            grown.push(format!("{name}: {counts:?}, known are {known:?}"));
        }
    }
    assert!(grown.is_empty(), "refused, rejected, accepted:\n{}", grown.join("\n"));
}

//! Keeps the design: which module may use which, how long files and functions may be, and which names may appear where.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 60;

/// `crate::` modules that each module of the engine may name.
const EDGES: &[(&str, &[&str])] = &[
    ("batch", &["image"]),
    ("comm", &[]),
    ("engine", &["batch", "error", "front", "request", "runner", "scheduler", "text", "image"]),
    ("error", &[]),
    ("front", &["error", "grammar", "request", "scheduler", "sequence", "text", "image"]),
    ("grammar", &["error", "text"]),
    ("image", &["error"]),
    ("lib", &[]),
    ("loader", &["comm", "engine", "error", "model", "parallel", "runner", "scheduler", "text", "weights", "image"]),
    ("model", &["batch", "comm", "error", "Error", "Result", "model", "weights", "image"]),
    ("parallel", &["batch", "comm", "error", "model", "runner"]),
    ("request", &["error", "grammar"]),
    ("runner", &["batch", "comm", "error", "model"]),
    ("scheduler", &["batch", "error", "request", "sequence", "text"]),
    ("sequence", &["batch", "error", "grammar", "request", "runner", "text", "image"]),
    ("text", &["error", "Error", "Result", "model", "weights", "text"]),
    ("weights", &["error", "Error", "Result", "weights"]),
];

/// A word, and the files (by the start of their path) that may hold it.
const NAMED_ONLY_IN: &[(&str, &[&str])] = &[
    ("candle_core", &[]),
    ("tokenizers::", &["engine/src/text"]),
    ("image::ImageReader", &["engine/src/image.rs"]),
    ("napi", &["../bindings-node/"]),
    ("unsafe", &["kernels/src/cpu/", "engine/src/weights/mod.rs"]),
];

fn sources() -> Vec<(String, String)> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["radix/src", "kernels/src", "engine/src", "../bindings-node/src"] {
        collect(&crates.join(folder), &mut files);
    }
    let name = |path: &PathBuf| path.strip_prefix(crates).unwrap().display().to_string().replace('\\', "/");
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => collect(&entry, files),
            false if entry.extension().is_some_and(|e| e == "rs") => files.push(entry),
            false => {}
        }
    }
}

/// Lines of code: no comments, no string contents that matter here.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.split("//").next().unwrap())
}

#[test]
fn modules_use_only_what_lies_below_them() {
    for (name, text) in sources() {
        let Some(rest) = name.strip_prefix("engine/src/") else { continue };
        let module = rest.split(['/', '.']).next().unwrap();
        let (_, allowed) =
            EDGES.iter().find(|(m, _)| *m == module).unwrap_or_else(|| panic!("{name}: no row in EDGES"));
        for used in code(&text).flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>()) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let own = used.is_empty() || used == module;
            assert!(own || allowed.contains(&used.as_str()), "{name} may not use crate::{used}");
        }
    }
}

#[test]
fn words_stay_where_they_belong() {
    for (name, text) in sources() {
        for (word, places) in NAMED_ONLY_IN {
            let allowed = places.iter().any(|place| name.starts_with(place));
            let named = code(&text).any(|line| line.contains(word) && !line.contains("forbid("));
            assert!(allowed || !named, "{name} names {word}, which belongs to {places:?}");
        }
    }
}

#[test]
fn files_begin_with_their_law_and_are_short() {
    for (name, text) in sources() {
        assert!(text.starts_with("//!"), "{name} does not begin with a module doc");
        let lines = text.lines().count();
        assert!(lines <= MAX_FILE_LINES, "{name} has {lines} lines; at most {MAX_FILE_LINES} are allowed");
    }
}

/// (name, lines) of each function: from its `fn` line to the line that closes it at the same indent.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let starts = lines.iter().enumerate().filter(|(_, line)| {
        let line = line.trim_start();
        ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "unsafe fn ", "pub unsafe fn "]
            .iter()
            .any(|s| line.starts_with(s))
    });
    let length = |start: usize| {
        // A declaration without a body ends with its signature.
        let ends = |line: &str| line.trim_start().starts_with('}') || line.ends_with(';');
        let closes = |line: &&str| indent(line) == indent(lines[start]) && ends(line);
        let one_line = lines[start].ends_with('}') || lines[start].ends_with(';');
        if one_line {
            1
        } else {
            lines[start..].iter().position(closes).map_or(1, |n| n + 1)
        }
    };
    starts.map(|(start, line)| (line.trim().to_owned(), length(start))).collect()
}

#[test]
fn functions_are_short() {
    let mut lengths = Vec::new();
    for (name, text) in sources() {
        for (function, length) in functions(&text) {
            assert!(length <= MAX_FUNCTION_LINES, "{name}: {function} has {length} lines");
            lengths.push(length);
        }
    }
    lengths.sort_unstable();
    let (median, p90) = (lengths[lengths.len() / 2], lengths[lengths.len() * 9 / 10]);
    assert!(median <= 8 && p90 <= 30, "functions have a median of {median} and a 90th percentile of {p90} lines");
}

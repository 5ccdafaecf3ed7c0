//! The language of the scripts. Law: after every line of every script the invariants of the cache hold.
//!
//! A script is made of lines: `acquire a 1-20` (tokens 1 to 20, in namespace 0; `acquire a 1-20 in 7` for another),
//! `extend a 40`, `commit a 1-20 50 51`, `write a 1-20` (extend, then commit), `release a`, `cache 1-20` (a whole
//! request; also `in 7`), `pages a`, `match 1-20` (also `in 7`), `order 1-20 | 5 6` (prompts by `depth_first`), `hits`,
//! `pass a 40` (rows from position 40 on are left), `available`, `evict 2`, `clear`, `show`.

use std::collections::BTreeMap;
use std::fmt::Write;

use sglang_radix::{Lease, PageId, PrefixCache, Token};

struct Machine {
    cache: PrefixCache,
    leases: BTreeMap<String, Lease>,
    printed: String,
}

/// Runs `script` on a cache of `n_pages` pages and compares what it prints, less indentation, with `expected`.
#[track_caller]
pub fn check(n_pages: u32, script: &str, expected: &str) {
    check_cache(PrefixCache::new(n_pages), script, expected);
}

/// The same on any empty cache.
#[track_caller]
pub fn check_cache(cache: PrefixCache, script: &str, expected: &str) {
    let mut machine = Machine { cache, leases: BTreeMap::new(), printed: String::new() };
    for line in dedent(script).lines() {
        machine.run(line);
        machine.cache.check_invariants(&machine.leases.values().collect::<Vec<_>>());
    }
    let Machine { mut cache, leases, printed } = machine;
    leases.into_values().for_each(|lease| cache.release(lease));
    assert!(printed == dedent(expected), "printed:\n{printed}\nexpected:\n{}", dedent(expected));
}

fn dedent(text: &str) -> String {
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let indent = lines.iter().map(|line| line.len() - line.trim_start().len()).min().unwrap_or(0);
    lines.iter().map(|line| format!("{}\n", line[indent..].trim_end())).collect()
}

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("not a number: {word}"))
}

/// `1-3 7` is 1, 2, 3, 7.
fn tokens(words: &[&str]) -> Vec<Token> {
    let range = |word: &str| match word.split_once('-') {
        Some((first, last)) => number(first)..=number(last),
        None => number(word)..=number(word),
    };
    words.iter().flat_map(|word| range(word)).collect()
}

impl Machine {
    fn run(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["acquire", name, ref prompt @ .., "in", namespace] => self.acquire(name, prompt, number(namespace)),
            ["acquire", name, ref prompt @ ..] => self.acquire(name, prompt, 0),
            ["extend", name, n_tokens] => self.extend(name, number(n_tokens)),
            ["commit", name, ref sequence @ ..] => {
                self.cache.commit(self.leases.get_mut(name).expect(line), &tokens(sequence))
            }
            ["write", name, ref sequence @ ..] => {
                self.extend(name, tokens(sequence).len());
                self.run(&format!("commit {name} {}", sequence.join(" ")));
            }
            ["pass", name, position] => self.cache.pass(self.leases.get_mut(name).expect(line), number(position)),
            ["cache", ref sequence @ .., "in", namespace] => self.cache(&tokens(sequence), number(namespace)),
            ["cache", ref sequence @ ..] => self.cache(&tokens(sequence), 0),
            ["release", name] => self.cache.release(self.leases.remove(name).expect(line)),
            ["pages", name] => self.print(format!("{name}: {}", pages(&self.leases[name]))),
            ["match", ref prompt @ .., "in", namespace] => self.find(prompt, number(namespace)),
            ["match", ref prompt @ ..] => self.find(prompt, 0),
            ["order", ref prompts @ ..] => self.order(prompts),
            ["hits"] => self.hits(),
            ["available"] => self.print(format!("available {}", self.cache.available())),
            ["evict", n_pages] => {
                let freed = self.cache.evict(number(n_pages));
                self.print(format!("evicted {freed}"));
            }
            ["clear"] => {
                let freed = self.cache.clear();
                self.print(format!("evicted {freed}"));
            }
            ["show"] => self.show(),
            _ => panic!("not a line of a script: {line}"),
        }
    }

    fn acquire(&mut self, name: &str, prompt: &[&str], namespace: u64) {
        let lease = self.cache.acquire(namespace, &tokens(prompt));
        let copy = lease.copy().map(|copy| format!(", copy {} rows {}->{}", copy.rows, copy.from.0, copy.to.0));
        self.print(format!("{name}: matched {}, {}{}", lease.matched(), pages(&lease), copy.unwrap_or_default()));
        let before = self.leases.insert(name.to_string(), lease);
        assert!(before.is_none(), "{name} is acquired already");
    }

    fn cache(&mut self, sequence: &[Token], namespace: u64) {
        let mut lease = self.cache.acquire(namespace, sequence);
        self.cache.extend(&mut lease, sequence.len()).expect("room to cache");
        self.cache.commit(&mut lease, sequence);
        self.cache.release(lease);
    }

    fn find(&mut self, prompt: &[&str], namespace: u64) {
        self.print(format!("match {}", self.cache.find(namespace, &tokens(prompt)).len));
    }

    /// Prints the prompts, which `|` parts, in the order of their ranks.
    fn order(&mut self, words: &[&str]) {
        let prompts: Vec<_> = words.split(|word| *word == "|").collect();
        let matches: Vec<_> = prompts.iter().map(|prompt| self.cache.find(0, &tokens(prompt))).collect();
        let mut ranked: Vec<_> = self.cache.depth_first(&matches).into_iter().zip(&prompts).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let names: Vec<_> = ranked.into_iter().map(|(_, prompt)| prompt.join(" ")).collect();
        self.print(names.join(" | "));
    }

    /// Prints each node's first position and its hits.
    fn hits(&mut self) {
        let hits: Vec<_> = self.cache.nodes().map(|(_, node)| format!("{}:{}", node.start, node.hits)).collect();
        self.print(format!("hits {}", hits.join(" ")));
    }

    fn extend(&mut self, name: &str, n_tokens: usize) {
        let lease = self.leases.get_mut(name).expect(name);
        if let Err(error) = self.cache.extend(lease, n_tokens) {
            self.print(format!("{name}: {error}"));
        }
    }

    fn show(&mut self) {
        let stats = self.cache.stats();
        self.printed += &self.cache.to_string();
        self.print(format!("free {} cached {} leased {}", stats.free, stats.cached, stats.leased));
    }

    fn print(&mut self, line: String) {
        writeln!(self.printed, "{line}").expect("writing to a String");
    }
}

fn pages(lease: &Lease) -> String {
    let text = |page: &PageId| if *page == PageId::GONE { "-".into() } else { page.0.to_string() };
    let pages: Vec<String> = lease.pages().iter().map(text).collect();
    format!("pages [{}]", pages.join(", "))
}

//! Regular expressions: which texts they allow, token by token, and what they refuse.

mod fixtures;

use fixtures::{default_model, fixture, large_tokenizer, text_mask as mask};
use proptest::prelude::*;
use regex_automata::nfa::thompson::{State, NFA};
use regex_automata::util::primitives::StateID;
use sglang_engine::grammar::{Constraint, Grammar, Grammars};
use sglang_engine::model::config::ModelConfig;
use sglang_engine::text::Tokenizer;
use sglang_engine::weights;
use std::collections::{BTreeSet, HashSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

fn load(path: &Path) -> Arc<Tokenizer> {
    let files = weights::open(path).unwrap();
    Arc::new(Tokenizer::of(&files, &ModelConfig::of(&files).unwrap()).unwrap())
}

static LLAMA: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| load(&fixture("llama")));
static LLAMA3: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| load(&fixture("llama3")));
static DEFAULT: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| load(&default_model()));

/// Patterns that mean the same here and to the `regex` crate, without look-around.
const PATTERNS: [&str; 20] = [
    "",
    "yes|no",
    "[0-9]{1,3}",
    r"((25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)\.){3}(25[0-5]|2[0-4][0-9]|[01]?[0-9][0-9]?)",
    r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?",
    "(?i)hello( world)?",
    "(a|ab)(c|bcd)(d*)",
    "(?:ab)*?c+?",
    r#""([^"\\\n]|\\["\\/bfnrt])*""#,
    "[à-ÿ]{2,4}",
    "日本|日曜日",
    "(🙂|🙃|🚀)+",
    "[^a-z]*!",
    "(?s).{0,5}",
    r"(x{2,3}){2}",
    r"\{ ?\}",
    r"[\]\-^]+",
    r"\p{Lu}\p{Ll}{1,3}",
    r"(?P<year>[0-9]{4})-(?<month>[0-9]{2})",
    "(|a)(|b)(|c)",
];

fn start(tokenizer: &Arc<Tokenizer>, pattern: &str) -> Box<dyn Grammar> {
    let constraint = Constraint::Regex(pattern.into());
    Grammars::new(tokenizer.clone()).start(&constraint).unwrap_or_else(|e| panic!("{pattern}: {e}"))
}

fn is_set(mask: &[u32], token: u32) -> bool {
    mask[token as usize / 32] >> (token % 32) & 1 == 1
}

fn is_text(tokenizer: &Tokenizer, token: u32) -> bool {
    !tokenizer.is_special(token) && !tokenizer.eos().contains(&token) && !tokenizer.token_bytes(token).is_empty()
}

/// The pattern by other means: sets of states of a nondeterministic automaton, byte by byte. Knows no look-around.
struct Oracle {
    nfa: NFA,
    /// States from which the end can be reached.
    hopeful: BTreeSet<StateID>,
}

impl Oracle {
    fn new(pattern: &str) -> Self {
        let nfa = NFA::new(pattern).unwrap();
        let n = nfa.states().len();
        let ids = || (0..n).map(StateID::must);
        let mut hopeful: BTreeSet<StateID> = ids().filter(|&id| matches!(nfa.state(id), State::Match { .. })).collect();
        for _ in 0..n {
            let more: Vec<StateID> = ids().filter(|&id| next(&nfa, id).iter().any(|to| hopeful.contains(to))).collect();
            hopeful.extend(more);
        }
        Oracle { nfa, hopeful }
    }

    fn closed(&self, states: impl IntoIterator<Item = StateID>) -> BTreeSet<StateID> {
        let mut todo: Vec<StateID> = states.into_iter().collect();
        let mut closed = BTreeSet::new();
        while let Some(id) = todo.pop() {
            let consumes = matches!(
                self.nfa.state(id),
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Match { .. }
            );
            if closed.insert(id) && !consumes {
                todo.extend(next(&self.nfa, id));
            }
        }
        closed
    }

    fn start(&self) -> BTreeSet<StateID> {
        self.closed([self.nfa.start_anchored()])
    }

    fn step(&self, states: &BTreeSet<StateID>, bytes: &[u8]) -> BTreeSet<StateID> {
        bytes.iter().fold(states.clone(), |states, &byte| {
            self.closed(states.iter().filter_map(|&id| match self.nfa.state(id) {
                State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
                State::Sparse(sparse) => sparse.matches_byte(byte),
                State::Dense(dense) => dense.matches_byte(byte),
                _ => None,
            }))
        })
    }

    fn is_viable(&self, states: &BTreeSet<StateID>) -> bool {
        states.iter().any(|id| self.hopeful.contains(id))
    }

    fn is_match(&self, states: &BTreeSet<StateID>) -> bool {
        states.iter().any(|&id| matches!(self.nfa.state(id), State::Match { .. }))
    }
}

fn next(nfa: &NFA, id: StateID) -> Vec<StateID> {
    match nfa.state(id) {
        State::ByteRange { trans } => vec![trans.next],
        State::Sparse(sparse) => sparse.transitions.iter().map(|t| t.next).collect(),
        State::Dense(dense) => dense.transitions.to_vec(),
        State::Look { .. } => panic!("the oracle knows no look-around"),
        State::Union { alternates } => alternates.to_vec(),
        State::BinaryUnion { alt1, alt2 } => vec![*alt1, *alt2],
        State::Capture { next, .. } => vec![*next],
        State::Fail | State::Match { .. } => vec![],
    }
}

/// Compares every bit of the mask after `prefix`.
fn check_mask(tokenizer: &Arc<Tokenizer>, pattern: &str, oracle: &Oracle, prefix: &[u32]) -> (Vec<u32>, bool) {
    let mut grammar = start(tokenizer, pattern);
    prefix.iter().for_each(|&token| grammar.accept(token));
    let mask = mask(&mut *grammar, tokenizer);
    let state = prefix.iter().fold(oracle.start(), |s, &token| oracle.step(&s, tokenizer.token_bytes(token)));
    for token in 0..tokenizer.vocab() as u32 {
        let bytes = tokenizer.token_bytes(token);
        let expected = is_text(tokenizer, token) && oracle.is_viable(&oracle.step(&state, bytes));
        let text = tokenizer.decode(prefix, false);
        assert_eq!(is_set(&mask, token), expected, "{pattern:?} after {text:?}: token {token}, {bytes:?}");
    }
    assert_eq!(grammar.is_accepting(), oracle.is_match(&state), "{pattern:?} after {prefix:?}");
    (mask, grammar.is_accepting())
}

#[test]
fn masks_are_what_brute_force_finds() {
    for tokenizer in [&*LLAMA, &*LLAMA3] {
        for pattern in PATTERNS {
            let oracle = Oracle::new(pattern);
            let mut seen = HashSet::from([oracle.start()]);
            let mut todo = VecDeque::from([Vec::new()]);
            while let Some(prefix) = todo.pop_front() {
                let (mask, _) = check_mask(tokenizer, pattern, &oracle, &prefix);
                for token in (0..tokenizer.vocab() as u32).filter(|&token| is_set(&mask, token)) {
                    let prefix = [&prefix[..], &[token]].concat();
                    let bytes: Vec<u8> = prefix.iter().flat_map(|&t| tokenizer.token_bytes(t)).copied().collect();
                    if seen.insert(oracle.step(&oracle.start(), &bytes)) {
                        todo.push_back(prefix);
                    }
                }
            }
        }
    }
}

#[test]
fn masks_of_the_default_model_are_what_brute_force_finds() {
    let mut dice = Dice(1);
    for pattern in PATTERNS {
        let oracle = Oracle::new(pattern);
        let mut prefix = Vec::new();
        loop {
            let (mask, accepting) = check_mask(&DEFAULT, pattern, &oracle, &prefix);
            let allowed = tokens(&mask);
            if allowed.is_empty() || prefix.len() == 4 {
                assert!(accepting || !allowed.is_empty(), "{pattern:?} after {prefix:?}: a dead end");
                break;
            }
            prefix.push(allowed[dice.below(allowed.len())]);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

fn tokens(mask: &[u32]) -> Vec<u32> {
    (0..mask.len() as u32 * 32).filter(|&token| is_set(mask, token)).collect()
}

/// The pattern to the `regex` crate, full match.
fn reference(pattern: &str) -> regex::Regex {
    regex::Regex::new(&format!("^(?:{pattern})$")).unwrap()
}

#[test]
fn any_walk_through_allowed_tokens_can_end_in_a_match() {
    let mut dice = Dice(2);
    for (pattern, walk) in PATTERNS.into_iter().flat_map(|pattern| (0..20).map(move |walk| (pattern, walk))) {
        let tokenizer = [&*LLAMA, &*LLAMA3, &*DEFAULT][walk % 3];
        let (reference, mut grammar, mut text) = (reference(pattern), start(tokenizer, pattern), Vec::new());
        for _ in 0..30 {
            let allowed = tokens(&mask(&mut *grammar, tokenizer));
            let whole = std::str::from_utf8(&text).ok();
            let matches = whole.is_some_and(|text| reference.is_match(text));
            assert_eq!(grammar.is_accepting(), matches, "{pattern:?}: {whole:?}");
            if allowed.is_empty() {
                assert!(matches, "{pattern:?}: a dead end after {whole:?}");
                break;
            }
            let token = allowed[dice.below(allowed.len())];
            text.extend_from_slice(tokenizer.token_bytes(token));
            grammar.accept(token);
        }
    }
}

/// Whether the text, spelled in single bytes, goes through the masks to an accepting state.
fn accepts(grammar: &mut dyn Grammar, text: &str) -> bool {
    text.bytes().all(|byte| {
        let token = (0..LLAMA3.vocab() as u32).find(|&token| LLAMA3.token_bytes(token) == [byte]).unwrap();
        let allowed = is_set(&mask(grammar, &LLAMA3), token);
        if allowed {
            grammar.accept(token);
        }
        allowed
    }) && grammar.is_accepting()
}

/// Random patterns that mean the same here and to the `regex` crate.
fn pattern() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[ab1é ]{1,2}",
        r"\[\^?[ab1é ]\]",
        r"\[[a1][a-c]-[x-z]\]",
        Just("(?s:.)".to_owned()),
        Just(r"\.".to_owned()),
        Just(r"\u0061".to_owned()),
        Just(r"\p{Lu}".to_owned()),
        Just("(?i:É)".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let quantifier = prop_oneof![Just("*"), Just("+?"), Just("?"), Just("{2}"), Just("{1,}"), Just("{0,2}?")];
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| parts.concat()),
            prop::collection::vec(inner.clone(), 1..4).prop_map(|parts| format!("({})", parts.join("|"))),
            (inner, quantifier).prop_map(|(part, quantifier)| format!("(?:{part}){quantifier}")),
        ]
    })
}

proptest! {
    #[test]
    fn random_patterns_mean_what_they_mean_to_another_engine(
        pattern in pattern(),
        texts in prop::collection::vec("[ab1éÉ x.]{0,6}", 8),
    ) {
        let reference = reference(&pattern);
        let constraint = Constraint::Regex(pattern.clone());
        let mut grammars = Grammars::new(LLAMA3.clone());
        for text in texts {
            let mut grammar = grammars.start(&constraint).unwrap();
            prop_assert_eq!(accepts(&mut *grammar, &text), reference.is_match(&text), "{:?} {:?}", pattern, text);
        }
    }
}

/// Pattern, texts that match, texts that do not. The verdicts are those of CPython 3.11 (`re.fullmatch`) and V8 11.3
/// (`^(?:…)$` with the flag `u`, and without it under `i`); where any two disagree, the text does not match.
const DIALECT: &[(&str, &[&str], &[&str])] = &[
    (r"\d+", &["0123456789"], &["", "٣", "a"]),
    (r"\D", &["a", "é", "日"], &["3", "٣", ""]),
    (r"[^\d]", &["a", "日"], &["3", "٣"]),
    (r"\w+", &["aZ_09"], &["é", "日", "-"]),
    (r"\W", &["-", " ", "🙂"], &["a", "_", "é", "日"]),
    (
        r"\s",
        &[" ", "\t", "\n", "\r", "\u{b}", "\u{c}", "\u{a0}", "\u{3000}", "\u{2028}"],
        &["a", "\u{85}", "\u{feff}", "\u{1c}"],
    ),
    (r"\S", &["a", "é", "日"], &[" ", "\u{a0}", "\u{85}", "\u{feff}", "\u{1c}"]),
    (r"[\s\S]{3}", &["a\nb", "日本語", "🙂🙂🙂"], &["ab", "abcd"]),
    (".", &["a", "日", "🙂"], &["\n", "\r", "\u{2028}", "\u{2029}", ""]),
    ("(?s).", &["a", "\n", "\r", "\u{2029}"], &["ab"]),
    ("(?s:.)[^x]", &["\n\n"], &["\nx"]),
    ("(?i)straSSe", &["STRASSE", "strasse"], &["straße", "ſtrasse"]),
    ("(?i)[a-k]", &["K", "a"], &["\u{212a}", "l"]),
    ("(?i)[^k]", &["a"], &["k", "K", "\u{212a}"]),
    ("(?i)É", &["é", "É"], &["e"]),
    ("(?i:a)b", &["ab", "Ab"], &["aB"]),
    (r"\/\-\<\>\'\#\&\~\ ", &["/-<>'#&~ "], &[]),
    (r"a/b", &["a/b"], &[]),
    (r"\x41\u00e9\n\t\0", &["Aé\n\t\0"], &[]),
    (r"[\b]", &["\u{8}"], &["b"]),
    (r"[a\-z]", &["a", "-", "z"], &["b"]),
    ("[-a]|[a-]", &["-", "a"], &["b"]),
    ("[[a&&b]", &["[", "a", "&", "b"], &["]"]),
    ("a{,2x}|b{|{c}", &["a{,2x}", "b{", "{c}"], &["aa"]),
    ("(?:a|b)??c", &["c", "ac"], &["aac"]),
    ("(?<first>a)(?<second>b)", &["ab"], &["a"]),
    (r"^a$|^b$", &["a", "b"], &["ab", "a\n"]),
    (r"(a$|ab)c?", &["a", "ab", "abc"], &["ac"]),
    (r"\bfoo\b( \bbar\b)?", &["foo", "foo bar"], &["foobar"]),
    (r"\Ba|a\b.", &["a ", "a-"], &["a", "ab", "aé"]),
    ("", &[""], &["a"]),
    ("a|", &["a", ""], &["b"]),
];

#[test]
fn patterns_mean_what_python_and_javascript_agree_on() {
    for &(pattern, matching, others) in DIALECT {
        for (&text, expected) in matching.iter().map(|t| (t, true)).chain(others.iter().map(|t| (t, false))) {
            assert_eq!(accepts(&mut *start(&LLAMA3, pattern), text), expected, "{pattern:?} {text:?}");
        }
    }
}

/// Pattern, and what the error says after the name of the field.
const REFUSED: &[(&str, &str)] = &[
    ("a(?=b)", "at position 1: look-ahead is not supported"),
    ("a(?!b)", "at position 1: look-ahead is not supported"),
    ("é日(?<=b)", "at position 2: look-behind is not supported"),
    ("(?<!b)", "at position 0: look-behind is not supported"),
    ("(?>a)", "at position 0: an atomic group is not supported"),
    (r"(a)\1", "at position 3: a back-reference is not supported"),
    (r"(?<n>a)\k<n>", "at position 7: a back-reference is not supported"),
    ("(?P<n>a)(?P=n)", "at position 8: a back-reference is not supported"),
    ("a++", "at position 2: possessive quantifiers are not supported"),
    ("a**", "at position 2: a quantifier may not follow another; put the first part in a group"),
    ("a{2}{3}", "at position 4: a quantifier may not follow another; put the first part in a group"),
    ("*a", r"at position 0: nothing to repeat; write `\*` for the character"),
    ("a{3,2}", "at position 1: the least count 3 is above the largest, 2"),
    ("a{,2}", "at position 1: a count without a least number means different things; write `{0,n}`"),
    ("a{99999999999}", "at position 2: the count 99999999999 is too large"),
    ("(a", r"at position 0: this `(` has no `)`; write `\(` for the character"),
    ("a)", r"at position 1: unmatched `)`; write `\)` for the character"),
    ("[a", r"at position 0: this `[` has no `]`; write `\[` for the character"),
    ("[]a]", r"at position 1: a `]` at the start of a class means different things; write `\]` for the character"),
    ("[z-a]", "at position 1: the range ends before it begins"),
    (r"[a-\d]", r"at position 1: a range needs characters at its ends; write `\-` for the character"),
    (r"a\", r"at position 1: a `\` at the end; write `\\` for the character"),
    (r"\y", r"at position 0: the escape `\y` is not supported"),
    (r"\x4", "at position 0: the hexadecimal digits of this escape are missing"),
    (r"\ud800", "at position 0: U+D800 is no character"),
    (r"\p{Nope}", "at position 0: there is no Unicode property `Nope`"),
    (r"\pL", r"at position 0: a property is written `\p{Name}`"),
    ("a(?i)b", "at position 1: flags for the rest of a pattern may only begin it; write `(?i:…)`"),
    ("(?x)a", "at position 0: the flag `x` is not supported; i, s and u are"),
    ("(?m)^a", "at position 4: anchors under the flag `m` are not supported; the whole text always matches"),
    ("(?<1a>b)", "at position 0: a group's name is letters, digits and `_`, begins with no digit, and ends with `>`"),
    ("a^b", "no text that the tokens of the model can spell matches"),
    (r"[^\s\S\x1c-\x1f\x85\ufeff]", "no text that the tokens of the model can spell matches"),
    (".{0,100000}", "too large: the automaton would take more than 8 MiB"),
    (
        "(a|b)*a(a|b){20}",
        "too large: the deterministic automaton would take more than 16 MiB, or 4 MiB while it is made",
    ),
    ("(a|aa){1,5000}", "too large: the deterministic automaton would take more than 16 MiB, or 4 MiB while it is made"),
];

#[test]
fn errors_say_what_and_where() {
    for (pattern, expected) in REFUSED {
        let refused = Grammars::new(LLAMA3.clone()).start(&Constraint::Regex((*pattern).into()));
        let message = refused.err().unwrap_or_else(|| panic!("{pattern:?} is not refused")).to_string();
        assert_eq!(message, format!("sampling_params.regex: {expected}"), "{pattern:?}");
    }
}

#[test]
fn groups_may_not_be_too_deep() {
    let nested = |n: usize| "(".repeat(n) + "a" + &")".repeat(n);
    assert!(accepts(&mut *start(&LLAMA3, &nested(100)), "a"));
    let refused = Grammars::new(LLAMA3.clone()).start(&Constraint::Regex(nested(100_000))).err().unwrap();
    assert!(refused.to_string().contains("at position 100: groups lie more than 100 deep"), "{refused}");
}

#[test]
fn a_kept_pattern_starts_anew() {
    let mut grammars = Grammars::new(LLAMA3.clone());
    for n in [1, 2, 3, 1, 3, 2, 2].into_iter().chain(1..40).chain(1..40).chain([39, 20, 30]) {
        let mut grammar = grammars.start(&Constraint::Regex(format!("a{{{n}}}"))).unwrap();
        assert!(accepts(&mut *grammar, &"a".repeat(n)), "{n}");
    }
}

/// `cargo test --release -p sglang-engine --test grammar_regex -- --ignored --nocapture`
#[test]
#[ignore = "prints measurements"]
fn time_of_compilation_and_masks() {
    let limits = [".{0,100000}", "(a|aa){1,5000}", "(a|b)*a(a|b){20}", r"\p{L}{1,100}", ".{0,1000}", r"[\w ]{1,2000}"];
    for tokenizer in [DEFAULT.clone(), large_tokenizer(&DEFAULT)] {
        println!("{} tokens", tokenizer.vocab());
        let mut grammars = Grammars::new(tokenizer.clone());
        for pattern in PATTERNS.into_iter().chain(limits) {
            let begin = Instant::now();
            let compiled = grammars.start(&Constraint::Regex(pattern.into()));
            let compile = begin.elapsed();
            match compiled {
                Ok(_) => {
                    println!("{compile:>12.1?} compile, {}  {pattern}", mask_times(&mut grammars, &tokenizer, pattern))
                }
                Err(_) => println!("{compile:>12.1?} refused   {pattern}"),
            }
        }
    }
}

/// Of the masks along random walks, the first time and again.
fn mask_times(grammars: &mut Grammars, tokenizer: &Tokenizer, pattern: &str) -> String {
    let spread = |mut times: Vec<Duration>| {
        times.sort();
        format!("{:>9.1?} p50, {:>9.1?} p99", times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let mut walks = || {
        let (mut times, mut dice) = (Vec::new(), Dice(4));
        for _ in 0..20 {
            let mut grammar = grammars.start(&Constraint::Regex(pattern.into())).unwrap();
            for _ in 0..50 {
                let begin = Instant::now();
                grammar.allowed().unwrap();
                times.push(begin.elapsed());
                let allowed = tokens(&mask(&mut *grammar, tokenizer));
                if allowed.is_empty() {
                    break;
                }
                grammar.accept(allowed[dice.below(allowed.len())]);
            }
        }
        spread(times)
    };
    format!("first masks {}, again {}", walks(), walks())
}

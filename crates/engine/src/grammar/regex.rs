//! Regular expressions as grammars.
//!
//! Laws: the output full-matches the pattern, as bytes of UTF-8; a token is allowed exactly if some text after it
//! completes a match; time and memory have limits, and a pattern beyond them is an error that names the limit.
//!
//! A pattern becomes a deterministic automaton over bytes. The tokens allowed in a state are found by one walk of the
//! vocabulary's trie and remembered with the state (cf. Willard and Louf 2023, arXiv 2307.09702).

use super::jump::NextBytes;
use super::vocabulary::Vocabulary;
use super::{Allowed, Grammar};
use crate::error::Error;
use regex_automata::dfa::{dense, Automaton, StartKind};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::Hir;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Of the automaton before it is made deterministic.
const MAX_NFA_BYTES: usize = 8 << 20;
/// Of the automaton after.
const MAX_DFA_BYTES: usize = 16 << 20;
/// Of the sets of states met on the way. The time to find them grows with their size.
const MAX_SETS_BYTES: usize = 4 << 20;
/// Of the masks of one pattern that are remembered.
const MAX_MASK_BYTES: usize = 4 << 20;

/// A compiled pattern, shared by the sequences that it constrains.
pub struct Regex {
    vocabulary: Arc<Vocabulary>,
    dfa: Dfa,
    start: StateID,
    live: Live,
    masks: Mutex<Masks>,
}

/// What was found by walks. States often allow the same tokens and then share one mask.
#[derive(Default)]
struct Masks {
    of_states: HashMap<StateID, Allowed>,
    distinct: HashSet<Arc<[u32]>>,
}

impl Masks {
    fn insert(&mut self, state: StateID, mut found: Allowed) -> Allowed {
        match self.distinct.get(&found.mask) {
            Some(same) => found.mask = same.clone(),
            None if self.distinct.len() * size_of_val(&found.mask[..]) >= MAX_MASK_BYTES => *self = Masks::default(),
            None => {}
        }
        self.distinct.insert(found.mask.clone());
        self.of_states.entry(state).or_insert(found).clone()
    }
}

type Dfa = dense::DFA<Vec<u32>>;

impl Regex {
    /// Compiles a tree; an error is a sentence without its end.
    pub fn new(tree: &Hir, vocabulary: Arc<Vocabulary>) -> Result<Self, String> {
        let dfa = determinized(tree, &vocabulary)?;
        let start = dfa.start_state_forward(&Input::new("").anchored(Anchored::Yes)).map_err(|e| e.to_string())?;
        let live = Live::new(&dfa, start);
        if !live.contains(start) {
            return Err("no text that the tokens of the model can spell matches".into());
        }
        Ok(Regex { vocabulary, dfa, start, live, masks: Mutex::default() })
    }

    fn allowed(&self, state: StateID) -> Allowed {
        let mut masks = self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        match masks.of_states.get(&state) {
            Some(allowed) => allowed.clone(),
            None => masks.insert(state, self.walked(state)),
        }
    }

    fn walked(&self, state: StateID) -> Allowed {
        let mut mask = vec![0; self.vocabulary.mask_len()];
        let step = |state, byte| Some(self.dfa.next_state(state, byte)).filter(|&next| self.live.contains(next));
        self.vocabulary.walk(state, step, &mut mask);
        let only_end = mask.iter().all(|&word| word == 0);
        if is_match(&self.dfa, state) {
            self.vocabulary.allow_end(&mut mask);
        }
        Allowed { mask: mask.into(), only_end }
    }

    fn after(&self, state: StateID, bytes: &[u8]) -> StateID {
        bytes.iter().fold(state, |state, &byte| self.dfa.next_state(state, byte))
    }

    /// The bytes that every text goes on by which completes a match.
    fn forced(&self, mut state: StateID) -> Vec<u8> {
        let mut forced = Vec::new();
        while !is_match(&self.dfa, state) {
            let mut live = (0..=u8::MAX).filter(|&byte| self.live.contains(self.dfa.next_state(state, byte)));
            let (Some(byte), None) = (live.next(), live.next()) else { break };
            forced.push(byte);
            state = self.dfa.next_state(state, byte);
        }
        forced
    }

    fn next_bytes(&self, state: StateID) -> NextBytes {
        std::array::from_fn(|byte| self.live.contains(self.dfa.next_state(state, byte as u8)))
    }
}

/// The automaton of a tree, which knows after a whole text whether it matches.
fn determinized(tree: &Hir, vocabulary: &Vocabulary) -> Result<Dfa, String> {
    let too_large = |what: &str, limit: usize| format!("too large: {what} would take more than {} MiB", limit >> 20);
    let config = thompson::Config::new().nfa_size_limit(Some(MAX_NFA_BYTES)).which_captures(WhichCaptures::None);
    let nfa = thompson::Compiler::new().configure(config).build_from_hir(tree);
    let nfa = nfa.map_err(|_| too_large("the automaton", MAX_NFA_BYTES))?;
    let mut config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .accelerate(false)
        .dfa_size_limit(Some(MAX_DFA_BYTES))
        .determinize_size_limit(Some(MAX_SETS_BYTES));
    // Beyond ASCII, Python and JavaScript differ about the boundaries of words.
    let only_ascii = tree.properties().look_set().contains_word();
    for byte in (0..=u8::MAX).filter(|&byte| !vocabulary.spells(byte) || (only_ascii && !byte.is_ascii())) {
        config = config.quit(byte, true);
    }
    let dfa = dense::Builder::new().configure(config).build_from_nfa(&nfa);
    dfa.map_err(|_| {
        let sets = MAX_SETS_BYTES >> 20;
        format!("{}, or {sets} MiB while it is made", too_large("the deterministic automaton", MAX_DFA_BYTES))
    })
}

/// States from which a match can be reached.
struct Live {
    /// By state, without the stride.
    states: Vec<bool>,
    stride2: usize,
}

impl Live {
    fn new(dfa: &Dfa, start: StateID) -> Self {
        let bytes: Vec<u8> = dfa.byte_classes().representatives(0..=u8::MAX).filter_map(|unit| unit.as_u8()).collect();
        let reached = reached(dfa, start, &bytes);
        let n_states = reached.iter().map(|state| state.as_usize() >> dfa.stride2()).max().unwrap_or(0) + 1;
        let mut live = Live { states: vec![false; n_states], stride2: dfa.stride2() };
        // Backwards most states lie behind their successors, so that few rounds are needed.
        while reached.iter().rev().filter(|&&state| live.learn(dfa, state, &bytes)).count() > 0 {}
        live
    }

    fn contains(&self, state: StateID) -> bool {
        self.states.get(state.as_usize() >> self.stride2).is_some_and(|&live| live)
    }

    /// Whether the state is now found to be live.
    fn learn(&mut self, dfa: &Dfa, state: StateID, bytes: &[u8]) -> bool {
        let new = !self.contains(state)
            && (is_match(dfa, state) || bytes.iter().any(|&byte| self.contains(dfa.next_state(state, byte))));
        self.states[state.as_usize() >> self.stride2] |= new;
        new
    }
}

/// The states on ways from `start`, near ones first.
fn reached(dfa: &Dfa, start: StateID, bytes: &[u8]) -> Vec<StateID> {
    let mut reached = vec![start];
    let mut seen = HashSet::from([start]);
    let mut at = 0;
    while let Some(&state) = reached.get(at) {
        reached.extend(bytes.iter().map(|&byte| dfa.next_state(state, byte)).filter(|&next| seen.insert(next)));
        at += 1;
    }
    reached
}

fn is_match(dfa: &Dfa, state: StateID) -> bool {
    dfa.is_match_state(dfa.next_eoi_state(state))
}

/// The state of a pattern for one sequence.
pub struct Matching {
    regex: Arc<Regex>,
    state: StateID,
}

impl Matching {
    /// At the start of the text.
    pub fn new(regex: Arc<Regex>) -> Self {
        Matching { state: regex.start, regex }
    }
}

impl Grammar for Matching {
    fn allowed(&mut self) -> Result<Allowed, Error> {
        Ok(self.regex.allowed(self.state))
    }

    fn accept(&mut self, token: u32) {
        self.state = self.regex.after(self.state, self.regex.vocabulary.bytes(token));
    }

    fn jump(&mut self, last: Option<u32>) -> Option<Vec<u32>> {
        let regex = &self.regex;
        let forced = regex.forced(self.state);
        if forced.is_empty() {
            return None;
        }
        let next = regex.next_bytes(regex.after(self.state, &forced));
        let (tokens, n_bytes) = regex.vocabulary.respelled(last, &forced, &next)?;
        self.state = regex.after(self.state, &forced[..n_bytes]);
        Some(tokens)
    }

    fn is_accepting(&self) -> bool {
        is_match(&self.regex.dfa, self.state)
    }
}

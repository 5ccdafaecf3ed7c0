//! Masks within lexemes. In the middle of a string most tokens only go on with it, and whether they may depends on the
//! state of the lexer alone: these are found once for each state, and the parser is asked about the others.
//!
//! Law: the mask is llguidance's own.

use super::parsing::SLICES;
use super::vocabulary::{Step, Vocabulary};
use llguidance::derivre::StateID;
use llguidance::earley::{BiasComputer, ParserRecognizer, SlicedBiasComputer};
use llguidance::toktrie::{SimpleVob, TokTrie};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a slice's test may cost, as in llguidance.
const MAX_COST: u64 = 1000;
/// A walk over fewer nodes of the trie is not worth remembering.
const FEW_NODES: usize = 1500;
/// Divided states that are remembered, each with a mask and a trie.
const MAX_KNOWN: usize = 256;

/// Computes masks for the parsers that share a lexer.
pub struct Masks {
    slicer: Arc<SlicedBiasComputer>,
    vocabulary: Arc<Vocabulary>,
    few_nodes: usize,
    known: Mutex<HashMap<StateID, Known>>,
}

#[derive(Clone)]
enum Known {
    /// Left to llguidance.
    Simple,
    Divided(Arc<Divided>),
}

/// The tokens that the lexer can read in one of its states.
struct Divided {
    /// They end within the lexeme.
    within: SimpleVob,
    /// They end it, and the parser decides.
    beyond: TokTrie,
}

impl Masks {
    /// Without knowledge.
    pub fn new(slicer: Arc<SlicedBiasComputer>, vocabulary: Arc<Vocabulary>) -> Self {
        Masks::remembering(slicer, vocabulary, FEW_NODES)
    }

    /// Remembers walks over so many nodes.
    pub fn remembering(slicer: Arc<SlicedBiasComputer>, vocabulary: Arc<Vocabulary>, few_nodes: usize) -> Self {
        Masks { slicer, vocabulary, few_nodes, known: Mutex::default() }
    }

    fn known(&self, rec: &mut ParserRecognizer<'_>) -> Known {
        let state = rec.lexer_state();
        let found = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&state).cloned();
        found.unwrap_or_else(|| {
            let known = self.examined(rec, state);
            let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MAX_KNOWN {
                all.clear();
            }
            all.insert(state, known.clone());
            known
        })
    }

    fn examined(&self, rec: &mut ParserRecognizer<'_>, state: StateID) -> Known {
        let lexer = rec.lexer_mut();
        let widest = SLICES.len() - 1;
        if lexer.subsume_possible(state) && lexer.check_subsume(state, widest, MAX_COST, None).unwrap_or(false) {
            return Known::Simple;
        }
        let (mut within, mut beyond) = (self.trie().alloc_token_set(), self.trie().alloc_token_set());
        let step = |state: StateID, byte| {
            let next = lexer.transition_start_state(state, Some(byte), &None);
            match next.is_dead() {
                true if lexer.try_lexeme_end(state).is_error() => Step::Never,
                true => Step::Beyond,
                false if next.has_lowest_match() => Step::Beyond,
                false => Step::To(next),
            }
        };
        let n_nodes =
            self.vocabulary.divide(state, step, |token| within.allow_token(token), |token| beyond.allow_token(token));
        if n_nodes < self.few_nodes {
            return Known::Simple;
        }
        Known::Divided(Arc::new(Divided { within, beyond: self.trie().filter(&beyond) }))
    }
}

impl BiasComputer for Masks {
    fn compute_bias(&self, rec: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        if !start.is_empty() {
            return self.slicer.compute_bias(rec, start);
        }
        match self.known(rec) {
            Known::Simple => self.slicer.compute_bias(rec, start),
            Known::Divided(divided) => {
                let mut mask = divided.within.clone();
                divided.beyond.add_bias(rec, &mut mask, &[]);
                mask
            }
        }
    }

    fn trie(&self) -> &TokTrie {
        self.slicer.trie()
    }
}

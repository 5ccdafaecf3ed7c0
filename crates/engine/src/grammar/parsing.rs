//! Grammars that need a parser: llguidance, told the tokens of our tokenizer.
//!
//! Law: a token is allowed only if llguidance allows it and it is text. Where the parser fails, the request fails:
//! no token goes unchecked.

use super::vocabulary::Vocabulary;
use super::{Allowed, Grammar};
use crate::error::{panic_message, Error};
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie, INVALID_TOKEN};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;
use std::sync::Arc;

/// Of address space; memory is used only as far as a grammar needs it.
const STACK_BYTES: usize = 512 << 20;

/// Makes parsers for one vocabulary.
pub struct Parsers {
    factory: ParserFactory,
    spellings: Arc<Spellings>,
}

/// What a parser must know of the tokens.
struct Spellings {
    vocabulary: Arc<Vocabulary>,
    /// The tokens that are text.
    texts: Vec<u32>,
    trie: TokTrie,
}

impl Parsers {
    /// For a vocabulary. An error is a sentence without its end, here and below.
    pub fn new(vocabulary: &Arc<Vocabulary>) -> Result<Self, String> {
        let mut words = vec![Vec::new(); vocabulary.len()];
        let mut texts = vec![0; vocabulary.mask_len()];
        // That byte is no UTF-8; llguidance marks special tokens by it.
        for (token, bytes) in vocabulary.texts().filter(|(_, bytes)| !bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER)) {
            words[token as usize] = bytes.to_vec();
            texts[token as usize / 32] |= 1 << (token % 32);
        }
        let end = vocabulary.eos().first().copied().unwrap_or(INVALID_TOKEN);
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie.clone()));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Parsers { factory, spellings: Arc::new(Spellings { vocabulary: vocabulary.clone(), texts, trie }) })
    }

    /// Whose tokens the parsers know.
    pub fn vocabulary(&self) -> Arc<Vocabulary> {
        self.spellings.vocabulary.clone()
    }

    /// Of a grammar in llguidance's variant of Lark's notation. `param` is the field of the request that holds it.
    pub fn lark(&self, param: &'static str, grammar: &str) -> Result<Parser, String> {
        self.parser(param, TopLevelGrammar::from_lark(grammar.into()))
    }

    /// Of a schema with llguidance's options in it.
    pub fn json_schema(&self, param: &'static str, schema: Value) -> Result<Parser, String> {
        self.parser(param, TopLevelGrammar::from_json_schema(schema))
    }

    fn parser(&self, param: &'static str, grammar: TopLevelGrammar) -> Result<Parser, String> {
        let compile = || Matcher::new(self.factory.create_parser(grammar));
        let matcher = with_large_stack(compile)?;
        match matcher.get_error() {
            Some(error) => Err(without_trace(&error).into()),
            None => Ok(Parser { matcher, spellings: self.spellings.clone(), param }),
        }
    }
}

/// A thread to follow references on.
pub fn large_stack() -> std::thread::Builder {
    std::thread::Builder::new().name("sglang-grammar".into()).stack_size(STACK_BYTES)
}

/// Runs on a thread of its own. References are followed by recursion, in compilation and in checks, and a stack that is
/// too small ends the process: the longest chain that fits [`MAX_TEXT_BYTES`](super::MAX_TEXT_BYTES) must fit
/// [`STACK_BYTES`].
pub fn with_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = large_stack().spawn_scoped(scope, work).map_err(|e| format!("no thread to compile on: {e}"))?;
        thread.join().map_err(|panic| panic_message(&*panic))
    })
}

/// An error of llguidance up to what only its authors can use.
fn without_trace(error: &str) -> &str {
    error.split("\n<").next().unwrap_or(error)
}

/// A parser at the start of a text.
pub struct Parser {
    matcher: Matcher,
    spellings: Arc<Spellings>,
    param: &'static str,
}

impl Parser {
    /// The same for one sequence, with a lexer of its own: its limits are per sequence.
    pub fn start(&self) -> Parsing {
        let mut matcher = self.matcher.deep_clone();
        let accepting = matcher.is_accepting().unwrap_or(false);
        Parsing { matcher, accepting, spellings: self.spellings.clone(), param: self.param }
    }
}

/// The state of a parser for one sequence.
pub struct Parsing {
    matcher: Matcher,
    accepting: bool,
    spellings: Arc<Spellings>,
    param: &'static str,
}

impl Parsing {
    /// The text tokens that may come next.
    fn mask(&mut self) -> Result<Vec<u32>, Error> {
        let texts = &self.spellings.texts;
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(vec![0; texts.len()]);
        }
        match self.matcher.compute_mask() {
            Ok(tokens) => Ok(tokens.as_slice().iter().zip(texts).map(|(allowed, text)| allowed & text).collect()),
            // A parser that may end here and finds no token to go on by calls it an error.
            Err(_) if self.accepting => Ok(vec![0; texts.len()]),
            Err(e) => {
                let reason = without_trace(&e.to_string()).to_owned();
                Err(Error::bad(self.param, format!("{}: cannot be continued: {reason}", self.param)))
            }
        }
    }

    fn consume(&mut self, tokens: &[u32]) {
        // After a failure the next mask is an error.
        let consumed = self.matcher.consume_tokens(tokens);
        self.accepting = consumed.and_then(|()| self.matcher.is_accepting()).unwrap_or(false);
    }

    /// The state after text that is forced.
    fn after(&self, forced: &[u8]) -> Self {
        let spellings = self.spellings.clone();
        let mut after = Parsing { matcher: self.matcher.clone(), accepting: false, spellings, param: self.param };
        after.consume(&self.spellings.trie.greedy_tokenize(forced));
        after
    }
}

impl Grammar for Parsing {
    fn allowed(&mut self) -> Result<Allowed, Error> {
        let mut mask = self.mask()?;
        let only_end = mask.iter().all(|&word| word == 0);
        if self.accepting {
            self.spellings.vocabulary.allow_end(&mut mask);
        }
        Ok(Allowed { mask: mask.into(), only_end })
    }

    fn accept(&mut self, token: u32) {
        self.consume(&[token]);
    }

    fn is_accepting(&self) -> bool {
        self.accepting
    }

    fn jump(&mut self, last: Option<u32>) -> Option<Vec<u32>> {
        let vocabulary = self.spellings.vocabulary.clone();
        let forced = if self.accepting { Vec::new() } else { self.matcher.compute_ff_bytes() };
        if forced.is_empty() || !forced.iter().all(|&byte| vocabulary.spells(byte)) {
            return None;
        }
        let mut end = self.after(&forced);
        let next = vocabulary.first_bytes(&end.mask().ok()?);
        let (tokens, n_bytes) = vocabulary.respelled(last, &forced, &next)?;
        *self = if n_bytes == forced.len() { end } else { self.after(&forced[..n_bytes]) };
        Some(tokens)
    }
}

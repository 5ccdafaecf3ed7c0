//! Grammars that need a parser: llguidance, told the tokens of our tokenizer.
//!
//! Law: a token is allowed only if llguidance allows it and it is text. Where the parser fails, the request fails:
//! no token goes unchecked.

use super::vocabulary::Vocabulary;
use super::Grammar;
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
    /// The tokens that are text.
    texts: Arc<[u32]>,
}

impl Parsers {
    /// For a vocabulary. An error is a sentence without its end, here and below.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, String> {
        let mut words = vec![Vec::new(); vocabulary.len()];
        let mut texts = vec![0; vocabulary.mask_len()];
        // That byte is no UTF-8; llguidance marks special tokens by it.
        for (token, bytes) in vocabulary.texts().filter(|(_, bytes)| !bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER)) {
            words[token as usize] = bytes.to_vec();
            texts[token as usize / 32] |= 1 << (token % 32);
        }
        let end = vocabulary.eos().first().copied().unwrap_or(INVALID_TOKEN);
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Parsers { factory, texts: texts.into() })
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
            None => Ok(Parser { matcher, texts: self.texts.clone(), param }),
        }
    }
}

/// Runs on a thread of its own. llguidance follows references by recursion, and a stack that is too small ends the
/// process: the longest chain that fits [`MAX_TEXT_BYTES`](super::MAX_TEXT_BYTES) must fit [`STACK_BYTES`].
fn with_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("sglang-grammar".into()).stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work).map_err(|e| format!("no thread to compile on: {e}"))?;
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
    texts: Arc<[u32]>,
    param: &'static str,
}

impl Parser {
    /// The same for one sequence, with a lexer of its own: its limits are per sequence.
    pub fn start(&self) -> Parsing {
        let mut matcher = self.matcher.deep_clone();
        let accepting = matcher.is_accepting().unwrap_or(false);
        Parsing { matcher, accepting, texts: self.texts.clone(), param: self.param }
    }
}

/// The state of a parser for one sequence.
pub struct Parsing {
    matcher: Matcher,
    accepting: bool,
    texts: Arc<[u32]>,
    param: &'static str,
}

impl Grammar for Parsing {
    fn allowed(&mut self, mask: &mut [u32]) -> Result<(), Error> {
        mask.fill(0);
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(());
        }
        match self.matcher.compute_mask() {
            Ok(tokens) => {
                let words = mask.iter_mut().zip(tokens.as_slice()).zip(self.texts.iter());
                words.for_each(|((word, allowed), text)| *word = allowed & text);
                Ok(())
            }
            // A parser that may end here and finds no token to go on by calls it an error.
            Err(_) if self.accepting => Ok(()),
            Err(e) => {
                let reason = without_trace(&e.to_string()).to_owned();
                Err(Error::bad(self.param, format!("{}: cannot be continued: {reason}", self.param)))
            }
        }
    }

    fn accept(&mut self, token: u32) {
        // After a failure the next mask is an error.
        let accepted = self.matcher.consume_token(token);
        self.accepting = accepted.and_then(|()| self.matcher.is_accepting()).unwrap_or(false);
    }

    fn is_accepting(&self) -> bool {
        self.accepting
    }
}

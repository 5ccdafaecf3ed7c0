//! Grammars that need a parser: llguidance, told the tokens of our tokenizer.
//!
//! Law: a token is allowed only if llguidance allows it and it is text. Where the parser fails, the request fails:
//! no token goes unchecked.

use super::masks::Masks;
use super::stack::on_large_stack;
use super::vocabulary::Vocabulary;
use super::{Allowed, Grammar};
use crate::error::Error;
use llguidance::api::TopLevelGrammar;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie, INVALID_TOKEN};
use llguidance::{Matcher, ParserFactory, TokenParser};
use serde_json::Value;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};

/// A lexer is kept for the next sequence until it holds a 25th of the states it may have, 10,000 at 1 to 2 kB.
const USED_SHARE: usize = 25;

/// Text that is forced comes in parts: where a schema requires the same property of every value within, there is no end.
const MAX_FORCED_BYTES: usize = 4096;

/// Sets of tokens that are allowed at one stroke where a lexeme holds all their texts. Those in strings leave out the
/// line ends that `.` does not match; the last one holds the most.
pub const SLICES: [&str; 1] = [r#"[^"\\\x00-\x1F\x7F\u{2028}\u{2029}]+"#];

/// Makes parsers for one vocabulary.
pub struct Parsers {
    factory: Arc<ParserFactory>,
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
        let slices = SLICES.map(str::to_owned);
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|e| e.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Parsers {
            factory: Arc::new(factory),
            spellings: Arc::new(Spellings { vocabulary: vocabulary.clone(), texts, trie }),
        })
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
        let factory = self.factory.clone();
        let fresh = on_large_stack(move || factory.create_parser(grammar).map_err(|e| e.to_string()));
        let fresh = fresh?.map_err(|error| without_trace(&error).to_owned())?;
        let spellings = self.spellings.clone();
        let used = Mutex::new(unused(&fresh, &self.factory.slicer(), &spellings.vocabulary));
        Ok(Parser { fresh, used, slicer: self.factory.slicer(), spellings, param })
    }
}

/// An error of llguidance up to what only its authors can use.
fn without_trace(error: &str) -> &str {
    error.split("\n<").next().unwrap_or(error)
}

/// A parser at the start of a text.
pub struct Parser {
    fresh: TokenParser,
    /// What sequences met of the lexer's states is known to those after them.
    used: Mutex<TokenParser>,
    slicer: Arc<SlicedBiasComputer>,
    spellings: Arc<Spellings>,
    param: &'static str,
}

impl Parser {
    /// The same for one sequence.
    pub fn start(self: &Arc<Self>) -> Parsing {
        let mut matcher = self.matcher();
        let accepting = matcher.is_accepting().unwrap_or(false);
        Parsing { parser: self.clone(), matcher, tokens: Vec::new(), accepting }
    }

    fn matcher(&self) -> Matcher {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if !has_room(&used) {
            *used = unused(&self.fresh, &self.slicer, &self.spellings.vocabulary);
        }
        Matcher::new(Ok(used.clone()))
    }
}

/// The same parser with a lexer of its own.
fn unused(fresh: &TokenParser, slicer: &Arc<SlicedBiasComputer>, vocabulary: &Arc<Vocabulary>) -> TokenParser {
    let mut parser = fresh.deep_clone();
    parser.bias_computer = Arc::new(Masks::new(slicer.clone(), vocabulary.clone()));
    parser
}

/// Whether the lexer of a parser has room for further sequences, and none has broken it.
fn has_room(parser: &TokenParser) -> bool {
    let stats = catch_unwind(AssertUnwindSafe(|| parser.parser.lexer_stats()));
    stats.is_ok_and(|stats| !stats.error && stats.num_states < parser.limits.max_lexer_states / USED_SHARE)
}

/// The state of a parser for one sequence.
///
/// Law: where the lexer breaks, be it by what another sequence needs, a fresh one takes its place and reads the tokens
/// again. So a sequence fails only if its next step alone is too much for one.
pub struct Parsing {
    parser: Arc<Parser>,
    matcher: Matcher,
    /// All that were consumed.
    tokens: Vec<u32>,
    accepting: bool,
}

impl Parsing {
    /// The text tokens that may come next.
    fn mask(&mut self) -> Result<Vec<u32>, Error> {
        if self.matcher.is_stopped() && !self.matcher.is_error() {
            return Ok(vec![0; self.parser.spellings.texts.len()]);
        }
        let mask = self.matcher.compute_mask().or_else(|_| {
            self.matcher = self.anew();
            self.matcher.compute_mask()
        });
        let texts = &self.parser.spellings.texts;
        match mask {
            Ok(tokens) => Ok(tokens.as_slice().iter().zip(texts).map(|(allowed, text)| allowed & text).collect()),
            // A parser that may end here and finds no token to go on by calls it an error.
            Err(_) if self.accepting => Ok(vec![0; texts.len()]),
            Err(e) => {
                let (param, reason) = (self.parser.param, without_trace(&e.to_string()).to_owned());
                Err(Error::bad(param, format!("{param}: cannot be continued: {reason}")))
            }
        }
    }

    fn consume(&mut self, tokens: &[u32]) {
        self.tokens.extend(tokens);
        if self.matcher.consume_tokens(tokens).is_err() {
            self.matcher = self.anew();
        }
        // After a failure the next mask is an error.
        self.accepting = self.matcher.is_accepting().unwrap_or(false);
    }

    /// One that has read all tokens, on a fresh lexer where the shared one broke. A failure stays in it.
    fn anew(&self) -> Matcher {
        let mut matcher = self.parser.matcher();
        let _ = matcher.consume_tokens(&self.tokens);
        matcher
    }

    /// The state after text that is forced.
    fn after(&self, forced: &[u8]) -> Self {
        let (parser, matcher, tokens) = (self.parser.clone(), self.matcher.clone(), self.tokens.clone());
        let mut after = Parsing { parser, matcher, tokens, accepting: false };
        after.consume(&self.parser.spellings.trie.greedy_tokenize(forced));
        after
    }
}

impl Grammar for Parsing {
    fn allowed(&mut self) -> Result<Allowed, Error> {
        let mut mask = self.mask()?;
        let only_end = mask.iter().all(|&word| word == 0);
        if self.accepting {
            self.parser.spellings.vocabulary.allow_end(&mut mask);
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
        let vocabulary = self.parser.spellings.vocabulary.clone();
        let mut forced = if self.accepting { Vec::new() } else { self.matcher.compute_ff_bytes() };
        forced.truncate(MAX_FORCED_BYTES);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Tokenizer;
    use serde_json::json;
    use std::path::Path;

    /// Texts that go on in many ways, within lexemes and beyond them.
    fn schemas() -> [Value; 5] {
        let name = json!({ "type": "string", "pattern": "^[a-z ]*(on|at)[a-z ]*$" });
        [
            json!({ "type": "string", "pattern": "data:image|on" }),
            json!({ "type": "array", "items": { "type": "string", "maxLength": 9 } }),
            json!({ "type": "object", "properties": { "at": { "type": "number" }, "name": name }, "required": ["name"] }),
            json!({ "type": "object", "additionalProperties": { "enum": ["one", "on", "\"", 1, 10, 1.5] } }),
            json!({ "anyOf": [{ "type": "integer", "minimum": 7 }, { "type": "string", "format": "ipv4" }, name] }),
        ]
    }

    fn vocabulary() -> Arc<Vocabulary> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama3/tokenizer.json");
        Arc::new(Vocabulary::new(Arc::new(Tokenizer::from_json_file(&file).unwrap())))
    }

    /// Of a schema, by a lexer that may have so many states.
    fn limited(schema: &Value, max_lexer_states: usize) -> Arc<Parser> {
        let mut parsers = Parsers::new(&vocabulary()).unwrap();
        Arc::get_mut(&mut parsers.factory).unwrap().limits_mut().max_lexer_states = max_lexer_states;
        Arc::new(parsers.json_schema("schema", schema.clone()).unwrap())
    }

    fn tokens(mask: &[u32]) -> Vec<u32> {
        (0..mask.len() as u32 * 32).filter(|t| mask[*t as usize / 32] >> (t % 32) & 1 == 1).collect()
    }

    #[test]
    fn a_lexer_that_breaks_is_replaced() {
        let pattern = "^[a-z]*a[a-z]{12}$";
        let schema = json!({ "type": "array", "items": { "type": "string", "pattern": pattern } });
        let (tight, wide) = (limited(&schema, 95), limited(&schema, 250_000));
        let mut walks: Vec<(Parsing, Parsing)> = (0..4).map(|_| (tight.start(), wide.start())).collect();
        let states = || tight.used.lock().unwrap().parser.lexer_stats().num_states;
        let mut replaced = 0;
        for step in 0..60 {
            for (i, (parsing, free)) in walks.iter_mut().enumerate() {
                let before = states();
                let (mask, expected) = (parsing.mask().unwrap(), free.mask().unwrap());
                replaced += usize::from(states() < before);
                assert_eq!(mask, expected, "walk {i}, step {step}");
                let allowed = tokens(&mask);
                if allowed.is_empty() {
                    (*parsing, *free) = (tight.start(), wide.start());
                    continue;
                }
                let token = allowed[(i * 31 + step * 17) % allowed.len()];
                parsing.accept(token);
                free.accept(token);
                assert_eq!(parsing.is_accepting(), free.is_accepting());
            }
        }
        assert!(replaced > 1, "{replaced}");
        let mut alone = limited(&schema, 50).start();
        let error = (0..60).find_map(|_| alone.mask().map(|mask| alone.accept(tokens(&mask)[0])).err()).unwrap();
        assert!(error.to_string().contains("schema: cannot be continued: lexer error: too many states"), "{error}");
    }

    #[test]
    fn forced_text_comes_in_parts() {
        let link = json!({ "type": "object", "properties": { "next": { "$ref": "#" } }, "required": ["next"] });
        let (chain, quote) = ("{\"next\":".repeat(2500), "so it goes, ".repeat(1700));
        let vocabulary = vocabulary();
        for (mut schema, text) in [(link, chain), (json!({ "const": quote }), format!("\"{quote}\""))] {
            schema["x-guidance"] = json!({ "whitespace_flexible": false });
            schema["additionalProperties"] = false.into();
            let parser = Parsers::new(&vocabulary).unwrap().json_schema("schema", schema).unwrap();
            let mut parsing = Arc::new(parser).start();
            let mut written = parsing.jump(None).unwrap();
            for n_parts in 1..=4 {
                let bytes: Vec<u8> = written.iter().flat_map(|&token| vocabulary.bytes(token)).copied().collect();
                let most = n_parts * (MAX_FORCED_BYTES + vocabulary.depth());
                assert!((most / 2..=most).contains(&bytes.len()), "{n_parts} parts: {} bytes", bytes.len());
                assert!(text.as_bytes().starts_with(&bytes));
                let next = tokens(&parsing.mask().unwrap())[0];
                parsing.accept(next);
                written.extend(parsing.jump(Some(next)).unwrap());
            }
        }
    }

    #[test]
    fn masks_are_the_same_where_the_lexer_is_asked_once() {
        let vocabulary = vocabulary();
        let parsers = Parsers::new(&vocabulary).unwrap();
        for schema in schemas() {
            let parser = parsers.json_schema("schema", schema.clone()).unwrap();
            let mut divided = parser.fresh.deep_clone();
            divided.bias_computer = Arc::new(Masks::remembering(parser.slicer.clone(), vocabulary.clone(), 0));
            for walk in 0..30 {
                let mut whole = Matcher::new(Ok(parser.fresh.deep_clone()));
                let mut divided = Matcher::new(Ok(divided.clone()));
                for step in 0..30 {
                    let (Ok(expected), Ok(mask)) = (whole.compute_mask(), divided.compute_mask()) else { break };
                    assert_eq!(mask.as_slice(), expected.as_slice(), "walk {walk}, step {step} of {schema}");
                    let allowed: Vec<u32> = expected.iter().collect();
                    let token = allowed[(walk * 31 + step * 17) % allowed.len()];
                    if whole.consume_token(token).is_err() || whole.is_stopped() {
                        break;
                    }
                    divided.consume_token(token).unwrap();
                }
            }
        }
    }
}

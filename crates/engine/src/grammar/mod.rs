//! Constrained decoding. A [`Grammar`] tells which tokens may come next; the law is that it never allows a token
//! after which the output could not be completed.
//!
//! Regular expressions ([`dialect`], [`regex`]) and grammars without recursion ([`ebnf`]) become automata of our own.
//! JSON Schema ([`schema`]) and recursive grammars are parsed by llguidance ([`parsing`]).

mod checked;
mod class;
mod deadline;
mod dialect;
mod ebnf;
mod endless;
mod exact;
mod examine;
mod jump;
mod loosen;
mod malformed;
mod masks;
mod parsing;
mod parts;
mod regex;
mod schema;
mod stack;
mod style;
mod tags;
mod vocabulary;

use crate::error::Error;
use crate::text::Tokenizer;
use checked::{Check, Checked};
use dialect::Flaw;
use ebnf::Language;
pub use endless::endless;
pub use examine::{Examined, Walk};
use parsing::{Parser, Parsers};
use regex::{Matching, Regex};
use regex_syntax::hir::Hir;
pub use stack::spawn_large;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;
use vocabulary::Vocabulary;

/// What the output of a request must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// The whole output matches a regular expression.
    Regex(String),
    /// The output is a JSON value that satisfies the schema (JSON text).
    JsonSchema(String),
    /// The output is derived from the rule `root` of a grammar in EBNF (`name ::= …`), or, where the text holds no
    /// `::=`, from `start` of one in llguidance's variant of Lark's notation (`name: …`).
    Ebnf(String),
    /// The output is derived from `start` of a grammar in that notation.
    Lark(String),
    /// Text in which JSON values stand between tags (`{structures: [{begin, schema, end}], triggers}`, JSON text).
    StructuralTag(String),
}

impl Constraint {
    /// By the name of its field in a request: `regex`, `json_schema`, `ebnf`, `lark` or `structural_tag`.
    pub fn named(kind: &str, text: String) -> Result<Self, Error> {
        match kind {
            "regex" => Ok(Constraint::Regex(text)),
            "json_schema" => Ok(Constraint::JsonSchema(text)),
            "ebnf" => Ok(Constraint::Ebnf(text)),
            "lark" => Ok(Constraint::Lark(text)),
            "structural_tag" => Ok(Constraint::StructuralTag(text)),
            _ => Err(Error::bad("sampling_params", format!("there is no constraint of the kind {kind:?}"))),
        }
    }

    /// The field of a request that holds it.
    fn param(&self) -> &'static str {
        match self {
            Constraint::Regex(_) => "sampling_params.regex",
            Constraint::JsonSchema(_) => "sampling_params.json_schema",
            Constraint::Ebnf(_) => "sampling_params.ebnf",
            Constraint::Lark(_) => "sampling_params.lark",
            Constraint::StructuralTag(_) => "sampling_params.structural_tag",
        }
    }

    fn text(&self) -> &str {
        match self {
            Constraint::Regex(text)
            | Constraint::JsonSchema(text)
            | Constraint::Ebnf(text)
            | Constraint::Lark(text)
            | Constraint::StructuralTag(text) => text,
        }
    }

    fn error(&self, reason: impl std::fmt::Display) -> Error {
        Error::bad(self.param(), format!("{}: {reason}", self.param()))
    }

    fn flaw(&self, Flaw { at, reason }: Flaw) -> Error {
        let before = self.text().chars().take(at);
        let (line, column) = before.fold((1, 1), |(line, column), c| match c {
            '\n' => (line + 1, 1),
            _ => (line, column + 1),
        });
        match self {
            Constraint::Regex(_) => self.error(format!("at position {at}: {reason}")),
            _ => self.error(format!("at line {line}, column {column}: {reason}")),
        }
    }
}

/// The state of a constraint for one sequence.
pub trait Grammar: Send {
    /// What may come next. An error where the constraint is too complex to go on.
    fn allowed(&mut self) -> Result<Allowed, Error>;
    /// Goes on by a token that was allowed and is text.
    fn accept(&mut self, token: u32);
    /// The output so far is complete, though it may go on.
    fn is_accepting(&self) -> bool;
    /// Goes on by text that is forced, if any is. The tokens returned take the place of `last`, which was just
    /// accepted: they spell it and the forced text. At the start of the output there is no last one.
    fn jump(&mut self, _last: Option<u32>) -> Option<Vec<u32>> {
        None
    }
    /// Output may be taken back: none of it is final before the end.
    fn may_take_back(&self) -> bool {
        false
    }
    /// Where nothing is allowed since finished output is wrong, goes back to before what is wrong and returns how many
    /// tokens of the output stay. `None` where another try would be in vain.
    fn take_back(&mut self) -> Option<usize> {
        None
    }
}

/// What may come next.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Bit `t % 32` of word `t / 32` is token `t`. End tokens are allowed exactly where the output is complete.
    pub mask: Arc<[u32]>,
    /// Nothing but an end may come.
    pub only_end: bool,
}

/// Of the text of a constraint.
const MAX_TEXT_BYTES: usize = 256 << 10;
/// Compiled constraints that are kept for the next request that has the same.
const MAX_KEPT: usize = 32;

/// Compiles constraints for one tokenizer and keeps the latest.
pub struct Grammars {
    tokenizer: Arc<Tokenizer>,
    vocabulary: OnceCell<Arc<Vocabulary>>,
    parsers: OnceCell<Result<Parsers, String>>,
    /// The least recently used first.
    kept: VecDeque<(Constraint, Compiled)>,
}

/// A constraint at the start of a text.
enum Compiled {
    Regex(Arc<Regex>),
    Parser(Arc<Parser>),
    Checked(Arc<Parser>, Arc<Check>),
}

impl Compiled {
    fn start(&self) -> Box<dyn Grammar> {
        match self {
            Compiled::Regex(regex) => Box::new(Matching::new(regex.clone())),
            Compiled::Parser(parser) => Box::new(parser.start()),
            Compiled::Checked(parser, check) => Box::new(Checked::new(parser.clone(), check.clone())),
        }
    }
}

impl Grammars {
    /// For a tokenizer, with nothing compiled.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Grammars { tokenizer, vocabulary: OnceCell::new(), parsers: OnceCell::new(), kept: VecDeque::new() }
    }

    /// The grammar of a constraint, at its start. An error names what is not supported and where.
    pub fn start(&mut self, constraint: &Constraint) -> Result<Box<dyn Grammar>, Error> {
        let found = self.kept.iter().position(|(kept, _)| kept == constraint);
        let entry = match found.and_then(|at| self.kept.remove(at)) {
            Some(entry) => entry,
            None => (constraint.clone(), self.compile(constraint)?),
        };
        let grammar = entry.1.start();
        if self.kept.len() >= MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(entry);
        Ok(grammar)
    }

    fn compile(&self, constraint: &Constraint) -> Result<Compiled, Error> {
        let n_bytes = constraint.text().len();
        if n_bytes > MAX_TEXT_BYTES {
            return Err(constraint.error(format!("too large: {n_bytes} bytes, at most {MAX_TEXT_BYTES} are possible")));
        }
        match constraint {
            Constraint::Regex(pattern) => {
                let tree = dialect::parse(pattern).map_err(|flaw| constraint.flaw(flaw))?;
                self.regex(constraint, &tree)
            }
            Constraint::JsonSchema(text) => {
                let compiled = self.parsers().and_then(|parsers| schema::compile(text, parsers));
                compiled.map_err(|reason| constraint.error(reason))
            }
            Constraint::Ebnf(text) if text.contains("::=") => {
                match ebnf::parse(text).map_err(|flaw| constraint.flaw(flaw))? {
                    Language::Regular(tree) => self.regex(constraint, &tree),
                    Language::Recursive(lark) => self.lark(constraint, &lark),
                }
            }
            Constraint::Ebnf(text) | Constraint::Lark(text) => self.lark(constraint, text),
            Constraint::StructuralTag(text) => {
                let parser = self.parsers().and_then(|parsers| tags::compile(text, parsers));
                Ok(Compiled::Parser(Arc::new(parser.map_err(|reason| constraint.error(reason))?)))
            }
        }
    }

    fn regex(&self, constraint: &Constraint, tree: &Hir) -> Result<Compiled, Error> {
        let regex = Regex::new(tree, self.vocabulary().clone()).map_err(|reason| constraint.error(reason))?;
        Ok(Compiled::Regex(Arc::new(regex)))
    }

    fn lark(&self, constraint: &Constraint, grammar: &str) -> Result<Compiled, Error> {
        let parser = self.parsers().and_then(|parsers| parsers.lark(constraint.param(), grammar));
        let parser = parser.map_err(|reason| constraint.error(reason))?;
        Ok(Compiled::Parser(Arc::new(parser)))
    }

    fn vocabulary(&self) -> &Arc<Vocabulary> {
        self.vocabulary.get_or_init(|| Arc::new(Vocabulary::new(self.tokenizer.clone())))
    }

    fn parsers(&self) -> Result<&Parsers, String> {
        let parsers = self.parsers.get_or_init(|| Parsers::new(self.vocabulary()));
        parsers.as_ref().map_err(String::clone)
    }
}

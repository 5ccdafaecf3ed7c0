//! Constrained decoding. A [`Grammar`] tells which tokens may come next; the law is that it never allows a token
//! after which the output could not be completed.

use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// What the output of a request must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// The whole output matches a regular expression.
    Regex(String),
    /// The output is a JSON value that satisfies the schema (JSON text).
    JsonSchema(String),
    /// The output is derived from an EBNF grammar.
    Ebnf(String),
}

/// Makes the grammar of a constraint; an error names what is not supported and where.
pub fn compile(constraint: &Constraint, _tokenizer: &Tokenizer) -> Result<Box<dyn Grammar>> {
    let param = match constraint {
        Constraint::Regex(_) => "sampling_params.regex",
        Constraint::JsonSchema(_) => "sampling_params.json_schema",
        Constraint::Ebnf(_) => "sampling_params.ebnf",
    };
    Err(Error::bad(param, format!("{param}: constrained decoding is not supported yet")))
}

/// The state of a constraint for one sequence.
pub trait Grammar: Send {
    /// Writes the tokens that may come next: bit `t % 32` of word `t / 32`. EOS bits are the caller's to set when
    /// [`Grammar::is_accepting`].
    fn allowed(&mut self, mask: &mut [u32]);
    /// Goes on by a token that was allowed.
    fn accept(&mut self, token: u32);
    /// The output so far is complete, though it may go on.
    fn is_accepting(&self) -> bool;
}

//! Values that are checked when they are complete, for what cannot be enforced token by token.
//!
//! Law: no output ends as complete whose value does not satisfy its schema.

use super::endless::endless;
use super::parsing::{large_stack, with_large_stack};
use super::vocabulary::Vocabulary;
use super::{Allowed, Grammar};
use crate::error::Error;
use jsonschema::Validator;
use serde_json::Value;
use std::sync::mpsc::channel;
use std::sync::Arc;
use std::time::Duration;

/// A value that takes longer to check fails: schemas exist for which it would take forever.
const MAX_TIME: Duration = Duration::from_secs(1);

const UNCHECKED: &str =
    "a schema that refers to itself for the same value, or to another by its name, cannot be checked";

/// What a finished JSON text must satisfy.
pub struct Check {
    validator: Arc<Validator>,
    vocabulary: Arc<Vocabulary>,
    param: &'static str,
}

impl Check {
    /// By a schema. An error is a sentence without its end, here and below.
    pub fn new(schema: &Value, vocabulary: Arc<Vocabulary>, param: &'static str) -> Result<Self, String> {
        let build = || match endless(schema) {
            Some(at) => Err(format!("at \"{at}\": {UNCHECKED}")),
            None => {
                let validator = jsonschema::options().should_validate_formats(true).build(schema);
                validator.map_err(|e| format!("at \"{}\": {e}", e.instance_path))
            }
        };
        let validator = with_large_stack(build)?;
        Ok(Check { validator: Arc::new(validator?), vocabulary, param })
    }

    /// What is wrong with a text.
    fn flaw(&self, text: &[u8]) -> Option<String> {
        let value: Value = match serde_json::from_slice(text) {
            Ok(value) => value,
            Err(e) => return Some(format!("not JSON: {e}")),
        };
        let validator = self.validator.clone();
        let validate = move || match validator.validate(&value) {
            Ok(()) => None,
            Err(e) => Some(format!("its part at \"{}\" breaks the schema at \"{}\"", e.instance_path, e.schema_path)),
        };
        let (send, receive) = channel();
        // Nobody listens any more where it took too long.
        let spawned = large_stack().spawn(move || drop(send.send(validate())));
        match spawned.map(|_thread| receive.recv_timeout(MAX_TIME)) {
            Ok(Ok(flaw)) => flaw,
            _ => Some("it could not be checked within a second".into()),
        }
    }
}

/// The state of a constraint that is looser than its schema.
pub struct Checked {
    inner: Box<dyn Grammar>,
    check: Arc<Check>,
    text: Vec<u8>,
    /// What is wrong with the text, where the inner constraint calls it complete.
    flaw: Option<String>,
}

impl Checked {
    /// At the start of a text.
    pub fn new(inner: Box<dyn Grammar>, check: Arc<Check>) -> Self {
        let mut checked = Checked { inner, check, text: Vec::new(), flaw: None };
        checked.go_on(&[]);
        checked
    }

    fn go_on(&mut self, tokens: &[u32]) {
        let bytes = tokens.iter().flat_map(|&token| self.check.vocabulary.bytes(token));
        self.text.extend(bytes);
        self.flaw = if self.inner.is_accepting() { self.check.flaw(&self.text) } else { None };
    }
}

impl Grammar for Checked {
    fn allowed(&mut self) -> Result<Allowed, Error> {
        let allowed = self.inner.allowed()?;
        let Some(flaw) = &self.flaw else { return Ok(allowed) };
        if allowed.only_end {
            let param = self.check.param;
            return Err(Error::bad(
                param,
                format!("{param}: the model ended a value that does not satisfy it: {flaw}"),
            ));
        }
        let mut mask = allowed.mask.to_vec();
        self.check.vocabulary.forbid_end(&mut mask);
        Ok(Allowed { mask: mask.into(), only_end: false })
    }

    fn accept(&mut self, token: u32) {
        self.inner.accept(token);
        self.go_on(&[token]);
    }

    fn is_accepting(&self) -> bool {
        self.inner.is_accepting() && self.flaw.is_none()
    }

    fn jump(&mut self, last: u32) -> Option<Vec<u32>> {
        let tokens = self.inner.jump(last)?;
        self.text.truncate(self.text.len() - self.check.vocabulary.bytes(last).len());
        self.go_on(&tokens);
        Some(tokens)
    }
}

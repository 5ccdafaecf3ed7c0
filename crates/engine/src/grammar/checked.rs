//! Values that are checked when they are complete, for what cannot be enforced token by token. A part that is wrong is
//! taken back and written again.
//!
//! Laws: no output ends as complete whose value does not satisfy its schema; a value is written at most
//! [`MAX_TAKEN_BACK`] times more, and no more once a check took longer than [`MAX_TIME`].

use super::deadline::{self, Deadline};
use super::endless::endless;
use super::parsing::{Parser, Parsing};
use super::parts::{place, repeats_key};
use super::schema::FORMATS;
use super::stack::{on_large_stack, spawn_large};
use super::vocabulary::Vocabulary;
use super::{Allowed, Grammar};
use crate::error::Error;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, Registry, Validator};
use serde_json::{json, Value};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A value that takes longer to check fails: schemas exist for which it would take forever.
const MAX_TIME: Duration = Duration::from_secs(1);

/// By turns from where the part begins that is wrong, and from the start: what stands before the part may leave it no
/// right value.
const MAX_TAKEN_BACK: usize = 8;

/// A format means the same in all drafts.
static FORMAT_CHECKS: LazyLock<Vec<(&str, Arc<Validator>)>> = LazyLock::new(|| {
    let build = |name| jsonschema::options().should_validate_formats(true).build(&json!({ "format": name })).ok();
    FORMATS.into_iter().filter_map(|name| Some((name, Arc::new(build(name)?)))).collect()
});

/// What a finished JSON text must satisfy: its schema, and that no object has a key twice.
pub struct Check {
    schema: Arc<Value>,
    /// It grows by the ways that checks take. `None` where one took too long: the next check builds it anew.
    validator: Mutex<Option<Validator>>,
    vocabulary: Arc<Vocabulary>,
    param: &'static str,
}

impl Check {
    /// By a schema. An error is a sentence without its end, here and below.
    pub fn new(schema: &Value, vocabulary: Arc<Vocabulary>, param: &'static str) -> Result<Self, String> {
        let mut schema = sorted(schema);
        let build = move || match endless(&schema) {
            Some(reason) => Err(reason),
            None => {
                deadline::watch(&mut schema);
                Ok((validator(&schema)?, schema))
            }
        };
        let (validator, schema) = on_large_stack(build)??;
        Ok(Check { schema: Arc::new(schema), validator: Mutex::new(Some(validator)), vocabulary, param })
    }

    /// What is wrong with a text.
    fn flaw(&self, text: &[u8]) -> Option<Flaw> {
        let text = String::from_utf8_lossy(text);
        let value: Value = match serde_json::from_str(&text) {
            Ok(value) => sorted(&value),
            Err(e) => return Some(Flaw { at: Some(0), reason: format!("not JSON: {e}") }),
        };
        if repeats_key(&text) {
            return Some(Flaw { at: Some(0), reason: "an object has a key twice".into() });
        }
        match self.broken(value) {
            Some(broken) => broken.map(|(part, keyword)| Flaw {
                at: Some(place(&text, &part).unwrap_or(0)),
                reason: format!("its part at \"{part}\" breaks the schema at \"{keyword}\""),
            }),
            None => Some(Flaw { at: None, reason: "it could not be checked within a second".into() }),
        }
    }

    /// The part of a value that breaks the schema and the keyword that it breaks, if any does. `None` where that takes
    /// too long to tell.
    fn broken(&self, value: Value) -> Option<Option<(String, String)>> {
        let (kept, schema) = (self.kept().take(), self.schema.clone());
        let (send, receive) = channel();
        let check = move || {
            deadline::set(MAX_TIME);
            let Some(validator) = kept.or_else(|| validator(&schema).ok()) else { return };
            let broken = validator.validate(&value).err();
            let broken = broken.map(|e| (e.instance_path.to_string(), within(e.schema_path.as_str()).to_owned()));
            // Nobody listens any more where it took too long.
            drop(send.send((broken, validator)));
        };
        spawn_large("sglang-grammar", check).ok()?;
        let (broken, validator) = receive.recv_timeout(MAX_TIME).ok()?;
        *self.kept() = Some(validator);
        Some(broken)
    }

    fn kept(&self) -> MutexGuard<'_, Option<Validator>> {
        self.validator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a schema that is not [`malformed`](super::malformed).
///
/// The crate validates what it is given by the specification's own schemas, which takes longer than all else. So it is
/// given a reference, and the schema lies beside it.
fn validator(schema: &Value) -> Result<Validator, String> {
    const NAME: &str = "sglang:///schema";
    let draft = Draft::default().detect(schema).map_err(|e| e.to_string())?;
    let registry = Registry::options().draft(draft).build([(NAME, draft.create_resource(schema.clone()))]);
    let registry = registry.map_err(|e| e.to_string())?;
    let found = registry.try_resolver(NAME).and_then(|resolver| Ok(resolver.lookup(NAME)?.contents() == schema));
    if !found.unwrap_or(false) {
        return Err("at \"\": a part of the schema bears the name of the whole".into());
    }
    let options = jsonschema::options().with_draft(draft).with_registry(registry).should_validate_formats(true);
    #[allow(clippy::result_large_err, reason = "the crate asks for its own error")]
    let options = options.with_keyword(deadline::KEYWORD, |_, _, _| Ok(Box::new(Deadline)));
    let options = FORMAT_CHECKS.iter().fold(options, |options, (name, check)| {
        let check = check.clone();
        options.with_format(*name, move |text| check.is_valid(&Value::from(text)) && is_plain(name, text))
    });
    options.build(&json!({ "$ref": NAME })).map_err(|e| {
        // Of a pattern the crate names the schema only.
        let is_pattern = matches!(e.kind, ValidationErrorKind::Format { .. }) && e.instance.is_string();
        let keyword = if is_pattern { "/pattern" } else { "" };
        format!("at \"{}{keyword}\": {e}", within(e.instance_path.as_str()))
    })
}

/// A place in the schema, of one seen from the reference to it.
fn within(place: &str) -> &str {
    place.strip_prefix("/$ref").unwrap_or(place)
}

/// What the checks of formats let through: names in the form for machines, and groups that only other languages have.
fn is_plain(format: &str, text: &str) -> bool {
    let is_encoded = |label: &str| label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    match format {
        "hostname" | "idn-hostname" => !text.split('.').any(is_encoded),
        "regex" => text.split("(?").skip(1).all(|group| group.starts_with([':', '=', '!', '<'])),
        _ => true,
    }
}

/// The same value with its keys in order: the validator takes objects for different whose keys are ordered differently.
fn sorted(value: &Value) -> Value {
    let mut value = value.clone();
    value.sort_all_objects();
    value
}

/// What is wrong with a text.
struct Flaw {
    /// Byte at which the part begins that is wrong. `None` where that took too long to find out: it would again.
    at: Option<usize>,
    reason: String,
}

/// The state of a constraint that is looser than its schema.
pub struct Checked {
    start: Arc<Parser>,
    inner: Parsing,
    check: Arc<Check>,
    tokens: Vec<u32>,
    text: Vec<u8>,
    /// What is wrong with the text, where the inner constraint calls it complete.
    flaw: Option<Flaw>,
    n_taken_back: usize,
}

impl Checked {
    /// At the start of a text.
    pub fn new(start: Arc<Parser>, check: Arc<Check>) -> Self {
        let inner = start.start();
        Checked { start, inner, check, tokens: Vec::new(), text: Vec::new(), flaw: None, n_taken_back: 0 }
    }

    fn go_on(&mut self, tokens: &[u32]) {
        self.tokens.extend(tokens);
        self.text.extend(tokens.iter().flat_map(|&token| self.check.vocabulary.bytes(token)));
        self.flaw = if self.inner.is_accepting() { self.check.flaw(&self.text) } else { None };
    }

    /// How many tokens lie before a byte of the text.
    fn tokens_before(&self, byte: usize) -> usize {
        let mut end = 0;
        let ends = self.tokens.iter().map(|&token| {
            end += self.check.vocabulary.bytes(token).len();
            end
        });
        ends.take_while(|&end| end <= byte).count()
    }
}

impl Grammar for Checked {
    fn allowed(&mut self) -> Result<Allowed, Error> {
        let allowed = self.inner.allowed()?;
        let Some(Flaw { at, reason }) = &self.flaw else { return Ok(allowed) };
        if allowed.only_end || at.is_none() {
            let param = self.check.param;
            return Err(Error::bad(
                param,
                format!("{param}: the model ended a value that does not satisfy it: {reason}"),
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

    fn jump(&mut self, last: Option<u32>) -> Option<Vec<u32>> {
        let tokens = self.inner.jump(last)?;
        if let Some(last) = last {
            self.tokens.pop();
            self.text.truncate(self.text.len() - self.check.vocabulary.bytes(last).len());
        }
        self.go_on(&tokens);
        Some(tokens)
    }

    fn may_take_back(&self) -> bool {
        true
    }

    fn take_back(&mut self) -> Option<usize> {
        let at = self.flaw.take().filter(|_| self.n_taken_back < MAX_TAKEN_BACK)?.at?;
        let n_kept = if self.n_taken_back.is_multiple_of(2) { self.tokens_before(at) } else { 0 };
        self.n_taken_back += 1;
        let mut kept = std::mem::take(&mut self.tokens);
        kept.truncate(n_kept);
        self.text.clear();
        self.inner = self.start.start();
        kept.iter().for_each(|&token| self.inner.accept(token));
        self.go_on(&kept);
        Some(n_kept)
    }
}

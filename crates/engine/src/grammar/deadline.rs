//! An end to checks that take too long: a keyword of every part of a schema looks at the clock.
//!
//! Law: a thread whose time has passed ends at the next part that it comes to. So no work that is given up goes on.

use super::schema::subschemas;
use jsonschema::error::ValidationError;
use jsonschema::paths::LazyLocation;
use jsonschema::Keyword;
use serde_json::Value;
use std::cell::Cell;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

/// The keyword's name.
pub const KEYWORD: &str = "x-sglang-deadline";

thread_local! {
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Ends this thread's checks when the time has passed.
pub fn set(time: Duration) {
    DEADLINE.set(Some(Instant::now() + time));
}

/// Puts the keyword into a schema and all within it. It comes first, since what follows a keyword that fails is passed
/// over.
pub fn watch(schema: &mut Value) {
    if let Some(keywords) = schema.as_object_mut() {
        keywords.shift_insert(0, KEYWORD.into(), Value::Bool(true));
    }
    subschemas(schema).into_iter().for_each(|(_, part)| watch(part));
}

/// Holds for any value, in time.
pub struct Deadline;

impl Keyword for Deadline {
    fn validate<'i>(&self, value: &'i Value, _place: &LazyLocation) -> Result<(), ValidationError<'i>> {
        self.is_valid(value);
        Ok(())
    }

    fn is_valid(&self, _value: &Value) -> bool {
        if DEADLINE.get().is_some_and(|deadline| Instant::now() > deadline) {
            // Without the message of a panic: that a check takes too long is no fault of the program.
            resume_unwind(Box::new("the check took too long"));
        }
        true
    }
}

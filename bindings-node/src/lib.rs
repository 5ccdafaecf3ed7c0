//! The addon: translates between JavaScript and the engine. Law: no policy, no defaults, no panic crosses into Node.

#![allow(missing_docs)] // The generated type declarations are the documentation of this crate's surface.

mod engine;
mod types;

use sglang_engine::{error::panic_message, Error};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Runs `body`; a panic becomes a JavaScript error.
fn guarded<T>(body: impl FnOnce() -> Result<T, Error>) -> napi::Result<T> {
    let result = catch_unwind(AssertUnwindSafe(body));
    let failed = |panic: Box<dyn std::any::Any + Send>| Err(Error::Closed(panic_message(&*panic)));
    result.unwrap_or_else(failed).map_err(|error| napi::Error::from_reason(error.to_string()))
}

//! The addon: translates between JavaScript and the engine. Law: no policy, no defaults, no panic crosses into Node.

#![allow(missing_docs)] // The generated type declarations are the documentation of this crate's surface.

mod engine;
mod types;

use std::panic::{catch_unwind, AssertUnwindSafe};

/// Runs `body`; a panic becomes a JavaScript error.
fn guarded<T>(body: impl FnOnce() -> Result<T, sglang_engine::Error>) -> napi::Result<T> {
    let result = catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        napi::Error::from_reason(format!("internal error: {}", text.unwrap_or("panic without a message")))
    })?;
    result.map_err(|error| napi::Error::from_reason(error.to_string()))
}

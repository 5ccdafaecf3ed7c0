//! Every error a user of the engine can meet: each says what was wrong, where, and what would be right.

use sglang_kernels::device::DeviceError;

/// Result of fallible engine calls.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be served as it is; `param` names the offending field where there is one.
    #[error("{message}")]
    BadRequest {
        /// The field, in the spelling of the native API, e.g. `sampling_params.top_p`.
        param: Option<&'static str>,
        /// What is wrong and what would be right.
        message: String,
    },
    /// Prompt plus output do not fit the context.
    #[error("{0}")]
    ContextLength(String),
    /// The queue is full; try later.
    #[error("{0}")]
    Overloaded(String),
    /// Model files are missing, unreadable or of an unknown kind.
    #[error("{0}")]
    Load(String),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The engine was closed or its loop failed.
    #[error("{0}")]
    Closed(String),
}

impl Error {
    /// A [`Error::BadRequest`] about one field.
    pub fn bad(param: &'static str, message: impl Into<String>) -> Self {
        Error::BadRequest { param: Some(param), message: message.into() }
    }

    /// A [`Error::Load`].
    pub fn load(message: impl Into<String>) -> Self {
        Error::Load(message.into())
    }

    /// Stable machine-readable name, the `code` of API errors.
    pub fn code(&self) -> &'static str {
        match self {
            Error::BadRequest { .. } => "bad_request",
            Error::ContextLength(_) => "context_length_exceeded",
            Error::Overloaded(_) => "overloaded",
            Error::Load(_) => "load_failed",
            Error::Device(_) => "device_error",
            Error::Closed(_) => "engine_closed",
        }
    }
}

/// The text of a caught panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic without a message").into()
}

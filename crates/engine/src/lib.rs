//! Request to tokens. The path of one token is in ARCHITECTURE.md.

pub mod error;
pub mod model;
pub mod text;
pub mod weights;

pub use error::{Error, Result};

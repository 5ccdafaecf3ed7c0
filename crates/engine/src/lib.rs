//! From a request to its tokens. The path of one token:
//!
//! 1. [`engine::Engine::submit`] hands a [`request::Request`] to the front thread ([`front`]), which checks it,
//!    encodes its text ([`text`]) and compiles its constraint ([`grammar`]).
//! 2. The loop thread ([`engine`]) queues it as a [`sequence::Sequence`]; the [`scheduler`] admits it: the prefix
//!    cache (`sglang_radix`) matches its prompt and leases pages.
//! 3. Each step, [`scheduler::Scheduler::schedule`] picks rows of all running sequences: a [`batch::Batch`].
//! 4. A [`runner::Runner`] computes it: [`model::decoder`] on a device of `sglang_kernels`. Sampling is part of it.
//! 5. [`scheduler::Scheduler::commit`] takes the tokens, puts what was computed into the cache, finds stops, and
//!    returns [`request::Event`]s, which go out once per step.

pub mod batch;
pub mod comm;
pub mod engine;
pub mod error;
mod front;
pub mod grammar;
pub mod image;
pub mod loader;
pub mod model;
pub mod parallel;
pub mod request;
pub mod runner;
pub mod scheduler;
pub mod sequence;
pub mod text;
pub mod weights;

pub use engine::Engine;
pub use error::{Error, Result};
pub use sglang_radix::PAGE;

//! What a model is: its sizes ([`config`]) and its computation.

pub mod config;

//! What a model is: its sizes ([`config`]), how its weights reach a device ([`assemble`]), its computation ([`decoder`]).

pub mod assemble;
pub mod config;
pub mod decoder;
pub mod feed_forward;
pub mod shard;
pub mod vision;

//! One vocabulary of transformer ops over buffers and shapes, and the processors that run it.
//!
//! The law: this crate knows no requests, models or files. [`device::Device`] is the vocabulary, [`reference`] its
//! specification in plain loops, [`cpu`] the fast version of the same arithmetic. An output row depends on its own
//! inputs only, bit for bit.

pub mod block;
pub mod cpu;
pub mod device;
pub mod dtype;
mod kv_format;
pub mod quantize;
pub mod reference;
mod shape;

pub use cpu::{Cpu, Level};
pub use device::{Device, DeviceError, Result};
pub use dtype::{dequantize, DType};
pub use reference::Reference;

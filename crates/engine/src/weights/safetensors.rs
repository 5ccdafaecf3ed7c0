//! One safetensors file. Law: a tensor that goes out lies inside the file; the header is checked when it is opened.

use super::map;
use super::shards::Kind;
use super::stored::{Entry, Format, Stored};
use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use sglang_kernels::dtype::DType;
use std::path::Path;

/// Checkpoints of such files.
pub const SAFETENSORS: Kind = Kind {
    ending: ".safetensors",
    usual: "model.safetensors",
    index: "model.safetensors.index.json",
    open: |path| Ok(Box::new(open(path)?)),
};

/// Bytes before the header: its length.
const LENGTH: usize = 8;

fn open(path: &Path) -> Result<Stored> {
    let invalid = |e| Error::load(format!("{}: not a valid safetensors file: {e}", path.display()));
    let (header, metadata) = SafeTensors::read_metadata(&map(path)?).map_err(invalid)?;
    let start = LENGTH + header;
    let tensors = metadata.tensors().into_iter().map(|(name, tensor)| {
        let (from, end) = tensor.data_offsets;
        let entry =
            Entry { format: format(tensor.dtype), shape: tensor.shape.clone(), range: start + from..start + end };
        (name, entry)
    });
    Ok(Stored::new(path, tensors.collect()))
}

fn format(dtype: Dtype) -> Format {
    match dtype {
        Dtype::F32 => Format::Numbers(DType::F32),
        Dtype::F16 => Format::Numbers(DType::F16),
        Dtype::BF16 => Format::Numbers(DType::BF16),
        other => Format::Other(other.to_string()),
    }
}

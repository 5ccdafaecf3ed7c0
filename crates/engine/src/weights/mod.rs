//! Model files: where tensors come from, and what their files say about the model.
//!
//! Law: nothing is computed here. Bytes go out as the file stores them, under the names and in
//! the row order of Hugging Face checkpoints; every offset is checked against its file before it is used.

mod gguf;
mod gguf_header;
pub(crate) mod llava;
mod metadata;
mod mmproj;
mod open;
mod packed;
mod pickle;
mod safetensors;
mod shards;
mod stored;
mod zip;

pub use gguf::Gguf;
pub use metadata::{Metadata, Value};
pub use open::{open, open_with, Description, ModelFiles};

use crate::{Error, Result};
use sglang_kernels::dtype::DType;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// One tensor of a model file.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Canonical name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Element or block format of `bytes`.
    pub dtype: DType,
    /// Sizes, outermost first: a linear layer is `[out, in]`.
    pub shape: Vec<usize>,
    /// Row-major content, exactly as long as shape and format say.
    pub bytes: Bytes,
    /// The file, for messages.
    pub file: &'a Path,
}

/// Content of a tensor: a part of a file, or made of one. A map is given back as a whole when it is dropped, while memory
/// that was allocated for so many sizes would stay with the process (an eighth of the size of the model).
#[derive(Debug, Clone)]
pub enum Bytes {
    /// A part of a file.
    Stored(Arc<memmap2::Mmap>),
    /// Made of what is stored.
    Made(Vec<u8>),
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Stored(map) => map,
            Bytes::Made(bytes) => bytes,
        }
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Tensor<'_> {
    /// Only these columns of a matrix, which are whole blocks.
    pub fn columns(mut self, columns: Range<usize>) -> Result<Self> {
        if columns.len() == self.shape[1] {
            return Ok(self);
        }
        if [columns.start, columns.end].iter().any(|column| !column.is_multiple_of(self.dtype.block_len())) {
            let (name, dtype) = (&self.name, self.dtype);
            return Err(Error::load(format!("tensor {name}: columns {columns:?} are not whole blocks of {dtype}")));
        }
        let row = self.dtype.row_bytes(self.shape[1]);
        let place = self.dtype.row_bytes(columns.start)..self.dtype.row_bytes(columns.end);
        let cut: Vec<u8> = self.bytes.chunks_exact(row).flat_map(|row| &row[place.clone()]).copied().collect();
        (self.shape[1], self.bytes) = (columns.len(), Bytes::Made(cut));
        Ok(self)
    }

    /// Stores the values in another format: f32, or one of those that can be written.
    pub fn convert(&mut self, dtype: DType) -> Result<()> {
        if dtype == self.dtype {
            return Ok(());
        }
        let values = self.to_f32();
        let bytes = match dtype {
            DType::F32 => values.into_iter().flat_map(f32::to_le_bytes).collect(),
            _ => sglang_kernels::quantize::quantize(dtype, &values)?,
        };
        (self.dtype, self.bytes) = (dtype, Bytes::Made(bytes));
        Ok(())
    }

    /// The values as f32, in order.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.shape.iter().product()];
        let read = sglang_kernels::dtype::dequantize(self.dtype, &self.bytes, &mut values);
        read.expect("a source checks that the bytes are those of the shape");
        values
    }
}

fn expect_shape(file: &Path, name: &str, found: &[usize], wanted: &[usize]) -> Result<()> {
    if found == wanted {
        return Ok(());
    }
    let file = file.display();
    Err(Error::load(format!("{file}: tensor {name} has shape {found:?}; the configuration asks for {wanted:?}")))
}

/// A tensor of 32-bit words, each of which packs several numbers.
pub struct Words {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub words: Vec<u32>,
}

/// A set of named tensors.
pub trait Source: Send + Sync {
    /// The tensor of this canonical name; an error that names the files if there is none, or if its format is not
    /// one of [`DType`].
    fn tensor(&self, name: &str) -> Result<Tensor<'_>>;
    /// Some rows of the tensor, which must be of this shape; no other rows are read.
    fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor<'_>>;
    /// The format of the tensor, or one whose blocks are as long.
    fn dtype(&self, name: &str) -> Result<DType>;
    /// The tensor of this name, of 32-bit integers.
    fn words(&self, name: &str) -> Result<Words>;
    /// Whether there is such a tensor.
    fn has(&self, name: &str) -> bool;
    /// All canonical names, sorted.
    fn names(&self) -> Vec<String>;
    /// Total size of the tensors in bytes, as stored.
    fn bytes(&self) -> u64;
}

/// Maps a file for reading.
fn map(path: &Path) -> Result<memmap2::Mmap> {
    map_with(path, &memmap2::MmapOptions::new())
        .map_err(|e| Error::load(format!("{}: cannot be read: {e}", path.display())))
}

fn map_with(path: &Path, options: &memmap2::MmapOptions) -> std::io::Result<memmap2::Mmap> {
    let file = std::fs::File::open(path)?;
    // SAFETY: the map is read-only and private to this process; like every map it relies on nobody shortening the
    // file while the model is loaded.
    unsafe { options.map(&file) }
}

/// Reads a small JSON file.
pub(crate) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = std::fs::read(path).map_err(|e| Error::load(format!("{}: cannot be read: {e}", path.display())))?;
    serde_json::from_slice(&text).map_err(|e| Error::load(format!("{}: not valid JSON: {e}", path.display())))
}

//! A file of tensors whose places are known, as a [`Source`].
//!
//! Laws: a place lies inside the file. A tensor is mapped when it is asked for, for as long as it is used, and no other rows
//! than those: pages of a map count as memory of the process beside what the device makes of them, so that with a map of
//! the whole file a model would take twice its size while it is loaded. A row is whole blocks, so a vector, whose rows are
//! single values, is of floats. Convolutions go out as matrices. Where the file stores the q and k rows of a head as pairs
//! (0, S/2), (1, S/2 + 1), … next to each other, they go out as the first halves, then the second halves, as checkpoints
//! have them; whole rows move, so that block formats stay as they are.

use super::{expect_shape, map_with, Bytes, Source, Tensor, Words};
use crate::{Error, Result};
use sglang_kernels::dtype::DType;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file whose list of tensors was read.
pub struct Stored {
    file: PathBuf,
    /// By canonical name.
    tensors: BTreeMap<String, Entry>,
    /// Query and key/value heads, where their rows are stored as pairs.
    paired: Option<[usize; 2]>,
}

/// One tensor of the file.
pub struct Entry {
    pub format: Format,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Bytes of the file.
    pub range: Range<usize>,
}

/// What a tensor is made of.
#[derive(Clone)]
pub enum Format {
    Numbers(DType),
    /// Something else, by the name that the file gives it.
    Other(String),
}

/// 32-bit integers in safetensors files.
const INTEGERS: &str = "I32";

impl Stored {
    pub fn new(file: &Path, tensors: BTreeMap<String, Entry>) -> Self {
        let mut stored = Stored { file: file.to_owned(), tensors, paired: None };
        for entry in stored.tensors.values_mut().filter(|entry| entry.shape.len() == 4) {
            entry.shape = vec![entry.shape[0], entry.shape[1..].iter().product()];
        }
        stored
    }

    /// The same, with the rows of so many query and key/value heads stored as pairs.
    pub fn with_pairs(self, paired: Option<[usize; 2]>) -> Self {
        Stored { paired, ..self }
    }

    /// Query and key/value heads whose rows are stored as pairs.
    pub fn paired(&self) -> Option<[usize; 2]> {
        self.paired
    }

    fn wrong(&self, name: &str, what: impl std::fmt::Display) -> Error {
        Error::load(format!("{}: tensor {name} {what}", self.file.display()))
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let missing = || Error::load(format!("{}: no tensor {name}", self.file.display()));
        self.tensors.get(name).ok_or_else(missing)
    }

    /// A tensor with some bytes of its rows; where rows are stored as pairs, those of whole heads.
    fn filled(&self, name: &str, entry: &Entry, range: Range<usize>) -> Result<Tensor<'_>> {
        let dtype = self.dtype(name)?;
        if entry.shape.len() < 2 && !dtype.is_float() {
            return Err(self.wrong(name, format_args!("is a vector of {dtype} blocks; a vector must be of floats")));
        }
        let stored = self.read(name, &range)?;
        let (rows, row) = match entry.shape[..] {
            [] => (1, entry.range.len()),
            [rows, ..] => (rows, entry.range.len() / rows.max(1)),
        };
        let bytes = match self.paired_heads(name) {
            None => stored,
            Some(heads) => split_pairs(&stored, row, rows, heads)
                .map(Bytes::Made)
                .ok_or_else(|| self.wrong(name, format_args!("has {rows} rows: not {heads} heads of an even size")))?,
        };
        let mut shape = entry.shape.clone();
        if let Some(rows) = shape.first_mut().filter(|_| row > 0) {
            *rows = range.len() / row;
        }
        Ok(Tensor { name: name.to_owned(), dtype, shape, bytes, file: &self.file })
    }

    /// Some bytes of the file.
    fn read(&self, name: &str, range: &Range<usize>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::Made(Vec::new()));
        }
        let options = memmap2::MmapOptions::new().offset(range.start as u64).len(range.len()).clone();
        let map = map_with(&self.file, &options).map_err(|e| self.wrong(name, format_args!("cannot be read: {e}")))?;
        Ok(Bytes::Stored(Arc::new(map)))
    }

    /// Heads of a tensor whose rows are stored as pairs.
    fn paired_heads(&self, name: &str) -> Option<usize> {
        let [query, key] = self.paired?;
        let name = name.strip_suffix(".weight").or(name.strip_suffix(".bias"))?;
        match name.rsplit('.').next() {
            Some("q_proj") => Some(query),
            Some("k_proj") => Some(key),
            _ => None,
        }
    }
}

impl Source for Stored {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let entry = self.entry(name)?;
        self.filled(name, entry, entry.range.clone())
    }

    fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor<'_>> {
        let entry = self.entry(name)?;
        expect_shape(&self.file, name, &entry.shape, shape)?;
        let (start, row) = (entry.range.start, entry.range.len() / shape[0].max(1));
        self.filled(name, entry, start + rows.start * row..start + rows.end * row)
    }

    fn dtype(&self, name: &str) -> Result<DType> {
        match &self.entry(name)?.format {
            Format::Numbers(dtype) => Ok(*dtype),
            Format::Other(format) => {
                Err(self.wrong(name, format_args!("has format {format}; supported are floats of 16 and 32 bits")))
            }
        }
    }

    fn words(&self, name: &str) -> Result<Words> {
        let Entry { format, shape, range } = self.entry(name)?;
        match format {
            Format::Other(format) if format == INTEGERS => {
                let bytes = self.read(name, range)?;
                let words = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                Ok(Words { shape: shape.clone(), words: words.collect() })
            }
            Format::Other(format) => Err(self.wrong(name, format_args!("has format {format}; expected {INTEGERS}"))),
            Format::Numbers(dtype) => Err(self.wrong(name, format_args!("has format {dtype}; expected {INTEGERS}"))),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.range.len() as u64).sum()
    }
}

/// Moves row `2j + p` of each head to `p · S/2 + j`, in rows of `row` bytes; `None` where `rows` are not `heads` heads of
/// an even size, or what is stored is not whole heads.
fn split_pairs(stored: &[u8], row: usize, rows: usize, heads: usize) -> Option<Vec<u8>> {
    let halves = heads.checked_mul(2).filter(|&halves| halves > 0)?;
    let half = rows / halves;
    if !rows.is_multiple_of(halves) || !stored.len().is_multiple_of((2 * half * row).max(1)) {
        return None;
    }
    let mut moved = Vec::with_capacity(stored.len());
    for head in stored.chunks_exact(2 * half * row) {
        for part in 0..2 {
            for j in 0..half {
                moved.extend_from_slice(&head[(2 * j + part) * row..][..row]);
            }
        }
    }
    Some(moved)
}

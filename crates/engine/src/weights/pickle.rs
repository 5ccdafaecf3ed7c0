//! One PyTorch file (`.bin`, `.pt`): a ZIP archive of a pickle that describes tensors, and their bytes.
//! Source of the opcodes: Python, `Lib/pickletools.py`; of the layout: PyTorch, `torch/serialization.py`.
//!
//! Law: the pickle is data here. It can name a few constructors, all of them of tensors and dictionaries, and nothing
//! is ever called; any other name is an error. Values refer to one another by number, so that shared or cyclic ones
//! cost nothing, and there are never more of them than bytes of the pickle.

mod machine;

use super::shards::Kind;
use super::{map, zip, Source, Tensor};
use crate::{Error, Result};
use memmap2::Mmap;
use sglang_kernels::dtype::DType;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Checkpoints of such files.
pub const PICKLE: Kind = Kind {
    ending: ".bin",
    usual: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    open: |path| Ok(Box::new(File::open(path)?)),
};

struct File {
    path: PathBuf,
    map: Mmap,
    tensors: BTreeMap<String, Entry>,
}

struct Entry {
    /// Class of the storage, e.g. `HalfStorage`.
    storage: String,
    shape: Vec<usize>,
    /// Bytes of the file; empty where the format is not one of [`dtype`].
    range: Range<usize>,
}

/// Format of a storage class.
fn dtype(storage: &str) -> Option<DType> {
    match storage {
        "FloatStorage" => Some(DType::F32),
        "HalfStorage" => Some(DType::F16),
        "BFloat16Storage" => Some(DType::BF16),
        _ => None,
    }
}

impl File {
    fn open(path: &Path) -> Result<Self> {
        let map = map(path)?;
        let tensors = read(&map).map_err(|e| Error::load(format!("{}: {e}", path.display())))?;
        Ok(File { path: path.to_owned(), map, tensors })
    }
}

/// The tensors of a whole file.
fn read(file: &[u8]) -> std::result::Result<BTreeMap<String, Entry>, String> {
    let entries = zip::entries(file)?;
    let (name, pickle) = entries.iter().find(|(name, _)| name.ends_with("/data.pkl")).ok_or("has no data.pkl")?;
    let folder = &name[..name.len() - "data.pkl".len()];
    let described = machine::tensors(&file[pickle.clone()])?;
    let entry = |(name, tensor): (String, machine::Described)| {
        let wrong = |what: &str| format!("tensor {name}: {what}");
        if !tensor.is_contiguous() {
            return Err(wrong("its rows are not one after the other, which is not supported"));
        }
        let range = match dtype(&tensor.storage) {
            None => 0..0,
            Some(dtype) => {
                let data = entries.get(&format!("{folder}data/{}", tensor.key)).ok_or_else(|| wrong("has no data"))?;
                let place = |values: usize| values.checked_mul(dtype.row_bytes(1));
                let len = tensor.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).and_then(place);
                let range = place(tensor.offset).zip(len).and_then(|(from, len)| Some(from..from.checked_add(len)?));
                let range =
                    range.filter(|range| range.end <= data.len()).ok_or_else(|| wrong("does not fit its data"))?;
                data.start + range.start..data.start + range.end
            }
        };
        let entry = Entry { storage: tensor.storage, shape: tensor.shape, range };
        Ok((name, entry))
    };
    described.into_iter().map(entry).collect()
}

impl Source for File {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let wrong = |what: String| Error::load(format!("{}: {what}", self.path.display()));
        let entry = self.tensors.get(name).ok_or_else(|| wrong(format!("no tensor {name}")))?;
        let unknown = || wrong(format!("tensor {name} is a {}; supported are floats of 16 and 32 bits", entry.storage));
        let dtype = dtype(&entry.storage).ok_or_else(unknown)?;
        let bytes = Cow::Borrowed(&self.map[entry.range.clone()]);
        Ok(Tensor { name: name.to_owned(), dtype, shape: entry.shape.clone(), bytes, file: &self.path })
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

//! One PyTorch file (`.bin`, `.pt`): a ZIP archive of a pickle that describes tensors, and their bytes.
//! Source of the opcodes: Python, `Lib/pickletools.py`; of the layout: PyTorch, `torch/serialization.py`.
//!
//! Law: the pickle is data here. It can name a few constructors, all of them of tensors and dictionaries, and nothing
//! is ever called; any other name is an error. Values refer to one another by number, so that shared or cyclic ones
//! cost nothing, and there are never more of them than bytes of the pickle.

mod machine;

use super::shards::Kind;
use super::stored::{Entry, Format, Stored};
use super::{map, zip};
use crate::{Error, Result};
use sglang_kernels::dtype::DType;
use std::collections::BTreeMap;
use std::path::Path;

/// Checkpoints of such files.
pub const PICKLE: Kind = Kind {
    ending: ".bin",
    usual: "pytorch_model.bin",
    index: "pytorch_model.bin.index.json",
    open: |path| Ok(Box::new(open(path)?)),
};

/// Format of a storage class, e.g. `HalfStorage`.
fn dtype(storage: &str) -> Option<DType> {
    match storage {
        "FloatStorage" => Some(DType::F32),
        "HalfStorage" => Some(DType::F16),
        "BFloat16Storage" => Some(DType::BF16),
        _ => None,
    }
}

fn open(path: &Path) -> Result<Stored> {
    let tensors = read(&map(path)?).map_err(|e| Error::load(format!("{}: {e}", path.display())))?;
    Ok(Stored::new(path, tensors))
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
        let dtype = dtype(&tensor.storage);
        let range = match dtype {
            // Nothing of it is read.
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
        let format = dtype.map_or(Format::Other(tensor.storage), Format::Numbers);
        Ok((name, Entry { format, shape: tensor.shape, range }))
    };
    described.into_iter().map(entry).collect()
}

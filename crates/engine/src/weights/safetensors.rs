//! One safetensors file. Law: a tensor that goes out lies inside the file; the header is checked when it is opened.

use super::shards::Kind;
use super::{map_safetensors, Source, Tensor, Words};
use crate::{Error, Result};
use candle_core::safetensors::MmapedSafetensors;
use sglang_kernels::dtype::DType;
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Checkpoints of such files.
pub const SAFETENSORS: Kind = Kind {
    ending: ".safetensors",
    usual: "model.safetensors",
    index: "model.safetensors.index.json",
    open: |path| Ok(Box::new(File::open(path)?)),
};

struct File {
    path: PathBuf,
    map: MmapedSafetensors,
}

impl File {
    fn open(path: &Path) -> Result<Self> {
        Ok(File { path: path.to_owned(), map: map_safetensors(path)? })
    }

    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::load(format!("{}: {what}", self.path.display()))
    }
}

impl Source for File {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let view = self.map.get(name).map_err(|e| self.wrong(e))?;
        let dtype = match candle_core::DType::try_from(view.dtype()) {
            Ok(candle_core::DType::F32) => DType::F32,
            Ok(candle_core::DType::F16) => DType::F16,
            Ok(candle_core::DType::BF16) => DType::BF16,
            _ => {
                let found = view.dtype();
                return Err(
                    self.wrong(format_args!("tensor {name} has format {found:?}; supported are F32, F16 and BF16"))
                );
            }
        };
        let shape = view.shape().to_vec();
        Ok(Tensor { name: name.to_owned(), dtype, shape, bytes: Cow::Borrowed(view.data()), file: &self.path })
    }

    fn words(&self, name: &str) -> Result<Words> {
        let view = self.map.get(name).map_err(|e| self.wrong(e))?;
        if candle_core::DType::try_from(view.dtype()).ok() != Some(candle_core::DType::I32) {
            return Err(self.wrong(format_args!("tensor {name} has format {:?}; expected I32", view.dtype())));
        }
        let words = view.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Ok(Words { shape: view.shape().to_vec(), words: words.collect() })
    }

    fn has(&self, name: &str) -> bool {
        self.map.get(name).is_ok()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.map.tensors().into_iter().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    fn bytes(&self) -> u64 {
        self.map.tensors().iter().map(|(_, view)| view.data().len() as u64).sum()
    }
}

//! Safetensors checkpoints: one file, or shards listed by `model.safetensors.index.json`.
//!
//! Law: a file is read only if it lies in the model's own folder, and a tensor only from the shard that the index
//! names.

use super::{map_safetensors, read_json, Source, Tensor};
use crate::{Error, Result};
use candle_core::safetensors::MmapedSafetensors;
use sglang_kernels::dtype::DType;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// Name of the list of shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint in safetensors files.
pub struct Safetensors {
    shards: Vec<Shard>,
    /// Tensor name to its place in `shards`.
    places: BTreeMap<String, usize>,
    bytes: u64,
}

struct Shard {
    path: PathBuf,
    map: MmapedSafetensors,
}

impl Safetensors {
    /// Maps the checkpoint in `folder`: its index if it has one, else its only `.safetensors` file.
    pub fn open(folder: &Path) -> Result<Self> {
        let index = folder.join(INDEX);
        match index.is_file() {
            true => Self::sharded(folder, &index),
            false => Self::single(&only_file(folder)?),
        }
    }

    fn single(path: &Path) -> Result<Self> {
        let shard = Shard::open(path)?;
        let names = shard.map.tensors().into_iter().map(|(name, _)| (name, 0));
        Self::of(names.collect(), vec![shard])
    }

    fn sharded(folder: &Path, index: &Path) -> Result<Self> {
        let listed = read_index(index)?;
        let files: Vec<&str> = listed.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        let shards = files.iter().map(|file| Shard::open(&folder.join(file))).collect::<Result<Vec<_>>>()?;
        let place = |file: &str| files.binary_search(&file).unwrap_or_default();
        Self::of(listed.iter().map(|(name, file)| (name.clone(), place(file))).collect(), shards)
    }

    /// Checks that every tensor is where it should be and adds up the sizes.
    fn of(places: BTreeMap<String, usize>, shards: Vec<Shard>) -> Result<Self> {
        let mut bytes = 0;
        for (name, &place) in &places {
            let Shard { path, map } = &shards[place];
            let view = map.get(name).map_err(|_| {
                Error::load(format!("{}: has no tensor {name}, which {INDEX} says it has", path.display()))
            })?;
            bytes += view.data().len() as u64;
        }
        Ok(Safetensors { shards, places, bytes })
    }

    fn missing(&self, name: &str) -> Error {
        let folder = self.shards.first().and_then(|s| s.path.parent()).unwrap_or(Path::new(""));
        Error::load(format!("{}: no tensor {name} in its {} safetensors file(s)", folder.display(), self.shards.len()))
    }
}

impl Source for Safetensors {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let &place = self.places.get(name).ok_or_else(|| self.missing(name))?;
        let Shard { path, map } = &self.shards[place];
        let view = map.get(name).map_err(|e| Error::load(format!("{}: {e}", path.display())))?;
        let dtype = match candle_core::DType::try_from(view.dtype()) {
            Ok(candle_core::DType::F32) => DType::F32,
            Ok(candle_core::DType::F16) => DType::F16,
            Ok(candle_core::DType::BF16) => DType::BF16,
            _ => {
                let (file, found) = (path.display(), view.dtype());
                return Err(Error::load(format!(
                    "{file}: tensor {name} has format {found:?}; supported are F32, F16 and BF16"
                )));
            }
        };
        let shape = view.shape().to_vec();
        Ok(Tensor { name: name.to_owned(), dtype, shape, bytes: Cow::Borrowed(view.data()), file: path })
    }

    fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Shard {
    fn open(path: &Path) -> Result<Self> {
        Ok(Shard { path: path.to_owned(), map: map_safetensors(path)? })
    }
}

/// Tensor name to file name, as the index lists them.
fn read_index(index: &Path) -> Result<BTreeMap<String, String>> {
    let wrong = |what: &str| Error::load(format!("{}: {what}", index.display()));
    let json = read_json(index)?;
    let listed = json["weight_map"].as_object().ok_or_else(|| wrong("has no object `weight_map`"))?;
    let entry = |(name, file): (&String, &serde_json::Value)| {
        let file = file.as_str().filter(|file| is_plain_name(file));
        let file = file.ok_or_else(|| wrong(&format!("the file of {name} must be a name in the same folder")))?;
        Ok((name.clone(), file.to_owned()))
    };
    let listed = listed.iter().map(entry).collect::<Result<BTreeMap<_, _>>>()?;
    if listed.is_empty() {
        return Err(wrong("`weight_map` is empty"));
    }
    Ok(listed)
}

/// Whether a name stays in its folder.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

/// `model.safetensors`, or the only file of the kind.
fn only_file(folder: &Path) -> Result<PathBuf> {
    let usual = folder.join("model.safetensors");
    if usual.is_file() {
        return Ok(usual);
    }
    match &super::open::files_ending(folder, ".safetensors")?[..] {
        [file] => Ok(file.clone()),
        files => {
            let (folder, n) = (folder.display(), files.len());
            Err(Error::load(format!("{folder}: {n} safetensors files and no {INDEX} that says what is in which")))
        }
    }
}

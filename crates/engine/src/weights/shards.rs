//! Checkpoints in a folder: one file, or shards that an index lists.
//!
//! Law: a file is read only if it lies in the model's own folder, and a tensor only from the shard that the index names.

use super::open::files_ending;
use super::{read_json, Source, Tensor, Words};
use crate::{Error, Result};
use sglang_kernels::dtype::DType;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

/// A kind of checkpoint.
pub struct Kind {
    /// How its files end.
    pub ending: &'static str,
    /// Name of the only file.
    pub usual: &'static str,
    /// Name of the list of shards.
    pub index: &'static str,
    /// Opens one file.
    pub open: fn(&Path) -> Result<Box<dyn Source>>,
}

impl Kind {
    /// Whether a folder has such files.
    pub fn is_in(&self, folder: &Path) -> bool {
        files_ending(folder, self.ending).is_ok_and(|files| !files.is_empty())
    }
}

/// Several files as one source.
pub struct Shards {
    parts: Vec<Box<dyn Source>>,
    /// Tensor name to its place in `parts`.
    places: BTreeMap<String, usize>,
    /// What the parts are, for messages.
    what: String,
}

impl Shards {
    /// Opens the checkpoint in `folder`: its index if it has one, else its only file of the kind.
    pub fn open(folder: &Path, kind: &Kind) -> Result<Self> {
        let index = folder.join(kind.index);
        if !index.is_file() {
            return Self::of(vec![(kind.open)(&only_file(folder, kind)?)?], folder, kind.ending);
        }
        let listed = read_index(&index)?;
        let files: Vec<&str> = listed.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
        let parts = files.iter().map(|file| (kind.open)(&folder.join(file))).collect::<Result<Vec<_>>>()?;
        let place = |file: &str| files.binary_search(&file).unwrap_or_default();
        let places: BTreeMap<_, _> = listed.iter().map(|(name, file)| (name.clone(), place(file))).collect();
        if let Some((name, &at)) = places.iter().find(|&(name, &at)| !parts[at].has(name)) {
            let file = folder.join(files[at]);
            let index = kind.index;
            return Err(Error::load(format!("{}: has no tensor {name}, which {index} says it has", file.display())));
        }
        Ok(Shards { what: describe(folder, parts.len(), kind.ending), parts, places })
    }

    /// Files that hold what their own headers say; no tensor may be in two of them.
    pub fn of(parts: Vec<Box<dyn Source>>, folder: &Path, ending: &str) -> Result<Self> {
        let what = describe(folder, parts.len(), ending);
        let mut places = BTreeMap::new();
        for (at, part) in parts.iter().enumerate() {
            for name in part.names() {
                if places.insert(name.clone(), at).is_some() {
                    return Err(Error::load(format!("{what}: tensor {name} is in two of them")));
                }
            }
        }
        Ok(Shards { parts, places, what })
    }

    fn part(&self, name: &str) -> Result<&dyn Source> {
        let missing = || Error::load(format!("{}: no tensor {name}", self.what));
        self.places.get(name).map(|&at| &*self.parts[at]).ok_or_else(missing)
    }
}

impl Source for Shards {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        self.part(name)?.tensor(name)
    }

    fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor<'_>> {
        self.part(name)?.rows(name, shape, rows)
    }

    fn dtype(&self, name: &str) -> Result<DType> {
        self.part(name)?.dtype(name)
    }

    fn words(&self, name: &str) -> Result<Words> {
        self.part(name)?.words(name)
    }

    fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes()).sum()
    }
}

fn describe(folder: &Path, n: usize, ending: &str) -> String {
    format!("{}: its {n} {ending} file(s)", folder.display())
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

/// The file of the usual name, or the only one of the kind.
fn only_file(folder: &Path, kind: &Kind) -> Result<PathBuf> {
    let usual = folder.join(kind.usual);
    if usual.is_file() {
        return Ok(usual);
    }
    match &files_ending(folder, kind.ending)?[..] {
        [file] => Ok(file.clone()),
        files => {
            let (folder, n, ending, index) = (folder.display(), files.len(), &kind.ending[1..], kind.index);
            Err(Error::load(format!("{folder}: {n} {ending} files and no {index} that says what is in which")))
        }
    }
}

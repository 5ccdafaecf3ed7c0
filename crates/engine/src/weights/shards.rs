//! Checkpoints in a folder: one file, or shards that an index lists; several sources as one, under names of our own.
//!
//! Law: a file is read only if it lies in the model's own folder, and a tensor only from the shard that the index names. The
//! language model's tensors go out as `model.…` and `lm_head.…`, whatever stands before these in the files.

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

/// Several sources as one.
pub struct Shards {
    parts: Vec<Box<dyn Source>>,
    /// Name here to its place in `parts` and its name there.
    places: BTreeMap<String, (usize, String)>,
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
        let places: Vec<_> = listed.iter().map(|(name, file)| (place(file), name.clone())).collect();
        if let Some((at, name)) = places.iter().find(|(at, name)| !parts[*at].has(name)) {
            let file = folder.join(files[*at]);
            let index = kind.index;
            return Err(Error::load(format!("{}: has no tensor {name}, which {index} says it has", file.display())));
        }
        Self::named(describe(folder, parts.len(), kind.ending), parts, places, canonical)
    }

    /// Files that hold what their own headers say; no tensor may be in two of them.
    pub fn of(parts: Vec<Box<dyn Source>>, folder: &Path, ending: &str) -> Result<Self> {
        Self::joined(describe(folder, parts.len(), ending), parts, canonical)
    }

    /// All tensors of some sources under the names that `rename` makes of theirs, of which it is told all.
    pub fn joined(what: String, parts: Vec<Box<dyn Source>>, rename: Rename) -> Result<Self> {
        let names = |at: usize| parts[at].names().into_iter().map(move |name| (at, name));
        let places = (0..parts.len()).flat_map(names).collect();
        Self::named(what, parts, places, rename)
    }

    fn named(what: String, parts: Vec<Box<dyn Source>>, stored: Vec<(usize, String)>, rename: Rename) -> Result<Self> {
        let names = rename(&stored.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>());
        let mut places = BTreeMap::new();
        for (name, place) in names.into_iter().zip(stored) {
            if let Some((_, other)) = places.insert(name.clone(), place) {
                return Err(Error::load(format!("{what}: tensor {name} is there twice, also as {other}")));
            }
        }
        Ok(Shards { parts, places, what })
    }

    fn part(&self, name: &str) -> Result<(&dyn Source, &str)> {
        let missing = || Error::load(format!("{}: no tensor {name}", self.what));
        self.places.get(name).map(|(at, stored)| (&*self.parts[*at], stored.as_str())).ok_or_else(missing)
    }
}

/// Makes names of all stored names, in their order.
pub type Rename = fn(&[&str]) -> Vec<String>;

/// The names of the only language model among them without what stands before `model.` and `lm_head.`; a checkpoint of the
/// model without its head has not even `model.`.
fn canonical(stored: &[&str]) -> Vec<String> {
    let mut begins = stored.iter().filter_map(|name| name.strip_suffix("embed_tokens.weight"));
    let (Some(model), None) = (begins.next(), begins.next()) else {
        return stored.iter().map(|&name| name.to_owned()).collect();
    };
    let outer = model.strip_suffix("model.").unwrap_or(model);
    let rename = |&name: &&str| match (name.strip_prefix(model), name.strip_prefix(outer)) {
        (_, Some(head)) if head.starts_with("lm_head.") => head.to_owned(),
        (Some(rest), _) if ["embed_tokens.", "layers.", "norm."].iter().any(|part| rest.starts_with(part)) => {
            format!("model.{rest}")
        }
        _ => name.to_owned(),
    };
    stored.iter().map(rename).collect()
}

impl Source for Shards {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let (part, stored) = self.part(name)?;
        part.tensor(stored)
    }

    fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor<'_>> {
        let (part, stored) = self.part(name)?;
        part.rows(stored, shape, rows)
    }

    fn dtype(&self, name: &str) -> Result<DType> {
        let (part, stored) = self.part(name)?;
        part.dtype(stored)
    }

    fn words(&self, name: &str) -> Result<Words> {
        let (part, stored) = self.part(name)?;
        part.words(stored)
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

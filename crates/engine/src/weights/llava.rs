//! LLaVA checkpoints: a language model, a vision tower and a projector under one set of names, wherever they are.
//!
//! Law: names go out as `model.…` and `lm_head.…` for the language model, `vision.…` for the tower (as in
//! `CLIPVisionModel`, without `vision_model.`), `projector.0.…` and `projector.2.…`; convolutions as matrices.

use super::{Source, Tensor, Words};
use crate::{Error, Result};
use serde_json::Value;
use sglang_kernels::dtype::DType;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Beginnings of stored names, and what they are here.
const NAMES: [(&str, &str); 11] = [
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("vision_tower.vision_model.", "vision."),
    ("model.vision_tower.vision_model.", "vision."),
    ("model.vision_tower.vision_tower.vision_model.", "vision."),
    ("vision_model.", "vision."),
    ("multi_modal_projector.linear_", "projector."),
    ("model.multi_modal_projector.linear_", "projector."),
    ("model.mm_projector.", "projector."),
    ("mm_projector.", "projector."),
];

/// Whether a configuration is one of LLaVA, in either layout.
pub fn is_llava(config: &Value) -> bool {
    config["model_type"].as_str().is_some_and(|kind| kind.starts_with("llava"))
}

/// The folder of the vision tower, where the original layout names one: a path from the model's folder or its parent,
/// or an id that is in the cache of the hub.
pub fn tower(folder: &Path, config: &Value) -> Result<Option<PathBuf>> {
    let Some(named) = config["mm_vision_tower"].as_str() else { return Ok(None) };
    let cached = || {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let caches = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
        let home = || variable("HF_HOME").or_else(|| Some(caches()?.join("huggingface")));
        let cache = variable("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub")))?;
        let snapshots = cache.join(format!("models--{}", named.replace('/', "--"))).join("snapshots");
        std::fs::read_dir(snapshots).ok()?.filter_map(|entry| Some(entry.ok()?.path())).next()
    };
    let places = [Some(folder.join(named)), folder.parent().map(|parent| parent.join(named)), cached()];
    let found = places.into_iter().flatten().find(|place| place.join("config.json").is_file());
    found.map(Some).ok_or_else(|| {
        let config = folder.join("config.json");
        Error::load(format!(
            "{}: no vision tower at {named:?} (mm_vision_tower); put its folder there",
            config.display()
        ))
    })
}

/// The parts of a checkpoint.
pub struct Llava {
    parts: Vec<Box<dyn Source>>,
    /// Name here to part and stored name.
    places: BTreeMap<String, (usize, String)>,
}

impl Llava {
    /// Joins a checkpoint and its vision tower, unless it has its own.
    pub fn join(weights: Box<dyn Source>, tower: Option<Box<dyn Source>>) -> Self {
        let whole = names(&*weights).any(|(name, _)| name.starts_with("vision."));
        let parts: Vec<_> = [weights].into_iter().chain(tower.filter(|_| !whole)).collect();
        let named = |i: usize| names(&*parts[i]).map(move |(name, stored)| (name, (i, stored)));
        let places = (0..parts.len()).flat_map(named).collect();
        Llava { places, parts }
    }

    fn part(&self, name: &str) -> Result<(&dyn Source, &str)> {
        let missing = || Error::load(format!("no tensor {name} in the checkpoint or its vision tower"));
        let (part, stored) = self.places.get(name).ok_or_else(missing)?;
        Ok((&*self.parts[*part], stored))
    }
}

/// Names here and as stored.
fn names(part: &dyn Source) -> impl Iterator<Item = (String, String)> {
    part.names().into_iter().map(|stored| {
        let renamed = NAMES.iter().find_map(|(begin, here)| Some(format!("{here}{}", stored.strip_prefix(begin)?)));
        let renamed = renamed.map(|name| match name.strip_prefix("projector.1.") {
            Some(rest) => format!("projector.0.{rest}"),
            None => name,
        });
        (renamed.unwrap_or_else(|| stored.clone()), stored)
    })
}

impl Source for Llava {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let (part, stored) = self.part(name)?;
        let mut tensor = part.tensor(stored)?;
        if let [out, channels, height, width] = tensor.shape[..] {
            tensor.shape = vec![out, channels * height * width];
        }
        Ok(tensor)
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

//! LLaVA checkpoints: a language model, a vision tower and a projector under one set of names, wherever they are.
//!
//! Law: names go out as `model.…` and `lm_head.…` for the language model, `vision.…` for the tower (as in
//! `CLIPVisionModel`, without `vision_model.`), `projector.0.…` and `projector.2.…`.

use super::shards::Shards;
use super::Source;
use crate::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Beginnings of stored names, and what they are here; those of the language model are known to all checkpoints.
const NAMES: [(&str, &str); 8] = [
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

/// Joins a checkpoint and its vision tower, unless it has its own.
pub fn join(folder: &Path, weights: Box<dyn Source>, tower: Option<Box<dyn Source>>) -> Result<Shards> {
    let whole = weights.names().iter().any(|name| renamed(name).starts_with("vision."));
    let parts = [weights].into_iter().chain(tower.filter(|_| !whole)).collect();
    let what = format!("{}: its checkpoint and vision tower", folder.display());
    Shards::joined(what, parts, |stored| stored.iter().map(|name| renamed(name)).collect())
}

/// The name here of a stored one.
fn renamed(stored: &str) -> String {
    let begins = NAMES.iter().find_map(|(begin, here)| Some((here, stored.strip_prefix(begin)?)));
    match begins {
        Some((&"projector.", rest)) => match rest.strip_prefix("1.") {
            Some(rest) => format!("projector.0.{rest}"),
            None => format!("projector.{rest}"),
        },
        Some((here, rest)) => format!("{here}{rest}"),
        None => stored.to_owned(),
    }
}

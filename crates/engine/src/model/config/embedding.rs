//! How the embeddings of a model were trained: files of sentence-transformers beside a checkpoint, or a GGUF key.
//! Source of names: sentence-transformers, `models/Pooling.py`; gguf-py, `PoolingType`.
//!
//! Law: a pooling that is not ours is an error, since vectors of another one would be compared in vain.

use super::from_gguf::Keys;
use crate::weights::read_json;
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// What becomes of the states of a prompt, where a request does not say.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// `last` or `mean`, as in requests.
    pub pooling: &'static str,
    /// Scaled to length 1.
    pub normalise: bool,
}

impl Embedding {
    /// From `1_Pooling/config.json` and `modules.json`.
    pub(super) fn from_folder(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join("1_Pooling").join("config.json");
        if !file.is_file() {
            return Ok(None);
        }
        let config = read_json(&file)?;
        let flags = config.as_object().into_iter().flatten().filter(|(_, on)| **on == Value::Bool(true));
        let modes: Vec<&str> = match config["pooling_mode"].as_str() {
            Some(mode) => vec![mode],
            None => flags.filter_map(|(key, _)| key.strip_prefix("pooling_mode_")).collect(),
        };
        let pooling = match modes[..] {
            ["lasttoken"] => "last",
            ["mean_tokens" | "mean"] => "mean",
            _ => {
                let (file, found) = (file.display(), modes.join(", "));
                let message =
                    format!("{file}: pooling {found:?} is not supported; supported are lasttoken, mean_tokens");
                return Err(Error::load(message));
            }
        };
        let modules = folder.join("modules.json");
        let is_normalise = |module: &Value| module["type"].as_str().is_some_and(|kind| kind.ends_with(".Normalize"));
        let normalise = match modules.is_file() {
            true => read_json(&modules)?.as_array().is_some_and(|list| list.iter().any(is_normalise)),
            false => true,
        };
        Ok(Some(Embedding { pooling, normalise }))
    }

    pub(super) fn from_gguf(keys: &Keys) -> Result<Option<Self>> {
        let key = "pooling_type";
        let pooling = match keys.size(key)?.unwrap_or(0) {
            0 => return Ok(None),
            1 => "mean",
            3 => "last",
            other => {
                let key = keys.name(key);
                let message =
                    format_args!("{key} {other} is not supported; supported are 0 (none), 1 (mean), 3 (last)");
                return Err(keys.metadata.error(message));
            }
        };
        Ok(Some(Embedding { pooling, normalise: true }))
    }
}

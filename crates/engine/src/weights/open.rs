//! From a path to a model's files: a GGUF file, or a folder with `config.json` and safetensors or PyTorch files, or a
//! folder that holds one GGUF file, whole or split.
//!
//! A GGUF file may have its vision tower in another one beside it ("mmproj"), which is opened if it is named.
//!
//! Law: the kind is told by content and exact names; where two readings are possible, it is an error that lists what
//! was found.

use super::llava;
use super::packed::Packed;
use super::pickle::PICKLE;
use super::safetensors::SAFETENSORS;
use super::shards::Shards;
use super::{gguf, mmproj, read_json, Gguf, Metadata, Source};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// What a path leads to.
pub struct ModelFiles {
    /// The path that was opened.
    pub path: PathBuf,
    /// The tensors.
    pub weights: Box<dyn Source>,
    /// Everything else.
    pub description: Description,
    /// Keys of the GGUF file of the vision tower, where that is one of its own.
    pub tower: Option<Metadata>,
}

/// Where the configuration, the tokenizer and the chat template are written.
pub enum Description {
    /// Files in a folder, by their Hugging Face names.
    Folder(PathBuf),
    /// Keys of a GGUF file.
    Gguf(Metadata),
}

const EXPECTED: &str =
    "expected a GGUF file, a folder with config.json and *.safetensors or *.bin, or a folder with one *.gguf";

/// Opens the model at `path` without reading its tensors.
pub fn open(path: &Path) -> Result<ModelFiles> {
    if path.is_dir() {
        return open_folder(path);
    }
    if !path.exists() {
        return Err(Error::load(format!("{}: no such file or folder; {EXPECTED}", path.display())));
    }
    match Gguf::has_magic(path)? {
        true => open_gguf(path, path),
        false => Err(Error::load(format!("{}: not a GGUF file; {EXPECTED}", path.display()))),
    }
}

/// The same, with the vision tower of another GGUF file where one is given.
pub fn open_with(path: &Path, tower: Option<&Path>) -> Result<ModelFiles> {
    let files = open(path)?;
    match tower {
        Some(tower) => files.with_tower(tower),
        None => Ok(files),
    }
}

fn open_folder(folder: &Path) -> Result<ModelFiles> {
    let config = folder.join("config.json");
    if let Some(mut weights) = open_checkpoint(folder, &config)? {
        let json = read_json(&config)?;
        if llava::is_llava(&json) {
            let tower = llava::tower(folder, &json)?;
            let tower = tower.map(|tower| open_checkpoint(&tower, &tower.join("config.json"))).transpose()?.flatten();
            weights = Box::new(llava::join(folder, weights, tower)?);
        }
        let description = Description::Folder(folder.into());
        return Ok(ModelFiles { path: folder.into(), weights, description, tower: None });
    }
    let mut models = files_ending(folder, ".gguf")?;
    models.retain(|file| !is_tower(file));
    match &models[..] {
        [] => Err(nothing_to_open(folder, config.is_file())),
        [first, others @ ..] if others.iter().all(|other| gguf::same_split(first, other)) => open_gguf(folder, first),
        files => {
            let names: Vec<_> = files.iter().filter_map(|f| f.file_name()?.to_str()).collect();
            let folder = folder.display();
            Err(Error::load(format!("{folder}: several GGUF files; give the path of one of: {}", names.join(", "))))
        }
    }
}

/// The safetensors or PyTorch files beside a configuration, if they are there.
fn open_checkpoint(folder: &Path, config: &Path) -> Result<Option<Box<dyn Source>>> {
    for kind in [&SAFETENSORS, &PICKLE] {
        if config.is_file() && kind.is_in(folder) {
            let shards = Shards::open(folder, kind)?;
            return Packed::unpacking(shards, config, &read_json(config)?).map(Some);
        }
    }
    Ok(None)
}

fn nothing_to_open(folder: &Path, has_config: bool) -> Error {
    let found = match has_config {
        true => "config.json but no weights",
        false if SAFETENSORS.is_in(folder) || PICKLE.is_in(folder) => "weights but no config.json",
        false => "no model files",
    };
    Error::load(format!("{}: has {found}; {EXPECTED}", folder.display()))
}

fn open_gguf(path: &Path, file: &Path) -> Result<ModelFiles> {
    let (weights, metadata) = Gguf::open(file)?;
    Ok(ModelFiles { path: path.into(), weights, description: Description::Gguf(metadata), tower: None })
}

/// Whether a file is called like that of a vision tower.
fn is_tower(file: &Path) -> bool {
    file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.contains("mmproj"))
}

/// The files of a folder whose names end so, sorted.
pub(super) fn files_ending(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::load(format!("{}: cannot be listed: {e}", folder.display()));
    let entries = std::fs::read_dir(folder).map_err(failed)?.collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
    let ends = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.ends_with(ending));
    let mut files: Vec<_> = entries.into_iter().map(|e| e.path()).filter(|p| ends(p) && p.is_file()).collect();
    files.sort();
    Ok(files)
}

impl ModelFiles {
    /// The language model of a GGUF file joined with the vision tower of another one.
    fn with_tower(self, file: &Path) -> Result<Self> {
        if !matches!(self.description, Description::Gguf(_)) {
            let model = self.path.display();
            return Err(Error::load(format!("{}: belongs to a GGUF file, which {model} is not", file.display())));
        }
        let (tower, metadata) = match Gguf::has_magic(file)? {
            true => Gguf::open(file)?,
            false => return Err(Error::load(format!("{}: not a GGUF file", file.display()))),
        };
        let architecture = metadata.text("general.architecture")?.unwrap_or_default();
        if architecture != mmproj::ARCHITECTURE {
            let expected = mmproj::ARCHITECTURE;
            return Err(metadata.error(format_args!("is of type {architecture:?}; a vision tower is of {expected:?}")));
        }
        let what = format!("{} and {}", self.path.display(), file.display());
        let names = |stored: &[&str]| stored.iter().map(|&name| name.to_owned()).collect();
        let weights = Box::new(Shards::joined(what, vec![self.weights, tower], names)?);
        Ok(ModelFiles { weights, tower: Some(metadata), ..self })
    }

    /// The chat template (Jinja), where the model has one: `chat_template.jinja`, the default one of
    /// `tokenizer_config.json`, or the GGUF key.
    pub fn chat_template(&self) -> Result<Option<String>> {
        match &self.description {
            Description::Gguf(metadata) => Ok(metadata.text("tokenizer.chat_template")?.map(str::to_owned)),
            Description::Folder(folder) => folder_template(folder),
        }
    }
}

fn folder_template(folder: &Path) -> Result<Option<String>> {
    let jinja = folder.join("chat_template.jinja");
    if jinja.is_file() {
        let text = std::fs::read_to_string(&jinja);
        return text.map(Some).map_err(|e| Error::load(format!("{}: cannot be read: {e}", jinja.display())));
    }
    let config = folder.join("tokenizer_config.json");
    if !config.is_file() {
        return Ok(None);
    }
    let template = &read_json(&config)?["chat_template"];
    let named = |list: &Vec<serde_json::Value>| {
        list.iter().find(|t| t["name"] == "default")?["template"].as_str().map(str::to_owned)
    };
    Ok(template.as_str().map(str::to_owned).or_else(|| template.as_array().and_then(named)))
}

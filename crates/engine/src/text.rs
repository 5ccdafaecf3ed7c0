//! Text to token ids and back.
//!
//! Laws: encoding is what the `tokenizers` library does for the same model; decoding is concatenation of each token's
//! own bytes ([`Tokenizer::token_bytes`]), so that text can be streamed, masked and cut at any token.

mod from_gguf;
mod from_spm;
mod stops;
mod stream;
mod token_bytes;

pub use stops::{StopMatcher, StopStep};
pub use stream::TextStream;

use crate::model::config::ModelConfig;
use crate::weights::{self, Description, Metadata, ModelFiles};
use crate::{Error, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use token_bytes::{Spelling, TokenBytes};

/// The vocabulary of a model and the rules of its use.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    table: TokenBytes,
    special: HashSet<u32>,
    /// Put before and after every prompt, e.g. BOS.
    around: [Vec<u32>; 2],
    /// The first space of a text is an artefact of the vocabulary.
    drop_first_space: bool,
    eos: Vec<u32>,
}

impl Tokenizer {
    /// The tokenizer of a model: as many ids as it has embeddings, and its end tokens.
    pub fn of(files: &ModelFiles, config: &ModelConfig) -> Result<Self> {
        let tokenizer = match &files.description {
            Description::Gguf(metadata) => Self::from_gguf(metadata)?,
            Description::Folder(folder) => Self::from_file(&in_folder(folder))?,
        };
        Ok(tokenizer.fitted(config))
    }

    /// The same from elsewhere: a `tokenizer.json` or `tokenizer.model`, the folder of one, or a GGUF file.
    pub fn at(path: &Path, config: &ModelConfig) -> Result<Self> {
        Ok(Self::alone(path)?.fitted(config))
    }

    /// From a `tokenizer.json` or `tokenizer.model` or the folder of one, without end tokens, or from a GGUF file.
    pub fn alone(path: &Path) -> Result<Self> {
        let file = in_folder(path);
        if file.is_file() {
            return Self::from_file(&file);
        }
        match path.extension().is_some_and(|extension| extension == "json" || extension == "model") {
            true => Self::from_file(path),
            false => {
                let files = weights::open(path)?;
                Self::of(&files, &ModelConfig::of(&files)?)
            }
        }
    }

    /// From a `tokenizer.json` or a SentencePiece model, without end tokens.
    pub fn from_file(path: &Path) -> Result<Self> {
        match path.extension().is_some_and(|extension| extension == "model") {
            true => Self::from_gguf(&from_spm::read(path)?),
            false => Self::from_json_file(path),
        }
    }

    fn fitted(mut self, config: &ModelConfig) -> Self {
        self.table.resize(config.vocab);
        self.eos.clone_from(&config.eos);
        self
    }

    /// From a `tokenizer.json`, without end tokens.
    pub fn from_json_file(path: &Path) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| Error::load(format!("{}: {e}", path.display()));
        let bytes = std::fs::read(path).map_err(|e| failed(&format_args!("cannot be read: {e}")))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| failed(&e))?;
        inner.with_padding(None).with_truncation(None).map_err(|e| failed(&e))?;
        let around = surroundings(&inner).map_err(|e| failed(&e))?;
        Self::new(inner, around).map_err(|e| failed(&e))
    }

    /// From the keys of a GGUF file, without end tokens.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        let (inner, around) = from_gguf::build(metadata)?;
        Self::new(inner, around).map_err(|e| metadata.error(e))
    }

    fn new(inner: tokenizers::Tokenizer, around: [Vec<u32>; 2]) -> std::result::Result<Self, String> {
        let (spelling, drop_first_space) = Spelling::of(inner.get_decoder())?;
        let added = inner.get_added_tokens_decoder();
        let spelled = inner.get_vocab(false).into_iter().filter(|(_, id)| !added.contains_key(id));
        let spelled = spelled.map(|(token, id)| (id, spelling.bytes(&token)));
        let verbatim = added.iter().map(|(&id, token)| (id, token.content.clone().into_bytes()));
        let table = TokenBytes::new(spelled.chain(verbatim).collect())?;
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        Ok(Tokenizer { inner, table, special, around, drop_first_space, eos: Vec::new() })
    }

    /// Token ids of `text`, in which special tokens may be spelled out. `add_special` adds what the model wants around
    /// a prompt (BOS), unless the text already spells it.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding =
            self.inner.encode_fast(text, false).map_err(|e| Error::bad("text", format!("cannot be encoded: {e}")))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(&id) = ids.iter().find(|&&id| id as usize >= self.vocab()) {
            let token = self.inner.id_to_token(id).unwrap_or_default();
            let message = format!("contains token {id} ({token:?}), for which the model has no embedding");
            return Err(Error::bad("text", message));
        }
        let [before, after] = &self.around;
        if add_special && !ids.starts_with(before) {
            ids.splice(..0, before.iter().copied());
        }
        if add_special && !ids.ends_with(after) {
            ids.extend(after);
        }
        Ok(ids)
    }

    /// Token ids of a piece from the middle of a text; `None` where the tokenizer has no text tokens that spell just it.
    pub fn encode_piece(&self, piece: &str) -> Option<Vec<u32>> {
        let spells = |ids: &[u32]| {
            let bytes = ids.iter().flat_map(|&id| self.token_bytes(id));
            bytes.eq(piece.as_bytes()) && !ids.iter().any(|&id| self.is_special(id))
        };
        // A vocabulary that puts a space before every text puts none after a line end.
        let after_line_end = || {
            let (line_end, both) = (self.encode("\n", false).ok()?, self.encode(&format!("\n{piece}"), false).ok()?);
            both.strip_prefix(&line_end[..]).map(<[u32]>::to_vec)
        };
        let alone = self.encode(piece, false).ok().filter(|ids| spells(ids));
        alone.or_else(|| after_line_end().filter(|ids| spells(ids)))
    }

    /// The text of `ids`, invalid UTF-8 replaced. Where the vocabulary puts a space before every text, that one is
    /// taken away again.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let shown = ids.iter().filter(|&&id| !(skip_special && self.is_special(id)));
        let bytes: Vec<u8> = shown.flat_map(|&id| self.token_bytes(id)).copied().collect();
        let bytes = bytes.strip_prefix(b" ").filter(|_| self.drop_first_space).unwrap_or(&bytes);
        String::from_utf8_lossy(bytes).into_owned()
    }

    /// What a token adds to a text, perhaps part of a character; empty for ids that stand for nothing.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.table.get(id)
    }

    /// The same as text; `None` where it is nothing or no whole characters.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        std::str::from_utf8(self.token_bytes(id)).ok().filter(|text| !text.is_empty())
    }

    /// The id of the token that the vocabulary spells so, e.g. `<|im_end|>`.
    pub fn id_of(&self, spelling: &str) -> Option<u32> {
        self.inner.token_to_id(spelling)
    }

    /// Whether a token controls the model and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Number of ids V; all ids are below it.
    pub fn vocab(&self) -> usize {
        self.table.len()
    }

    /// Tokens that end a generation.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }
}

/// The tokenizer of a folder: `tokenizer.model` where that is all there is.
fn in_folder(folder: &Path) -> PathBuf {
    let [json, model] = ["tokenizer.json", "tokenizer.model"].map(|name| folder.join(name));
    if !json.is_file() && model.is_file() {
        return model;
    }
    json
}

/// What the post-processor puts before and after a text.
fn surroundings(inner: &tokenizers::Tokenizer) -> tokenizers::Result<[Vec<u32>; 2]> {
    let ids = |add_special| Ok::<_, tokenizers::Error>(inner.encode_fast("a", add_special)?.get_ids().to_vec());
    let (plain, full) = (ids(false)?, ids(true)?);
    let at = full.windows(plain.len().max(1)).position(|window| window == plain).unwrap_or(full.len());
    let after = full.get(at + plain.len()..).unwrap_or_default().to_vec();
    Ok([full[..at].to_vec(), after])
}

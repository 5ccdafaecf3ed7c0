//! A SentencePiece model (`tokenizer.model`) as the keys that a GGUF file would have for it.
//! Format: <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>, protocol buffers.
//!
//! Law: nothing is read past the end; fields that are not known are skipped.

use crate::weights::{read_json, Metadata, Value};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;

/// What is wrong with the file.
type Parsed<T> = std::result::Result<T, String>;

/// `trainer_spec.model_type` of pieces that merge by score.
const BPE: u64 = 2;
/// Types of pieces, the same numbers as `tokenizer.ggml.token_type`.
const NORMAL: i64 = 1;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const UNUSED: i64 = 5;
/// Most tokens that a folder may add to its model.
const MOST_ADDED: usize = 1 << 16;

/// The keys of the model at `path`, with the tokens that other files of its folder add.
pub fn read(path: &Path) -> Result<Metadata> {
    let failed = |e: String| Error::load(format!("{}: {e}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| failed(format!("cannot be read: {e}")))?;
    let mut model = Model::parse(&bytes).map_err(failed)?;
    let folder = path.parent().unwrap_or(path);
    model.add(&added(folder)?).map_err(failed)?;
    let file = folder.join("tokenizer_config.json");
    let config = if file.is_file() { read_json(&file)? } else { serde_json::Value::Null };
    let flag = |key: &str, by_default| Value::Bool(config[key].as_bool().unwrap_or(by_default));
    let values = [
        ("model", Value::Text("llama".into())),
        ("tokens", Value::Texts(model.tokens)),
        ("scores", Value::Floats(model.scores)),
        ("token_type", Value::Ints(model.kinds)),
        ("unknown_token_id", Value::Int(model.unknown)),
        ("bos_token_id", Value::Int(model.bos)),
        ("eos_token_id", Value::Int(model.eos)),
        ("add_bos_token", flag("add_bos_token", true)),
        ("add_eos_token", flag("add_eos_token", false)),
        ("add_space_prefix", Value::Bool(model.space_first)),
    ];
    let values = values.into_iter().map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).collect();
    Ok(Metadata { file: path.to_owned(), values })
}

/// Tokens by their ids, and whether they are special: `added_tokens.json` and `tokenizer_config.json`.
fn added(folder: &Path) -> Result<BTreeMap<usize, (String, bool)>> {
    let json = |name: &str| {
        let file = folder.join(name);
        file.is_file().then(|| read_json(&file)).transpose().map(Option::unwrap_or_default)
    };
    let mut tokens = BTreeMap::new();
    for (token, id) in json("added_tokens.json")?.as_object().into_iter().flatten() {
        tokens.extend(id.as_u64().map(|id| (id as usize, (token.clone(), true))));
    }
    for (id, token) in json("tokenizer_config.json")?["added_tokens_decoder"].as_object().into_iter().flatten() {
        let content = token["content"].as_str().map(str::to_owned);
        let special = token["special"].as_bool().unwrap_or(true);
        tokens.extend(id.parse().ok().zip(content).map(|(id, content)| (id, (content, special))));
    }
    Ok(tokens)
}

/// What the file says, with the defaults of the format.
struct Model {
    tokens: Vec<String>,
    scores: Vec<f32>,
    kinds: Vec<i64>,
    unknown: i64,
    bos: i64,
    eos: i64,
    space_first: bool,
}

impl Model {
    fn parse(bytes: &[u8]) -> Parsed<Self> {
        let (tokens, scores, kinds) = Default::default();
        let mut model = Model { tokens, scores, kinds, unknown: 0, bos: 1, eos: 2, space_first: true };
        let mut kind = 1;
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(piece)) => model.piece(piece)?,
                (2, Field::Bytes(trainer)) => kind = model.trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.normalizer(normalizer)?,
                _ => {}
            }
        }
        match kind {
            BPE if !model.tokens.is_empty() => Ok(model),
            BPE => Err("has no pieces; it is no SentencePiece model or is damaged".into()),
            _ => Err("is no SentencePiece model of type BPE, the only one that is supported".into()),
        }
    }

    fn piece(&mut self, bytes: &[u8]) -> Parsed<()> {
        let (mut token, mut score, mut kind) = (String::new(), 0.0, NORMAL);
        for field in Fields(bytes) {
            match field? {
                (1, Field::Bytes(text)) => token = String::from_utf8_lossy(text).into_owned(),
                (2, Field::Fixed(bits)) => score = f32::from_bits(bits),
                (3, Field::Number(number)) => kind = number as i64,
                _ => {}
            }
        }
        self.push(token, score, kind);
        Ok(())
    }

    fn push(&mut self, token: String, score: f32, kind: i64) {
        self.tokens.push(token);
        self.scores.push(score);
        self.kinds.push(kind);
    }

    fn trainer(&mut self, bytes: &[u8]) -> Parsed<u64> {
        let mut kind = 1;
        for field in Fields(bytes) {
            match field? {
                (3, Field::Number(number)) => kind = number,
                (40, Field::Number(id)) => self.unknown = id as i64,
                (41, Field::Number(id)) => self.bos = id as i64,
                (42, Field::Number(id)) => self.eos = id as i64,
                _ => {}
            }
        }
        Ok(kind)
    }

    fn normalizer(&mut self, bytes: &[u8]) -> Parsed<()> {
        for field in Fields(bytes) {
            match field? {
                (2, Field::Bytes([_, ..])) => {
                    return Err("normalizes characters by a table of its own, which is not supported".into())
                }
                (3, Field::Number(flag)) => self.space_first = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }

    /// Puts tokens at their ids; ids between that nothing names stand for nothing.
    fn add(&mut self, added: &BTreeMap<usize, (String, bool)>) -> Parsed<()> {
        let most = self.tokens.len() + MOST_ADDED;
        for (&id, (token, special)) in added {
            if id >= most {
                return Err(format!("token {id} ({token:?}), which its folder adds, is beyond {most}"));
            }
            while self.tokens.len() <= id {
                self.push(format!("<unused {}>", self.tokens.len()), 0.0, UNUSED);
            }
            self.tokens[id].clone_from(token);
            self.kinds[id] = if *special { CONTROL } else { USER_DEFINED };
        }
        Ok(())
    }
}

/// A field of a message.
enum Field<'a> {
    Number(u64),
    Fixed(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message: number and content.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next_field(&mut self) -> Parsed<(u64, Field<'a>)> {
        let key = self.number()?;
        let field = match key & 7 {
            0 => Field::Number(self.number()?),
            1 => self.take(8).map(Field::Bytes)?,
            2 => {
                let len = self.number()?;
                Field::Bytes(self.take(len)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            _ => return Err("is no SentencePiece model or is damaged".into()),
        };
        Ok((key >> 3, field))
    }

    fn take(&mut self, len: u64) -> Parsed<&'a [u8]> {
        let len = usize::try_from(len).ok().filter(|&len| len <= self.0.len());
        let (taken, rest) = self.0.split_at(len.ok_or("is cut off or damaged")?);
        self.0 = rest;
        Ok(taken)
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Parsed<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("is no SentencePiece model or is damaged".into())
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Parsed<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.next_field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

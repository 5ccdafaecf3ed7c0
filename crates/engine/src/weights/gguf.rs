//! GGUF files as a [`Source`]: canonical names, and rows in the order that rotates halves.
//!
//! Law: for architecture `llama` the file stores the q and k rows of a head as pairs (0, S/2), (1, S/2 + 1), … next to
//! each other; they go out as the first halves, then the second halves, as checkpoints have them. Whole rows move, so
//! that block formats stay as they are.
//!
//! Only the header is mapped. A tensor is read when it is asked for: pages of a map would count as memory of the process
//! beside what the device makes of them, so that a model would take twice its size while it is loaded.

use super::gguf_header::{parse, Entry, MAGIC};
use super::shards::Shards;
use super::{expect_shape, map, Metadata, Source, Tensor};
use crate::{Error, Result};
use sglang_kernels::dtype::DType;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A GGUF file whose header was read.
pub struct Gguf {
    file: PathBuf,
    /// By canonical name.
    tensors: BTreeMap<String, Entry>,
    /// Query and key/value heads, where their rows are stored as pairs.
    paired: Option<[usize; 2]>,
}

impl Gguf {
    /// Whether a file begins like GGUF.
    pub(super) fn has_magic(path: &Path) -> Result<bool> {
        let failed = |e| Error::load(format!("{}: cannot be read: {e}", path.display()));
        let mut start = Vec::new();
        std::fs::File::open(path).map_err(failed)?.take(4).read_to_end(&mut start).map_err(failed)?;
        Ok(start == MAGIC)
    }

    /// Reads and checks the header of a file, or of all parts of a split one. The keys are those of the first part.
    pub fn open(path: &Path) -> Result<(Box<dyn Source>, Metadata)> {
        let (only, metadata) = Self::open_one(path)?;
        let n_parts = metadata.size("split.count")?.unwrap_or(1);
        if n_parts <= 1 {
            return Ok((Box::new(only), metadata));
        }
        let name = split_name(path).filter(|&(_, n)| n == n_parts).ok_or_else(|| {
            metadata
                .error(format_args!("is one of {n_parts} parts, so its name must end in -00001-of-{n_parts:05}.gguf"))
        })?;
        let part = |number| path.with_file_name(format!("{}-{number:05}-of-{n_parts:05}.gguf", name.0));
        let (first, metadata) = Self::open_one(&part(1))?;
        let paired = first.paired;
        let mut parts: Vec<Box<dyn Source>> = vec![Box::new(first)];
        for number in 2..=n_parts {
            parts.push(Box::new(Gguf { paired, ..Self::open_one(&part(number))?.0 }));
        }
        Ok((Box::new(Shards::of(parts, path.parent().unwrap_or(path), ".gguf")?), metadata))
    }

    fn open_one(path: &Path) -> Result<(Self, Metadata)> {
        let map = map(path)?;
        let header = parse(&map).map_err(|e| Error::load(format!("{}: {e}", path.display())))?;
        let metadata = Metadata { file: path.to_owned(), values: header.values };
        let tensors = header.tensors.into_iter().flat_map(|(name, entry)| canonical(&name, entry)).collect();
        let paired = match metadata.text("general.architecture")? {
            Some("llama") => Some(llama_heads(&metadata)?),
            _ => None,
        };
        Ok((Gguf { file: path.to_owned(), tensors, paired }, metadata))
    }

    fn entry(&self, name: &str) -> Result<&Entry> {
        let missing = || Error::load(format!("{}: no tensor {name}", self.file.display()));
        self.tensors.get(name).ok_or_else(missing)
    }

    /// A tensor with some bytes of its rows; where rows are stored as pairs, those of whole heads.
    fn filled(&self, name: &str, entry: &Entry, range: Range<usize>) -> Result<Tensor<'_>> {
        let wrong = |what: String| Error::load(format!("{}: tensor {name}{what}", self.file.display()));
        let stored = self.read(&range).map_err(|e| wrong(format!(" cannot be read: {e}")))?;
        let (rows, row) = (entry.shape[0], entry.range.len() / entry.shape[0].max(1));
        let bytes = match self.paired_heads(name) {
            None => stored,
            Some(heads) => split_pairs(&stored, row, rows, heads)
                .ok_or_else(|| wrong(format!(": {rows} rows are not {heads} heads of an even size")))?,
        };
        let shape = [&[range.len() / row.max(1)], &entry.shape[1..]].concat();
        Ok(Tensor { name: name.to_owned(), dtype: entry.dtype, shape, bytes: Cow::Owned(bytes), file: &self.file })
    }

    /// Some bytes of the file.
    fn read(&self, range: &Range<usize>) -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(&self.file)?;
        file.seek(SeekFrom::Start(range.start as u64))?;
        let mut bytes = vec![0; range.len()];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Heads of a tensor whose rows are stored as pairs.
    fn paired_heads(&self, name: &str) -> Option<usize> {
        let [query, key] = self.paired?;
        let name = name.strip_suffix(".weight").or(name.strip_suffix(".bias"))?;
        match name.rsplit('.').next() {
            Some("q_proj") => Some(query),
            Some("k_proj") => Some(key),
            _ => None,
        }
    }
}

impl Source for Gguf {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        let entry = self.entry(name)?;
        self.filled(name, entry, entry.range.clone())
    }

    fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor<'_>> {
        let entry = self.entry(name)?;
        expect_shape(&self.file, name, &entry.shape, shape)?;
        let (start, row) = (entry.range.start, entry.range.len() / shape[0].max(1));
        self.filled(name, entry, start + rows.start * row..start + rows.end * row)
    }

    fn dtype(&self, name: &str) -> Result<DType> {
        Ok(self.entry(name)?.dtype)
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn bytes(&self) -> u64 {
        self.tensors.values().map(|entry| entry.range.len() as u64).sum()
    }
}

/// `folder/name-00002-of-00003.gguf` → `name` and 3.
fn split_name(path: &Path) -> Option<(&str, usize)> {
    let (rest, parts) = path.file_name()?.to_str()?.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    number.parse::<usize>().ok()?;
    Some((name, parts.parse().ok()?))
}

/// Whether two files are parts of one model.
pub(super) fn same_split(a: &Path, b: &Path) -> bool {
    split_name(a).is_some_and(|name| split_name(b) == Some(name))
}

/// Moves row `2j + p` of each head to `p · S/2 + j`, in rows of `row` bytes; `None` where `rows` are not `heads` heads of
/// an even size, or what is stored is not whole heads.
fn split_pairs(stored: &[u8], row: usize, rows: usize, heads: usize) -> Option<Vec<u8>> {
    let halves = heads.checked_mul(2).filter(|&halves| halves > 0)?;
    let half = rows / halves;
    if !rows.is_multiple_of(halves) || !stored.len().is_multiple_of((2 * half * row).max(1)) {
        return None;
    }
    let mut moved = Vec::with_capacity(stored.len());
    for head in stored.chunks_exact(2 * half * row) {
        for part in 0..2 {
            for j in 0..half {
                moved.extend_from_slice(&head[(2 * j + part) * row..][..row]);
            }
        }
    }
    Some(moved)
}

fn llama_heads(metadata: &Metadata) -> Result<[usize; 2]> {
    let key = "llama.attention.head_count";
    let heads = metadata.need(key, metadata.size(key)?)?;
    Ok([heads, metadata.size("llama.attention.head_count_kv")?.unwrap_or(heads)])
}

/// GGUF names of the parts of a block, and what checkpoints call them.
/// Source: gguf-py, `tensor_mapping.py`, for the architectures llama, qwen2, qwen3 and qwen3moe.
const PARTS: [(&str, &str); 15] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_inp", "mlp.gate"),
    ("ffn_gate_exps", "mlp.experts.*.gate_proj"),
    ("ffn_up_exps", "mlp.experts.*.up_proj"),
    ("ffn_down_exps", "mlp.experts.*.down_proj"),
];

/// A tensor under its canonical name; the experts of a layer, which the file stacks `[E, …]`, one by one.
fn canonical(name: &str, entry: Entry) -> Vec<(String, Entry)> {
    let name = canonical_name(name);
    let Some((before, after)) = name.split_once('*') else { return vec![(name, entry)] };
    let (count, shape) = (entry.shape[0], entry.shape[1..].to_vec());
    let (start, each) = (entry.range.start, entry.range.len() / count);
    let expert =
        |e| Entry { dtype: entry.dtype, shape: shape.clone(), range: start + e * each..start + (e + 1) * each };
    (0..count).map(|e| (format!("{before}{e}{after}"), expert(e))).collect()
}

/// `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`; a name that is not known stays as it is.
fn canonical_name(name: &str) -> String {
    match name {
        "token_embd.weight" => return "model.embed_tokens.weight".into(),
        "output_norm.weight" => return "model.norm.weight".into(),
        "output.weight" => return "lm_head.weight".into(),
        _ => {}
    }
    let in_block = || {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (_, canonical) = PARTS.iter().find(|(gguf, _)| *gguf == part)?;
        Some(format!("model.layers.{layer}.{canonical}.{kind}"))
    };
    in_block().unwrap_or_else(|| name.to_owned())
}

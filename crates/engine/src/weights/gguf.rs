//! GGUF files as a [`Source`] under canonical names.
//!
//! Laws: of architecture `llama` the q and k rows of a head are stored as pairs; of others, in the order of checkpoints.
//! Memory for the names of experts stays within a small multiple of the file's size.

use super::gguf_header::{parse, MAGIC};
use super::shards::Shards;
use super::stored::{Entry, Stored};
use super::{map, mmproj, Metadata, Source};
use crate::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

/// GGUF files, whole or split.
pub struct Gguf;

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
        let paired = first.paired();
        let mut parts: Vec<Box<dyn Source>> = vec![Box::new(first)];
        for number in 2..=n_parts {
            parts.push(Box::new(Self::open_one(&part(number))?.0.with_pairs(paired)));
        }
        Ok((Box::new(Shards::of(parts, path.parent().unwrap_or(path), ".gguf")?), metadata))
    }

    fn open_one(path: &Path) -> Result<(Stored, Metadata)> {
        let map = map(path)?;
        let header = parse(&map).map_err(|e| Error::load(format!("{}: {e}", path.display())))?;
        let metadata = Metadata { file: path.to_owned(), values: header.values };
        let architecture = metadata.text("general.architecture")?;
        let paired = if architecture == Some("llama") { Some(llama_heads(&metadata)?) } else { None };
        let tensors = match architecture {
            Some(mmproj::ARCHITECTURE) => mmproj::canonical(header.tensors),
            _ => canonical(header.tensors, map.len()).map_err(|e| metadata.error(e))?,
        };
        Ok((Stored::new(path, tensors).with_pairs(paired), metadata))
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

fn llama_heads(metadata: &Metadata) -> Result<[usize; 2]> {
    let key = "llama.attention.head_count";
    let heads = metadata.need(key, metadata.size(key)?)?;
    Ok([heads, metadata.size("llama.attention.head_count_kv")?.unwrap_or(heads)])
}

/// GGUF names of the parts of a block, and what checkpoints call them.
/// Source: gguf-py, `tensor_mapping.py`, for the architectures llama, qwen2, qwen2moe, qwen3 and qwen3moe.
const PARTS: [(&str, &str); 19] = [
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
    ("ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
    ("ffn_gate_shexp", "mlp.shared_expert.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_expert.up_proj"),
    ("ffn_down_shexp", "mlp.shared_expert.down_proj"),
];

/// A file has at least so many bytes for each of its experts: to name one takes some 250 bytes of memory. In real models
/// the smallest have thousands.
const EXPERT_BYTES: usize = 64;

/// The tensors of a file of `n_bytes` under their canonical names.
fn canonical(tensors: HashMap<String, Entry>, n_bytes: usize) -> std::result::Result<BTreeMap<String, Entry>, String> {
    let tensors: Vec<_> = tensors.into_iter().map(|(name, entry)| (canonical_name(&name), entry)).collect();
    let experts = tensors.iter().filter(|(name, _)| name.contains('*')).map(|(_, entry)| entry.shape[0]);
    // In all: several tensors may claim the same bytes.
    let (n_experts, most) = (experts.fold(0, usize::saturating_add), n_bytes / EXPERT_BYTES);
    if n_experts > most {
        return Err(format!(
            "its ffn_*_exps tensors claim {n_experts} experts; a file of {n_bytes} bytes holds at most {most}"
        ));
    }
    Ok(tensors.into_iter().flat_map(|(name, entry)| unstacked(name, entry)).collect())
}

/// A tensor under its canonical name; the experts of a layer, which the file stacks `[E, …]`, one by one. A gate of one
/// row, which the file keeps as a vector, is a matrix.
fn unstacked(name: String, mut entry: Entry) -> Vec<(String, Entry)> {
    if name.ends_with("shared_expert_gate.weight") && entry.shape.len() == 1 {
        entry.shape.insert(0, 1);
    }
    let Some((before, after)) = name.split_once('*') else { return vec![(name, entry)] };
    let (count, shape) = (entry.shape[0], entry.shape[1..].to_vec());
    let (start, each) = (entry.range.start, entry.range.len() / count);
    let expert = |e| Entry {
        format: entry.format.clone(),
        shape: shape.clone(),
        range: start + e * each..start + (e + 1) * each,
    };
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

//! GGUF files of a vision tower and a projector alone ("mmproj", architecture `clip`), which lie beside the one of their
//! language model.
//!
//! Law: names go out as those of [`llava`](super::llava). Converters give the two matrices of a feed-forward the same names
//! in either order; the first is the one with more rows than columns.

use super::stored::Entry;
use std::collections::{BTreeMap, HashMap};

/// Of these files.
pub const ARCHITECTURE: &str = "clip";

/// Beginnings of names outside of blocks, and what they are here.
/// Source: llama.cpp, `tools/mtmd/clip-impl.h` and `tools/mtmd/legacy-models`.
const NAMES: [(&str, &str); 5] = [
    ("v.class_embd", "vision.embeddings.class_embedding"),
    ("v.patch_embd.", "vision.embeddings.patch_embedding."),
    ("v.position_embd.", "vision.embeddings.position_embedding."),
    ("v.pre_ln.", "vision.pre_layrnorm."),
    ("mm.", "projector."),
];

/// Parts of a block, and what they are here.
const PARTS: [(&str, &str); 8] = [
    ("ln1", "layer_norm1"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_out", "self_attn.out_proj"),
    ("ln2", "layer_norm2"),
    ("ffn_up", "mlp.fc1"),
    ("ffn_down", "mlp.fc2"),
];

/// The tensors under their names here; one that is not known keeps its own.
pub fn canonical(tensors: HashMap<String, Entry>) -> BTreeMap<String, Entry> {
    let down = tensors.get("v.blk.0.ffn_down.weight");
    let swapped = down.is_some_and(|entry| matches!(entry.shape[..], [rows, cols] if rows > cols));
    tensors.into_iter().map(|(name, entry)| (renamed(&name, swapped).unwrap_or(name), entry)).collect()
}

fn renamed(name: &str, swapped: bool) -> Option<String> {
    let Some(rest) = name.strip_prefix("v.blk.") else {
        return NAMES.iter().find_map(|(begin, here)| Some(format!("{here}{}", name.strip_prefix(begin)?)));
    };
    let (layer, rest) = rest.split_once('.')?;
    let (part, kind) = rest.rsplit_once('.')?;
    let part = match part {
        "ffn_up" if swapped => "ffn_down",
        "ffn_down" if swapped => "ffn_up",
        part => part,
    };
    let (_, here) = PARTS.iter().find(|(theirs, _)| *theirs == part)?;
    Some(format!("vision.encoder.layers.{layer}.{here}.{kind}"))
}

//! [`ModelConfig`] from the keys of a GGUF file; what the keys leave open is told by which tensors there are.
//! Source of names and defaults: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, gguf-py `constants.py`.

use super::{Embedding, Experts, Family, Head, ModelConfig, Rope, RopeScaling, DENSE, MOST_LAYERS, QWEN};
use crate::weights::{Metadata, Source};
use crate::Result;

/// Reads keys below the architecture's name.
pub(super) struct Keys<'a> {
    pub metadata: &'a Metadata,
    architecture: &'a str,
}

impl Keys<'_> {
    pub fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.metadata.size(&self.name(key))
    }

    fn need_size(&self, key: &str) -> Result<usize> {
        self.metadata.need(&self.name(key), self.size(key)?)
    }

    fn float(&self, key: &str) -> Result<Option<f32>> {
        self.metadata.float(&self.name(key))
    }
}

impl ModelConfig {
    /// From the keys of a GGUF file and its tensors.
    pub fn from_gguf(metadata: &Metadata, weights: &dyn Source) -> Result<Self> {
        let key = "general.architecture";
        let architecture = metadata.need(key, metadata.text(key)?)?;
        let family = Family::of(architecture, |family| family.gguf).map_err(|e| metadata.error(e))?;
        let keys = Keys { metadata, architecture };
        let heads = keys.need_size("attention.head_count")?;
        let hidden = keys.need_size("embedding_length")?;
        let head_size = keys.size("attention.key_length")?.or(hidden.checked_div(heads)).unwrap_or(0);
        let eps = keys.name("attention.layer_norm_rms_epsilon");
        ModelConfig {
            model_type: architecture.to_owned(),
            architectures: vec![family.class.to_owned()],
            hidden,
            layers: keys.need_size("block_count")?,
            heads,
            kv_heads: keys.size("attention.head_count_kv")?.unwrap_or(heads),
            head_size,
            ffn: keys.size("expert_feed_forward_length")?.map_or_else(|| keys.need_size("feed_forward_length"), Ok)?,
            experts: experts(&keys, family, weights)?,
            vocab: weights.tensor("model.embed_tokens.weight")?.shape[0],
            context: keys.need_size("context_length")?,
            norm_eps: metadata.need(&eps, metadata.float(&eps)?)?,
            rope: rope(&keys, weights, head_size)?,
            head: if weights.has("lm_head.weight") { Head::Own } else { Head::Tied },
            qkv_bias: family.qkv_bias,
            qk_norm: family.qk_norm,
            sliding_window: keys.size("attention.sliding_window")?.unwrap_or(0),
            embedding: Embedding::from_gguf(&keys)?,
            vision: None,
            bos: metadata.token("tokenizer.ggml.bos_token_id")?,
            eos: eos(metadata)?,
        }
        .checked()
        .map_err(|e| metadata.error(e))
    }
}

/// A llama with experts is what its publisher calls Mixtral. Layers without experts are those that have one network.
fn experts(keys: &Keys, family: &Family, weights: &dyn Source) -> Result<Option<Experts>> {
    match keys.size("expert_count")?.unwrap_or(0) {
        0 if family.experts.is_none() => Ok(None),
        count => {
            let per_token = keys.need_size("expert_used_count")?;
            let normalise = keys.metadata.flag(&keys.name("expert_weights_norm"))?.unwrap_or(!family.shared_expert);
            let shared = || keys.need_size("expert_shared_feed_forward_length");
            let shared = family.shared_expert.then(shared).transpose()?;
            let layers = keys.need_size("block_count")?.min(MOST_LAYERS);
            let is_dense = |layer: &usize| weights.has(&format!("model.layers.{layer}.mlp.{}.weight", DENSE[0]));
            let dense: Vec<_> = (0..layers).filter(is_dense).collect();
            let dense_ffn = if dense.is_empty() { 0 } else { keys.need_size("feed_forward_length")? };
            Ok(Some(Experts { count, per_token, normalise, shared, dense, dense_ffn, names: &QWEN }))
        }
    }
}

/// End of text, of a turn and of a message, as far as the file names them.
fn eos(metadata: &Metadata) -> Result<Vec<u32>> {
    let mut tokens = Vec::new();
    for key in ["eos", "eot", "eom"] {
        let token = metadata.token(&format!("tokenizer.ggml.{key}_token_id"))?;
        tokens.extend(token.filter(|token| !tokens.contains(token)));
    }
    Ok(tokens)
}

fn rope(keys: &Keys, weights: &dyn Source, head_size: usize) -> Result<Rope> {
    for key in ["rope.dimension_count", "attention.value_length"] {
        if let Some(other) = keys.size(key)?.filter(|&n| n != head_size) {
            let key = keys.name(key);
            return Err(keys
                .metadata
                .error(format_args!("{key} {other} other than the head size {head_size} is not supported")));
        }
    }
    let kind = keys.metadata.text(&keys.name("rope.scaling.type"))?;
    let factor = keys.float("rope.scaling.factor")?.or(keys.float("rope.scale_linear")?);
    let scaling = match (kind, factor) {
        _ if weights.has("rope_freqs.weight") => {
            let factors = weights.rows("rope_freqs.weight", &[head_size / 2], 0..head_size / 2)?;
            RopeScaling::Factors(factors.to_f32())
        }
        (Some("none"), _) | (None, None) => RopeScaling::None,
        (Some("linear") | None, Some(factor)) => RopeScaling::Linear { factor },
        (Some(kind), _) => {
            let key = keys.name("rope.scaling.type");
            return Err(keys
                .metadata
                .error(format_args!("{key} {kind:?} is not supported; supported are none, linear")));
        }
    };
    Ok(Rope { theta: keys.float("rope.freq_base")?.unwrap_or(10_000.0), scaling })
}

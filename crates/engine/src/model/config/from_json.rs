//! [`ModelConfig`] from `config.json` and `generation_config.json`, with the old spelling of the rope keys
//! (`rope_theta`, `rope_scaling`) and the new one (`rope_parameters`).
//! Source of names and defaults: transformers, `configuration_{llama,mistral,qwen2,qwen3}.py`, `modeling_rope_utils.py`.

use super::{
    vision, Embedding, ExpertNames, Experts, Family, Head, ModelConfig, Rope, RopeScaling, MIXTRAL, MOST_LAYERS,
};
use crate::weights::{llava, read_json};
use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// What is wrong with a file.
pub(super) type Parsed<T> = std::result::Result<T, String>;

impl ModelConfig {
    /// From `config.json` and, where there is one, `generation_config.json`, whose end tokens win.
    pub fn from_json(config: &Value, generation: Option<&Value>) -> Result<Self> {
        read(&Fields(config), generation.map(Fields)).map_err(|e| Error::load(format!("config.json: {e}")))
    }

    pub(super) fn from_folder(folder: &Path) -> Result<Self> {
        let generation = folder.join("generation_config.json");
        let generation = generation.is_file().then(|| read_json(&generation)).transpose()?;
        let config = read_json(&folder.join("config.json"))?;
        let read = |config: &Value| {
            Self::from_json(config, generation.as_ref()).map_err(|e| Error::load(format!("{}: {e}", folder.display())))
        };
        if !llava::is_llava(&config) {
            return Ok(ModelConfig { embedding: Embedding::from_folder(folder)?, ..read(&config)? });
        }
        let (text, vision) = vision::split(folder, &config)?;
        Ok(ModelConfig { model_type: "llava".into(), vision: Some(vision), ..read(&text)? })
    }
}

fn read(config: &Fields, generation: Option<Fields>) -> Parsed<ModelConfig> {
    let family = Family::of(config.text("model_type")?.unwrap_or_default(), |family| family.model_type)?;
    refuse_unknown(config)?;
    let (hidden, heads) = (config.need_size("hidden_size")?, config.need_size("num_attention_heads")?);
    let layers = config.need_size("num_hidden_layers")?;
    let generation_eos = generation.map(|g| g.tokens("eos_token_id")).transpose()?.unwrap_or_default();
    let eos = if generation_eos.is_empty() { config.tokens("eos_token_id")? } else { generation_eos };
    let architectures = config.texts("architectures")?.unwrap_or_else(|| vec![family.class.to_owned()]);
    let head = match config.flag("tie_word_embeddings")?.unwrap_or(false) {
        _ if family.is_headless(&architectures) => Head::None,
        true => Head::Tied,
        false => Head::Own,
    };
    ModelConfig {
        model_type: family.model_type.to_owned(),
        architectures,
        hidden,
        layers,
        heads,
        kv_heads: config.size("num_key_value_heads")?.unwrap_or(heads),
        head_size: config.size("head_dim")?.or(hidden.checked_div(heads)).unwrap_or(0),
        ffn: config.size("moe_intermediate_size")?.map_or_else(|| config.need_size("intermediate_size"), Ok)?,
        experts: family.experts.map(|names| experts(config, family, names, layers)).transpose()?,
        vocab: config.need_size("vocab_size")?,
        context: config.need_size("max_position_embeddings")?,
        norm_eps: config.float("rms_norm_eps")?.unwrap_or(1e-6),
        rope: rope(config)?,
        head,
        qkv_bias: family.qkv_bias,
        qk_norm: family.qk_norm,
        sliding_window: sliding_window(config, family, layers)?,
        embedding: None,
        vision: None,
        bos: config.tokens("bos_token_id")?.first().copied(),
        eos,
    }
    .checked()
}

/// Options that no supported model sets and that would change the result.
fn refuse_unknown(config: &Fields) -> Parsed<()> {
    if let Some(other) = config.text("hidden_act")?.filter(|&act| act != "silu") {
        return Err(format!("hidden_act {other:?} is not supported; supported is \"silu\""));
    }
    for key in ["attention_bias", "mlp_bias"] {
        if config.flag(key)? == Some(true) {
            return Err(format!("{key} is not supported"));
        }
    }
    Ok(())
}

/// The mixture: it is in each layer whose number, counted from 1, is a multiple of the step, and that is not named as one
/// without.
fn experts(config: &Fields, family: &Family, names: &'static ExpertNames, layers: usize) -> Parsed<Experts> {
    let without = config.sizes("mlp_only_layers")?.unwrap_or_default();
    let step = config.size("decoder_sparse_step")?.unwrap_or(1);
    if step == 0 {
        return Err("decoder_sparse_step must be 1 or more".into());
    }
    let is_dense = |layer: &usize| without.contains(layer) || !(layer + 1).is_multiple_of(step);
    let dense: Vec<_> = (0..layers.min(MOST_LAYERS)).filter(is_dense).collect();
    let dense_ffn = if dense.is_empty() { 0 } else { config.need_size("intermediate_size")? };
    let count = config.size("num_local_experts")?.map_or_else(|| config.need_size("num_experts"), Ok)?;
    let normalise = config.flag("norm_topk_prob")?.unwrap_or(*names == MIXTRAL);
    let shared = family.shared_expert.then(|| config.need_size("shared_expert_intermediate_size")).transpose()?;
    let per_token = config.need_size("num_experts_per_tok")?;
    Ok(Experts { count, per_token, normalise, shared, dense, dense_ffn, names })
}

/// The window, where all layers have it; transformers lets some layers have it and others not.
fn sliding_window(config: &Fields, family: &Family, layers: usize) -> Parsed<usize> {
    let window = config.size("sliding_window")?.unwrap_or(0);
    let by_default = family.model_type == "mistral";
    let sliding = match config.0["layer_types"].as_array() {
        Some(types) => types.iter().filter(|t| *t == "sliding_attention").count(),
        None if window == 0 || !config.flag("use_sliding_window")?.unwrap_or(by_default) => 0,
        None => layers.saturating_sub(config.size("max_window_layers")?.unwrap_or(0)),
    };
    match sliding {
        0 => Ok(0),
        n if n == layers => Ok(window),
        n => Err(format!("sliding_window in {n} of {layers} layers is not supported; it must be in all or none")),
    }
}

fn rope(config: &Fields) -> Parsed<Rope> {
    let new = Fields(&config.0["rope_parameters"]);
    let scaling = if new.0.is_object() { Fields(new.0) } else { Fields(&config.0["rope_scaling"]) };
    let theta = new.float("rope_theta")?.or(config.float("rope_theta")?).unwrap_or(10_000.0);
    for fields in [config, &new] {
        if fields.float("partial_rotary_factor")?.is_some_and(|part| part != 1.0) {
            return Err("partial_rotary_factor is not supported".into());
        }
    }
    let kind = scaling.text("rope_type")?.or(scaling.text("type")?).unwrap_or("default");
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: scaling.need_float("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: scaling.need_float("factor")?,
            low_freq_factor: scaling.need_float("low_freq_factor")?,
            high_freq_factor: scaling.need_float("high_freq_factor")?,
            original_context: scaling.need_float("original_max_position_embeddings")?,
        },
        other => return Err(format!("rope type {other:?} is not supported; supported are default, linear, llama3")),
    };
    Ok(Rope { theta, scaling })
}

/// An object of the file. A key that is absent or null is `None`.
pub(super) struct Fields<'a>(pub &'a Value);

impl<'a> Fields<'a> {
    fn read<T>(&self, key: &str, kind: &str, as_kind: impl Fn(&'a Value) -> Option<T>) -> Parsed<Option<T>> {
        match self.0.get(key).filter(|value| !value.is_null()) {
            None => Ok(None),
            Some(value) => as_kind(value).map(Some).ok_or_else(|| format!("{key} must be {kind}, not {value}")),
        }
    }

    pub fn size(&self, key: &str) -> Parsed<Option<usize>> {
        self.read(key, "a whole number ≥ 0", |v| usize::try_from(v.as_u64()?).ok())
    }

    pub fn float(&self, key: &str) -> Parsed<Option<f32>> {
        self.read(key, "a number", |v| Some(v.as_f64()? as f32))
    }

    pub fn flag(&self, key: &str) -> Parsed<Option<bool>> {
        self.read(key, "true or false", Value::as_bool)
    }

    pub fn text(&self, key: &str) -> Parsed<Option<&'a str>> {
        self.read(key, "text", Value::as_str)
    }

    fn texts(&self, key: &str) -> Parsed<Option<Vec<String>>> {
        let text = |v: &Value| Some(v.as_str()?.to_owned());
        self.read(key, "a list of texts", |v| v.as_array()?.iter().map(text).collect())
    }

    fn sizes(&self, key: &str) -> Parsed<Option<Vec<usize>>> {
        let size = |v: &Value| usize::try_from(v.as_u64()?).ok();
        self.read(key, "a list of whole numbers ≥ 0", |v| v.as_array()?.iter().map(size).collect())
    }

    /// One token id or a list of them.
    pub fn tokens(&self, key: &str) -> Parsed<Vec<u32>> {
        let token = |v: &Value| u32::try_from(v.as_u64()?).ok();
        let tokens = |v: &Value| match v.as_array() {
            Some(list) => list.iter().map(token).collect(),
            None => Some(vec![token(v)?]),
        };
        Ok(self.read(key, "a token id or a list of token ids", tokens)?.unwrap_or_default())
    }

    pub fn need_size(&self, key: &str) -> Parsed<usize> {
        self.size(key)?.ok_or_else(|| format!("{key} is missing"))
    }

    fn need_float(&self, key: &str) -> Parsed<f32> {
        self.float(key)?.ok_or_else(|| format!("{key} is missing"))
    }
}

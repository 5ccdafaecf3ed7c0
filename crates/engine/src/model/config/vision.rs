//! [`VisionConfig`] from the files of a LLaVA checkpoint, in the layout of transformers or the original's.
//! Source of names and defaults: transformers, `configuration_{llava,clip}.py`; LLaVA, `llava/model/llava_arch.py`.

use super::from_json::{Fields, Parsed};
use crate::image::{Preprocess, Sight};
use crate::weights::{llava, read_json};
use crate::{Error, Result};
use serde_json::{json, Value};
use sglang_kernels::device::Gelu;
use std::path::Path;

/// A CLIP vision tower and the projector after it.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    /// Width of a patch's vector.
    pub hidden: usize,
    /// Layers that run: those up to the one whose output is taken.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width between the two matrices of a layer.
    pub ffn: usize,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Epsilon of LayerNorm.
    pub norm_eps: f32,
    /// Activation of the layers; that of the projector is exact.
    pub activation: Gelu,
    /// The class token's output is a feature too.
    pub class_token: bool,
    /// Pictures and their place in prompts.
    pub sight: Sight,
}

impl VisionConfig {
    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        (self.sight.preprocess.crop / self.patch).pow(2)
    }

    /// Fails where the sizes cannot be those of a vision tower.
    pub(super) fn checked(self) -> Parsed<Self> {
        let sizes = [self.hidden, self.heads, self.ffn, self.sight.n_tokens];
        match sizes.iter().all(|size| (1..=1 << 20).contains(size)) && self.hidden.is_multiple_of(self.heads) {
            true => Ok(self),
            false => Err(format!("the sizes of the vision tower make no sense: {self:?}")),
        }
    }
}

/// What LLaVA's `text_config` leaves out.
fn text_defaults() -> Value {
    json!({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "vocab_size": 32000, "bos_token_id": 1,
        "eos_token_id": 2})
}

/// The configuration of the language model, as if it were alone, and that of the vision tower.
pub fn split(folder: &Path, config: &Value) -> Result<(Value, VisionConfig)> {
    let tower = llava::tower(folder, config)?;
    let (mut text, own) = match &tower {
        Some(_) => (config.clone(), json!({"model_type": "llama"})),
        None => (text_defaults(), config["text_config"].clone()),
    };
    if let (Some(text), Some(own)) = (text.as_object_mut(), own.as_object()) {
        text.extend(own.clone());
        text.insert("architectures".into(), config["architectures"].clone());
    }
    let described = match &tower {
        Some(tower) => read_json(&tower.join("config.json"))?,
        None => config.clone(),
    };
    let nested = &described["vision_config"];
    let vision = Fields(if nested.is_object() { nested } else { &described });
    let preprocessor = tower.as_deref().unwrap_or(folder).join("preprocessor_config.json");
    let preprocessor = read_json(&preprocessor)?;
    let read = read(&Fields(config), &vision, &Fields(&preprocessor));
    read.map(|vision| (text, vision)).map_err(|e| Error::load(format!("{}: config.json: {e}", folder.display())))
}

fn read(config: &Fields, vision: &Fields, preprocessor: &Fields) -> Parsed<VisionConfig> {
    let activation = match vision.text("hidden_act")?.unwrap_or("quick_gelu") {
        "quick_gelu" => Gelu::Quick,
        "gelu" => Gelu::Exact,
        other => return Err(format!("hidden_act {other:?} of the vision tower is not supported")),
    };
    for (key, expected) in [("projector_hidden_act", "gelu"), ("mm_projector_type", "mlp2x_gelu")] {
        if let Some(other) = config.text(key)?.filter(|&value| value != expected) {
            return Err(format!("{key} {other:?} is not supported; supported is {expected:?}"));
        }
    }
    let strategy = config.text("vision_feature_select_strategy")?.or(config.text("mm_vision_select_feature")?);
    let class_token = matches!(strategy, Some("full" | "cls_patch"));
    let preprocess = preprocess(config, preprocessor)?;
    let patch = vision.size("patch_size")?.unwrap_or(32);
    if vision.need_size("image_size")? != preprocess.crop {
        return Err(format!("the vision tower does not take pictures of {} pixels", preprocess.crop));
    }
    let n_tokens = n_tokens(preprocess.crop, patch)? + usize::from(class_token);
    let token = [config.tokens("image_token_index")?, config.tokens("image_token_id")?].concat().first().copied();
    VisionConfig {
        hidden: vision.need_size("hidden_size")?,
        layers: layers(config, vision.need_size("num_hidden_layers")?)?,
        heads: vision.need_size("num_attention_heads")?,
        ffn: vision.need_size("intermediate_size")?,
        patch,
        norm_eps: vision.float("layer_norm_eps")?.unwrap_or(1e-5),
        activation,
        class_token,
        sight: Sight { preprocess, n_tokens, token },
    }
    .checked()
}

/// Patches of a picture of `side` × `side` pixels.
pub(super) fn n_tokens(side: usize, patch: usize) -> Parsed<usize> {
    match side.checked_rem(patch) {
        Some(0) if side <= 4096 => Ok((side / patch).pow(2)),
        _ => Err(format!("pictures of {side} pixels do not fit the vision tower's patches of {patch}")),
    }
}

/// Layers up to the one whose output is taken; negative numbers count from the end.
fn layers(config: &Fields, of: usize) -> Parsed<usize> {
    let key = ["vision_feature_layer", "mm_vision_select_layer"].into_iter().find(|key| !config.0[*key].is_null());
    let number = key.map_or(Some(-2), |key| config.0[key].as_i64());
    let layers = number.and_then(|n| usize::try_from(if n < 0 { of as i64 + 1 + n } else { n }).ok());
    layers
        .filter(|&n| n <= of && of <= 1 << 12)
        .ok_or_else(|| format!("the vision tower of {of} layers has no such one to take"))
}

fn preprocess(config: &Fields, processor: &Fields) -> Parsed<Preprocess> {
    let side = |key: &str, names: &[&str]| {
        let value = &processor.0[key];
        let named = names.iter().find_map(|name| value[*name].as_u64());
        let side = value.as_u64().or(named).filter(|side| (1..=4096).contains(side));
        side.map(|side| side as usize)
            .ok_or_else(|| format!("{key} of preprocessor_config.json is not supported: {value}"))
    };
    let channels = |key: &str, default: [f32; 3]| match processor.0[key].as_array() {
        None => Ok(default),
        Some(list) => {
            let values: Vec<f32> = list.iter().filter_map(|v| Some(v.as_f64()? as f32)).collect();
            values.try_into().map_err(|_| format!("{key} of preprocessor_config.json must be three numbers"))
        }
    };
    let std = channels("image_std", [0.268_629_55, 0.261_302_6, 0.275_777_1])?;
    if std.iter().any(|&std| std <= 0.0 || std.is_nan()) {
        return Err("image_std of preprocessor_config.json must be above 0".into());
    }
    Ok(Preprocess {
        pad: config.text("image_aspect_ratio")? == Some("pad") || processor.flag("do_pad")?.unwrap_or(false),
        shortest: side("size", &["shortest_edge"])?,
        crop: side("crop_size", &["height"])?,
        mean: channels("image_mean", [0.481_454_67, 0.457_827_5, 0.408_210_72])?,
        std,
    })
}

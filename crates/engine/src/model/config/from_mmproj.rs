//! [`VisionConfig`] from the keys of a GGUF file that holds a vision tower alone ("mmproj").
//! Source of names and defaults: llama.cpp, `tools/mtmd/clip-impl.h`, `clip.cpp` and `legacy-models`.

use super::from_json::Parsed;
use super::vision::n_tokens;
use super::VisionConfig;
use crate::image::{Preprocess, Sight};
use crate::weights::{Metadata, Source};
use crate::Result;
use sglang_kernels::device::Gelu;

impl VisionConfig {
    /// From the keys and tensors of a file, for a language model of this hidden size.
    pub fn from_mmproj(keys: &Metadata, weights: &dyn Source, hidden: usize) -> Result<Self> {
        refuse_others(keys)?;
        let size = |key: &str| {
            let key = format!("clip.vision.{key}");
            keys.need(&key, keys.size(&key)?)
        };
        let [side, patch] = [size("image_size")?, size("patch_size")?];
        let eps = "clip.vision.attention.layer_norm_epsilon";
        let vision = VisionConfig {
            hidden: size("embedding_length")?,
            layers: layers(keys, size("block_count")?)?,
            heads: size("attention.head_count")?,
            ffn: size("feed_forward_length")?,
            patch,
            norm_eps: keys.need(eps, keys.float(eps)?)?,
            activation: if keys.flag("clip.use_gelu")? == Some(true) { Gelu::Exact } else { Gelu::Quick },
            class_token: false,
            sight: Sight {
                preprocess: preprocess(keys, side)?,
                n_tokens: n_tokens(side, patch).map_err(|e| keys.error(e))?,
                token: None,
            },
        };
        let made = weights.tensor("projector.2.weight")?.shape.first().copied().unwrap_or(0);
        if made != hidden {
            return Err(keys.error(format_args!(
                "its projector makes {made} values of each patch; the language model has a hidden size of {hidden}: they \
                 do not belong together"
            )));
        }
        vision.checked().map_err(|e| keys.error(e))
    }
}

/// Towers and projectors that are not those of LLaVA 1.5.
fn refuse_others(keys: &Metadata) -> Result<()> {
    let only = [
        ("clip.projector_type", "mlp"),
        ("clip.vision.projector_type", "mlp"),
        ("clip.vision.mm_patch_merge_type", "flat"),
    ];
    for (key, expected) in only {
        if let Some(other) = keys.text(key)?.filter(|&value| value != expected) {
            return Err(keys.error(format_args!("{key} {other:?} is not supported; supported is {expected:?}")));
        }
    }
    match keys.flag("clip.use_silu")? {
        Some(true) => Err(keys.error("clip.use_silu is not supported")),
        _ => Ok(()),
    }
}

/// Layers up to the one whose output is taken. Where the file does not say: all of them if its converter left out those
/// behind it, else all but the last.
fn layers(keys: &Metadata, of: usize) -> Result<usize> {
    let key = "clip.vision.feature_layer";
    let taken = match keys.ints(key)? {
        Some(&[layer]) => usize::try_from(layer).ok(),
        Some(_) => None,
        None if keys.flag("clip.has_llava_projector")? == Some(true) => Some(of),
        None => of.checked_sub(1),
    };
    taken
        .filter(|&n| n <= of && of <= 1 << 12)
        .ok_or_else(|| keys.error(format_args!("{key} must be one number, of the {of} layers of the vision tower")))
}

/// Pictures are filled up to squares, as LLaVA 1.5 was trained, unless the file says otherwise.
fn preprocess(keys: &Metadata, side: usize) -> Result<Preprocess> {
    let key = "clip.vision.image_aspect_ratio";
    let pad = match keys.text(key)?.unwrap_or("pad") {
        "pad" => true,
        "square" => false,
        other => {
            return Err(keys.error(format_args!("{key} {other:?} is not supported; supported are \"pad\", \"square\"")))
        }
    };
    let channels = |key: &str| -> Result<[f32; 3]> {
        let read =
            |list: &[f32]| -> Parsed<[f32; 3]> { list.try_into().map_err(|_| format!("{key} must be three numbers")) };
        read(keys.need(key, keys.floats(key)?)?).map_err(|e| keys.error(e))
    };
    let std = channels("clip.vision.image_std")?;
    if std.iter().any(|&std| std <= 0.0 || std.is_nan()) {
        return Err(keys.error("clip.vision.image_std must be above 0"));
    }
    Ok(Preprocess { pad, shortest: side, crop: side, mean: channels("clip.vision.image_mean")?, std })
}

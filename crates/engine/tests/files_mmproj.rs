//! Vision towers in GGUF files of their own: what their keys mean, and what does not fit is named.

mod fixtures;
mod made;

use candle_core::quantized::gguf_file::Value;
use candle_core::quantized::GgmlDType;
use candle_core::{Device, Tensor};
use fixtures::{fixture, Scratch};
use made::{eyes, Eyes, Spelling};
use sglang_engine::loader::{self, LoadOptions};
use sglang_engine::model::config::{ModelConfig, VisionConfig};
use sglang_engine::weights;
use sglang_kernels::device::Gelu;
use std::path::PathBuf;

/// The tiny LLaVA in two files.
struct Pair {
    scratch: Scratch,
    model: PathBuf,
    mmproj: PathBuf,
}

fn pair(eyes: Eyes) -> Pair {
    let scratch = Scratch::new();
    let [model, mmproj] = ["model.gguf", "mmproj-model-f16.gguf"].map(|name| scratch.0.join(name));
    made::gguf("llava", GgmlDType::F32, &model);
    eyes.write(GgmlDType::F16, &mmproj);
    Pair { scratch, model, mmproj }
}

fn vision(eyes: Eyes) -> Result<VisionConfig, String> {
    let pair = pair(eyes);
    let files = weights::open_with(&pair.model, Some(&pair.mmproj)).map_err(|e| e.to_string())?;
    let config = ModelConfig::of(&files).map_err(|e| e.to_string())?;
    assert_eq!((&*config.model_type, &*config.architectures[0]), ("llava", "LlavaForConditionalGeneration"));
    Ok(config.vision.unwrap())
}

/// Why the pair does not load, without the folder.
#[track_caller]
fn refusal(pair: &Pair) -> String {
    let (model_path, mmproj) = (pair.model.clone(), Some(pair.mmproj.clone()));
    let options = LoadOptions { model_path, mmproj, tokenizer_path: Some(fixture("llava")), ..Default::default() };
    let error = loader::load(&options, &mut |_, _| {}).err().expect("a refusal").to_string();
    error.replace(&format!("{}/", pair.scratch.0.display()), "")
}

#[test]
fn keys_say_what_config_files_say() {
    let mut expected = ModelConfig::of(&weights::open(&fixture("llava")).unwrap()).unwrap().vision.unwrap();
    expected.sight.token = None;
    for spelling in [Spelling::Old, Spelling::New] {
        assert_eq!(vision(eyes(spelling)), Ok(expected.clone()));
    }
    let old = eyes(Spelling::Old);
    assert_eq!(vision(old.clone().with("clip.use_gelu", Value::Bool(true))).unwrap().activation, Gelu::Exact);
    let mut silent = old.clone();
    silent.keys.retain(|(key, _)| key != "clip.vision.image_aspect_ratio");
    assert!(vision(silent).unwrap().sight.preprocess.pad, "LLaVA 1.5 fills up to squares");
}

#[test]
fn the_layer_that_is_taken_is_named_or_known_from_the_converter() {
    let layers = |eyes: Eyes| vision(eyes).map(|vision| vision.layers);
    let old = eyes(Spelling::Old);
    let feature = |layers: &[u32]| Value::Array(layers.iter().map(|&n| Value::U32(n)).collect());
    assert_eq!(layers(old.clone()), Ok(3));
    assert_eq!(layers(old.clone().with("clip.has_llava_projector", Value::Bool(false))), Ok(2));
    assert_eq!(layers(old.clone().with("clip.vision.feature_layer", feature(&[1]))), Ok(1));
    for wrong in [&[1, 3][..], &[4]] {
        let error = layers(old.clone().with("clip.vision.feature_layer", feature(wrong))).unwrap_err();
        let expected = "clip.vision.feature_layer must be one number, of the 3 layers of the vision tower";
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let old = eyes(Spelling::Old);
    let text = |text: &str| Value::String(text.into());
    let cases = [
        ("clip.projector_type", text("ldp"), "clip.projector_type \"ldp\" is not supported; supported is \"mlp\""),
        (
            "clip.vision.mm_patch_merge_type",
            text("spatial_unpad"),
            "clip.vision.mm_patch_merge_type \"spatial_unpad\" is not supported; supported is \"flat\"",
        ),
        (
            "clip.vision.image_aspect_ratio",
            text("anyres"),
            "clip.vision.image_aspect_ratio \"anyres\" is not supported; supported are \"pad\", \"square\"",
        ),
        ("clip.use_silu", Value::Bool(true), "clip.use_silu is not supported"),
        ("clip.vision.patch_size", Value::U32(0), "pictures of 56 pixels do not fit the vision tower's patches of 0"),
        ("clip.vision.patch_size", Value::U32(13), "pictures of 56 pixels do not fit the vision tower's patches of 13"),
        ("clip.vision.image_std", Value::Array(vec![Value::F32(1.0)]), "clip.vision.image_std must be three numbers"),
        ("general.architecture", text("llama"), "key llama.attention.head_count is missing"),
        ("general.architecture", text("bert"), "is of type \"bert\"; a vision tower is of \"clip\""),
    ];
    for (key, value, expected) in cases {
        assert_eq!(refusal(&pair(old.clone().with(key, value))), format!("mmproj-model-f16.gguf: {expected}"), "{key}");
    }
}

#[test]
fn tensors_that_are_missing_or_of_another_shape_are_named() {
    let old = eyes(Spelling::Old);
    let mut without = old.clone();
    without.tensors.retain(|(name, _)| name != "v.blk.1.attn_q.bias");
    let both = "model.gguf and mmproj-model-f16.gguf";
    assert_eq!(refusal(&pair(without)), format!("{both}: no tensor vision.encoder.layers.1.self_attn.q_proj.bias"));
    let other = |name: &str, shape: (usize, usize)| {
        let mut eyes = old.clone();
        eyes.tensors.retain(|(known, _)| known != name);
        eyes.tensors.push((name.into(), Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap()));
        refusal(&pair(eyes))
    };
    assert_eq!(
        other("v.position_embd.weight", (16, 48)),
        "mmproj-model-f16.gguf: tensor vision.embeddings.position_embedding.weight has shape [16, 48]; the configuration \
         asks for [17, 48]"
    );
    assert_eq!(
        other("mm.2.weight", (96, 64)),
        "mmproj-model-f16.gguf: its projector makes 96 values of each patch; the language model has a hidden size of 64: \
         they do not belong together"
    );
}

/// A folder of both is opened as the language model; the tower must be asked for, and belongs to GGUF files only.
#[test]
fn a_folder_may_hold_the_tower_too() {
    let pair = pair(eyes(Spelling::New));
    let files = weights::open(&pair.scratch.0).unwrap();
    assert_eq!(ModelConfig::of(&files).unwrap().vision, None);
    let seeing = weights::open_with(&pair.scratch.0, Some(&pair.mmproj)).unwrap();
    assert!(ModelConfig::of(&seeing).unwrap().vision.is_some());
    let error = weights::open_with(&fixture("llama"), Some(&pair.mmproj)).err().unwrap().to_string();
    assert!(error.contains("mmproj-model-f16.gguf: belongs to a GGUF file, which "), "{error}");
    let error = weights::open_with(&pair.model, Some(&fixture("llava/image.png"))).err().unwrap().to_string();
    assert!(error.ends_with("image.png: not a GGUF file"), "{error}");
}

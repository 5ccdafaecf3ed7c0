//! GGUF files made of safetensors checkpoints, as llama.cpp's converter makes them: its names, its order of the q and k
//! rows of llamas, its stacked experts; its vision towers in files of their own.

#![allow(dead_code, reason = "each test binary uses its own part")]

use crate::fixtures::fixture;
use candle_core::quantized::{gguf_file, GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gguf_file::Value;
use sglang_engine::model::config::{ModelConfig, RopeScaling};
use sglang_engine::weights::{self, Source};
use std::path::Path;

const NAMES: [(&str, &str); 20] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("block_sparse_moe.gate", "ffn_gate_inp"),
    ("mlp.gate", "ffn_gate_inp"),
    ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
    ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
    ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
    ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
];
const EXPERTS: [&str; 3] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// Writes the checkpoint beside the tests as a GGUF file whose matrices are of `format`, where their rows are blocks.
pub fn gguf(name: &str, format: GgmlDType, to: &Path) {
    let files = weights::open(&fixture(name)).unwrap();
    let config = ModelConfig::of(&files).unwrap();
    let architecture = if config.model_type == "qwen2_moe" {
        "qwen2moe"
    } else if config.model_type == "qwen3_moe" {
        "qwen3moe"
    } else if config.qkv_bias {
        "qwen2"
    } else if config.qk_norm {
        "qwen3"
    } else {
        "llama"
    };
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    let elsewhere = |name: &String| name.contains(".experts.") || is_of_eyes(name);
    for name in files.weights.names().iter().filter(|name| !elsewhere(name)) {
        tensors.push((gguf_name(name), tensor(&*files.weights, name, architecture, &config)));
    }
    if let Some(experts) = &config.experts {
        let (block, parts) = (experts.names.block, experts.names.parts);
        let each = |layer| (0..3).map(move |i| (layer, parts[i], EXPERTS[i]));
        for (layer, part, stacked) in
            (0..config.layers).filter(|&layer| config.experts_of(layer).is_some()).flat_map(each)
        {
            let named = |e| format!("model.layers.{layer}.{block}.experts.{e}.{part}.weight");
            let all: Vec<_> = (0..experts.count).map(|e| tensor(&*files.weights, &named(e), "", &config)).collect();
            tensors.push((format!("blk.{layer}.{stacked}.weight"), Tensor::stack(&all, 0).unwrap()));
        }
    }
    if let RopeScaling::Llama3 { .. } = config.rope.scaling {
        let plain = ModelConfig {
            rope: sglang_engine::model::config::Rope { scaling: RopeScaling::None, ..config.rope.clone() },
            ..config.clone()
        };
        let factors: Vec<f32> =
            plain.inv_freq().iter().zip(config.inv_freq()).map(|(plain, scaled)| plain / scaled).collect();
        tensors.push(("rope_freqs.weight".into(), Tensor::new(factors, &Device::Cpu).unwrap()));
    }
    write(&values(architecture, &config), tensors, format, to);
}

fn tensor(source: &dyn Source, name: &str, architecture: &str, config: &ModelConfig) -> Tensor {
    let stored = source.tensor(name).unwrap();
    let tensor = Tensor::from_vec(stored.to_f32(), stored.shape.clone(), &Device::Cpu).unwrap();
    if name.ends_with("shared_expert_gate.weight") {
        return tensor.flatten_all().unwrap();
    }
    let heads = match name {
        _ if architecture != "llama" => return tensor,
        _ if name.ends_with("q_proj.weight") => config.heads,
        _ if name.ends_with("k_proj.weight") => config.kv_heads,
        _ => return tensor,
    };
    let (rows, cols) = tensor.dims2().unwrap();
    let halves = tensor.reshape((heads, 2, rows / heads / 2, cols)).unwrap();
    halves.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, cols)).unwrap()
}

fn gguf_name(name: &str) -> String {
    let (part, kind) = name.rsplit_once('.').unwrap();
    let (block, part) = in_block(part, "model.layers.", "blk");
    let known = NAMES.iter().find(|(ours, _)| *ours == part).map(|(_, theirs)| *theirs);
    format!("{block}{}.{kind}", known.unwrap_or_else(|| panic!("no GGUF name for {name}")))
}

/// What GGUF calls the layer that a name is of, if it is of one, and the rest of the name.
fn in_block<'a>(name: &'a str, layers: &str, block: &str) -> (String, &'a str) {
    match name.strip_prefix(layers).and_then(|rest| rest.split_once('.')) {
        Some((layer, rest)) => (format!("{block}.{layer}."), rest),
        None => (String::new(), name),
    }
}

fn values(architecture: &str, config: &ModelConfig) -> Vec<(String, Value)> {
    let number = |key: &str, n: usize| (format!("{architecture}.{key}"), Value::U32(n as u32));
    let dense_ffn =
        config.experts.as_ref().filter(|experts| !experts.dense.is_empty()).map(|experts| experts.dense_ffn);
    let mut values = vec![
        ("general.architecture".to_owned(), Value::String(architecture.into())),
        number("block_count", config.layers),
        number("context_length", config.context),
        number("embedding_length", config.hidden),
        number("feed_forward_length", dense_ffn.unwrap_or(config.ffn)),
        number("attention.head_count", config.heads),
        number("attention.head_count_kv", config.kv_heads),
        number("attention.key_length", config.head_size),
        number("attention.value_length", config.head_size),
        number("attention.sliding_window", config.sliding_window),
        (format!("{architecture}.rope.freq_base"), Value::F32(config.rope.theta)),
        (format!("{architecture}.attention.layer_norm_rms_epsilon"), Value::F32(config.norm_eps)),
    ];
    if let Some(experts) = &config.experts {
        values.extend([number("expert_count", experts.count), number("expert_used_count", experts.per_token)]);
        values.extend(experts.shared.map(|ffn| number("expert_shared_feed_forward_length", ffn)));
        values.extend(experts.shared.or(dense_ffn).map(|_| number("expert_feed_forward_length", config.ffn)));
    }
    values
}

fn write(values: &[(String, Value)], tensors: Vec<(String, Tensor)>, format: GgmlDType, to: &Path) {
    let quantized: Vec<(String, QTensor)> = tensors
        .into_iter()
        .map(|(name, tensor)| {
            let blocks = tensor.rank() > 1 && tensor.dims().last().unwrap() % format.block_size() == 0;
            let kind = if blocks { format } else { GgmlDType::F32 };
            (name, QTensor::quantize(&tensor, kind).unwrap())
        })
        .collect();
    let values: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = quantized.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    gguf_file::write(&mut std::fs::File::create(to).unwrap(), &values, &tensors).unwrap();
}

/// A vision tower and its projector in a file of their own.
#[derive(Clone)]
pub struct Eyes {
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<(String, Tensor)>,
}

/// Which names the two matrices of a feed-forward have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Spelling {
    /// The first is `ffn_down`, as in all files of LLaVA 1.5 that are around.
    Old,
    /// The first is `ffn_up`.
    New,
}

const EYES: [(&str, &str); 15] = [
    ("vision.embeddings.class_embedding", "v.class_embd"),
    ("vision.embeddings.patch_embedding", "v.patch_embd"),
    ("vision.embeddings.position_embedding", "v.position_embd"),
    ("vision.pre_layrnorm", "v.pre_ln"),
    ("vision.post_layernorm", "v.post_ln"),
    ("projector.0", "mm.0"),
    ("projector.2", "mm.2"),
    ("layer_norm1", "ln1"),
    ("layer_norm2", "ln2"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.out_proj", "attn_out"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
];

fn is_of_eyes(name: &str) -> bool {
    name.starts_with("vision.") || name.starts_with("projector.")
}

/// Those of the tiny LLaVA, with the layers that run only.
pub fn eyes(spelling: Spelling) -> Eyes {
    let files = weights::open(&fixture("llava")).unwrap();
    let vision = ModelConfig::of(&files).unwrap().vision.unwrap();
    let runs = |name: &&String| {
        let layer = name.strip_prefix("vision.encoder.layers.").and_then(|rest| rest.split_once('.'));
        layer.is_none_or(|(layer, _)| layer.parse::<usize>().unwrap() < vision.layers)
    };
    let load = |name: &String| {
        let tensor = files.weights.tensor(name).unwrap();
        let mut shape = tensor.shape.clone();
        if name.contains("patch_embedding") {
            shape = vec![vision.hidden, 3, vision.patch, vision.patch];
        }
        (eyes_name(name, spelling), Tensor::from_vec(tensor.to_f32(), shape, &Device::Cpu).unwrap())
    };
    let names = files.weights.names();
    let tensors = names.iter().filter(|name| is_of_eyes(name)).filter(runs).map(load).collect();
    let number = |key: &str, n: usize| (format!("clip.vision.{key}"), Value::U32(n as u32));
    let colours = |key: &str, each: [f32; 3]| (key.to_owned(), Value::Array(each.map(Value::F32).to_vec()));
    let preprocess = vision.sight.preprocess;
    let keys = vec![
        ("general.architecture".to_owned(), Value::String("clip".into())),
        ("clip.has_vision_encoder".to_owned(), Value::Bool(true)),
        ("clip.has_llava_projector".to_owned(), Value::Bool(true)),
        ("clip.projector_type".to_owned(), Value::String("mlp".into())),
        ("clip.use_gelu".to_owned(), Value::Bool(false)),
        number("image_size", preprocess.crop),
        number("patch_size", vision.patch),
        number("embedding_length", vision.hidden),
        number("feed_forward_length", vision.ffn),
        number("attention.head_count", vision.heads),
        number("block_count", vision.layers),
        ("clip.vision.attention.layer_norm_epsilon".to_owned(), Value::F32(vision.norm_eps)),
        ("clip.vision.image_aspect_ratio".to_owned(), Value::String("square".into())),
        colours("clip.vision.image_mean", preprocess.mean),
        colours("clip.vision.image_std", preprocess.std),
    ];
    Eyes { keys, tensors }
}

fn eyes_name(name: &str, spelling: Spelling) -> String {
    let (block, rest) = in_block(name, "vision.encoder.layers.", "v.blk");
    let known = EYES.iter().find_map(|(ours, theirs)| Some((*theirs, rest.strip_prefix(ours)?)));
    let (part, kind) = known.unwrap_or_else(|| panic!("no GGUF name for {name}"));
    let part = match (spelling, part) {
        (Spelling::Old, "ffn_up") => "ffn_down",
        (Spelling::Old, "ffn_down") => "ffn_up",
        _ => part,
    };
    format!("{block}{part}{kind}")
}

impl Eyes {
    /// The same with another value of a key.
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value));
        self
    }

    /// Writes the file; matrices are of `format`, where their rows are blocks.
    pub fn write(self, format: GgmlDType, to: &Path) {
        write(&self.keys, self.tensors, format, to);
    }
}

//! GGUF files made of safetensors checkpoints, as llama.cpp's converter makes them: its names, its order of the q and k
//! rows of llamas, its stacked experts.

use crate::fixtures::fixture;
use candle_core::quantized::{gguf_file, GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use gguf_file::Value;
use sglang_engine::model::config::{ModelConfig, RopeScaling};
use sglang_engine::weights::{self, Source};
use std::path::Path;

const NAMES: [(&str, &str); 14] = [
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
];
const EXPERTS: [(&str, &str); 3] = [("w1", "ffn_gate_exps"), ("w3", "ffn_up_exps"), ("w2", "ffn_down_exps")];

/// Writes the checkpoint beside the tests as a GGUF file whose matrices are of `format`, where their rows are blocks.
pub fn gguf(name: &str, format: GgmlDType, to: &Path) {
    let files = weights::open(&fixture(name)).unwrap();
    let config = ModelConfig::of(&files).unwrap();
    let architecture = if config.qkv_bias {
        "qwen2"
    } else if config.qk_norm {
        "qwen3"
    } else {
        "llama"
    };
    let mut tensors: Vec<(String, Tensor)> = Vec::new();
    for name in files.weights.names().iter().filter(|name| !name.contains(".experts.")) {
        tensors.push((gguf_name(name), tensor(&*files.weights, name, architecture, &config)));
    }
    if let Some(experts) = &config.experts {
        for (layer, (part, stacked)) in (0..config.layers).flat_map(|layer| EXPERTS.map(|names| (layer, names))) {
            let named = |e| format!("model.layers.{layer}.block_sparse_moe.experts.{e}.{part}.weight");
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
    let (block, part) = match part.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (format!("blk.{layer}."), part),
        None => (String::new(), part),
    };
    let known = NAMES.iter().find(|(ours, _)| *ours == part).map(|(_, theirs)| *theirs);
    let router = (part == "block_sparse_moe.gate").then_some("ffn_gate_inp");
    format!("{block}{}.{kind}", known.or(router).unwrap_or_else(|| panic!("no GGUF name for {name}")))
}

fn values(architecture: &str, config: &ModelConfig) -> Vec<(String, Value)> {
    let number = |key: &str, n: usize| (format!("{architecture}.{key}"), Value::U32(n as u32));
    let mut values = vec![
        ("general.architecture".to_owned(), Value::String(architecture.into())),
        number("block_count", config.layers),
        number("context_length", config.context),
        number("embedding_length", config.hidden),
        number("feed_forward_length", config.ffn),
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

//! Configurations: what the files of real families mean, and what is refused.

mod fixtures;

use fixtures::{default_model, fixture, json, Scratch};
use serde_json::{json, Value};
use sglang_engine::model::config::{Embedding, Head, ModelConfig, Rope, RopeScaling};
use sglang_engine::weights::{self, Description, Metadata, Value as Key};

fn config_of(path: &std::path::Path) -> ModelConfig {
    ModelConfig::of(&weights::open(path).unwrap()).unwrap()
}

/// The llama fixture's configuration with some keys replaced.
fn changed(changes: Value) -> Result<ModelConfig, String> {
    let mut config = json("llama/config.json");
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    ModelConfig::from_json(&config, None).map_err(|e| e.to_string())
}

fn llama() -> ModelConfig {
    ModelConfig {
        model_type: "llama".into(),
        architectures: vec!["LlamaForCausalLM".into()],
        hidden: 64,
        layers: 3,
        heads: 4,
        kv_heads: 4,
        head_size: 16,
        ffn: 176,
        experts: None,
        vocab: 640,
        context: 2048,
        norm_eps: 1e-5,
        rope: Rope { theta: 10_000.0, scaling: RopeScaling::None },
        head: Head::Own,
        qkv_bias: false,
        qk_norm: false,
        sliding_window: 0,
        embedding: None,
        vision: None,
        bos: Some(1),
        eos: vec![2],
    }
}

#[test]
fn checkpoints_are_described_by_their_config() {
    assert_eq!(config_of(&fixture("llama")), llama());
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
    let llama3 = ModelConfig {
        hidden: 128,
        heads: 8,
        kv_heads: 2,
        vocab: 512,
        rope: Rope { theta: 500_000.0, scaling },
        head: Head::Tied,
        bos: Some(0),
        eos: vec![1],
        ..llama()
    };
    assert_eq!(config_of(&fixture("llama3")), llama3);
    let mistral = ModelConfig {
        model_type: "mistral".into(),
        architectures: vec!["MistralForCausalLM".into()],
        kv_heads: 2,
        sliding_window: 24,
        ..llama()
    };
    assert_eq!(config_of(&fixture("mistral")), mistral);
    let qwen2 = ModelConfig {
        model_type: "qwen2".into(),
        architectures: vec!["Qwen2ForCausalLM".into()],
        kv_heads: 2,
        vocab: 512,
        head: Head::Tied,
        qkv_bias: true,
        bos: Some(0),
        eos: vec![1],
        ..llama()
    };
    assert_eq!(config_of(&fixture("qwen2")), qwen2);
    let qwen3 = ModelConfig {
        model_type: "qwen3".into(),
        architectures: vec!["Qwen3ForCausalLM".into()],
        head_size: 32,
        qkv_bias: false,
        qk_norm: true,
        ..qwen2
    };
    assert_eq!(config_of(&fixture("qwen3")), qwen3);
}

#[test]
fn gguf_files_are_described_by_their_keys() {
    let tiny = ModelConfig { hidden: 256, layers: 2, kv_heads: 2, head_size: 64, ffn: 256, ..llama() };
    for format in ["F32", "Q4_1", "Q8_0", "Q4_K", "IQ4_XS"] {
        assert_eq!(config_of(&fixture(&format!("gguf/{format}.gguf"))), tiny);
    }
    let smollm = ModelConfig {
        hidden: 576,
        layers: 30,
        heads: 9,
        kv_heads: 3,
        head_size: 64,
        ffn: 1536,
        vocab: 49_152,
        context: 8192,
        rope: Rope { theta: 100_000.0, scaling: RopeScaling::None },
        head: Head::Tied,
        ..llama()
    };
    assert_eq!(config_of(&default_model()), smollm);
}

#[test]
fn end_tokens_of_the_generation_config_win() {
    let eos = |config: Value, generation: Value| {
        let mut llama = json("llama/config.json");
        llama["eos_token_id"] = config;
        ModelConfig::from_json(&llama, Some(&generation)).unwrap().eos
    };
    assert_eq!(eos(json!([3, 4]), json!({})), [3, 4]);
    assert_eq!(eos(json!([3, 4]), json!({"eos_token_id": null})), [3, 4]);
    assert_eq!(eos(json!([3, 4]), json!({"eos_token_id": 7})), [7]);
    assert_eq!(eos(json!(null), json!({"eos_token_id": [7, 8]})), [7, 8]);
    assert_eq!(eos(json!(null), json!({})), [0; 0]);
}

#[test]
fn absent_keys_have_the_defaults_of_transformers() {
    let nulls = json!({"head_dim": null, "num_key_value_heads": null, "tie_word_embeddings": null, "rope_theta": null});
    let bare = json!({"rms_norm_eps": null, "architectures": null});
    let config = changed(nulls).unwrap();
    assert_eq!(config, llama());
    assert_eq!(changed(bare).unwrap(), ModelConfig { norm_eps: 1e-6, ..llama() });
}

#[test]
fn rope_is_read_in_both_spellings() {
    let rope = |changes| changed(changes).map(|config| config.rope);
    let linear = Rope { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 4.0 } };
    assert_eq!(rope(json!({"rope_scaling": {"type": "linear", "factor": 4}})), Ok(linear.clone()));
    assert_eq!(rope(json!({"rope_scaling": {"rope_type": "linear", "factor": 4.0}})), Ok(linear.clone()));
    let new =
        json!({"rope_theta": 7, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}});
    assert_eq!(rope(new), Ok(linear));
    let yarn = "config.json: rope type \"yarn\" is not supported; supported are default, linear, llama3";
    assert_eq!(rope(json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})), Err(yarn.into()));
    assert_eq!(rope(json!({"rope_scaling": {"type": "linear"}})), Err("config.json: factor is missing".into()));
}

#[test]
fn windows_are_in_all_layers_or_none() {
    let window = |changes| changed(changes).map(|config| config.sliding_window);
    let qwen = |more: Value| {
        let mut changes = json!({"model_type": "qwen2", "sliding_window": 9, "max_window_layers": 0});
        changes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        window(changes)
    };
    assert_eq!(window(json!({"model_type": "mistral", "sliding_window": 9})), Ok(9));
    assert_eq!(window(json!({"model_type": "mistral", "sliding_window": null})), Ok(0));
    assert_eq!(qwen(json!({})), Ok(0));
    assert_eq!(qwen(json!({"use_sliding_window": false})), Ok(0));
    assert_eq!(qwen(json!({"use_sliding_window": true})), Ok(9));
    assert_eq!(qwen(json!({"use_sliding_window": true, "max_window_layers": 28})), Ok(0));
    let full =
        json!({"use_sliding_window": true, "layer_types": ["full_attention", "full_attention", "full_attention"]});
    assert_eq!(qwen(full), Ok(0));
    let some = Err("config.json: sliding_window in 2 of 3 layers is not supported; it must be in all or none".into());
    assert_eq!(qwen(json!({"use_sliding_window": true, "max_window_layers": 1})), some);
    assert_eq!(qwen(json!({"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]})), some);
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        (
            json!({"model_type": "gpt_neox"}),
            "models of type \"gpt_neox\" are not supported; supported are llama, mistral, mixtral, qwen2, qwen2_moe, qwen3, qwen3_moe",
        ),
        (json!({"hidden_size": null}), "hidden_size is missing"),
        (json!({"hidden_size": "64"}), "hidden_size must be a whole number ≥ 0, not \"64\""),
        (json!({"hidden_size": -64}), "hidden_size must be a whole number ≥ 0, not -64"),
        (json!({"hidden_size": 1e300}), "hidden_size must be a whole number ≥ 0, not 1e+300"),
        (json!({"num_hidden_layers": 0}), "the number of layers is 0; it must be between 1 and 4096"),
        (
            json!({"vocab_size": u64::MAX}),
            "the vocabulary size is 18446744073709551615; it must be between 1 and 16777216",
        ),
        (json!({"num_attention_heads": 0}), "the number of heads is 0; it must be between 1 and 4096"),
        (json!({"num_key_value_heads": 3}), "4 heads cannot share 3 key/value heads evenly"),
        (json!({"head_dim": 15}), "the head size is 15; rotary embedding needs an even one"),
        (json!({"rms_norm_eps": -1}), "the epsilon of RMSNorm is -1; it must be between 0 and 1"),
        (json!({"eos_token_id": 640}), "special token 640 is outside the vocabulary of 640"),
        (json!({"eos_token_id": "</s>"}), "eos_token_id must be a token id or a list of token ids, not \"</s>\""),
        (json!({"hidden_act": "gelu"}), "hidden_act \"gelu\" is not supported; supported is \"silu\""),
        (json!({"attention_bias": true}), "attention_bias is not supported"),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor is not supported"),
        (json!({"rope_theta": 0}), "the rotary embedding is not sound: Rope { theta: 0.0, scaling: None }"),
    ];
    for (changes, expected) in cases {
        assert_eq!(changed(changes.clone()).unwrap_err(), format!("config.json: {expected}"), "{changes}");
    }
    for config in [json!(null), json!([]), json!("x"), json!({})] {
        let error = ModelConfig::from_json(&config, None).unwrap_err().to_string();
        assert!(error.contains("models of type \"\" are not supported"), "{error}");
    }
}

/// The configuration of a fixture whose keys are changed; `None` removes a key.
fn gguf_changed(changes: &[(&str, Option<Key>)]) -> Result<ModelConfig, String> {
    let files = weights::open(&fixture("gguf/F32.gguf")).unwrap();
    let Description::Gguf(metadata) = files.description else { unreachable!("it is a GGUF file") };
    let mut metadata = Metadata { file: "m.gguf".into(), ..metadata };
    for (key, value) in changes.iter().cloned() {
        match value {
            Some(value) => metadata.values.insert(key.to_owned(), value),
            None => metadata.values.remove(key),
        };
    }
    ModelConfig::from_gguf(&metadata, files.weights.as_ref()).map_err(|e| e.to_string())
}

#[test]
fn gguf_keys_that_are_wrong_are_named() {
    let text = |text: &str| Some(Key::Text(text.into()));
    let error = |key: &str, value| gguf_changed(&[(key, value)]).unwrap_err();
    assert_eq!(error("llama.block_count", None), "m.gguf: key llama.block_count is missing");
    assert_eq!(error("llama.block_count", text("2")), "m.gguf: key llama.block_count must be a whole number ≥ 0");
    assert_eq!(error("llama.expert_count", Some(Key::Int(8))), "m.gguf: key llama.expert_used_count is missing");
    assert_eq!(
        error("llama.rope.dimension_count", Some(Key::Int(32))),
        "m.gguf: llama.rope.dimension_count 32 other than the head size 64 is not supported"
    );
    assert_eq!(
        error("llama.rope.scaling.type", text("yarn")),
        "m.gguf: llama.rope.scaling.type \"yarn\" is not supported; supported are none, linear"
    );
    assert_eq!(
        error("general.architecture", text("gemma")),
        "m.gguf: models of type \"gemma\" are not supported; supported are llama, qwen2, qwen2moe, qwen3, qwen3moe"
    );
}

#[test]
fn mixtures_are_described_in_each_spelling() {
    let experts = |config: ModelConfig| config.experts.map(|e| (e.count, e.per_token, e.normalise, e.names.block));
    assert_eq!(experts(config_of(&fixture("mixtral"))), Some((8, 2, true, "block_sparse_moe")));
    let qwen = json!({"model_type": "qwen3_moe", "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768, "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": []});
    let config = changed(qwen).unwrap();
    assert_eq!((config.ffn, config.qk_norm), (768, true));
    assert_eq!(experts(config), Some((128, 8, true, "mlp")));
    let config = config_of(&fixture("qwen2_moe"));
    let shared = config.experts.as_ref().and_then(|experts| experts.shared);
    assert_eq!((config.ffn, config.qkv_bias, shared), (32, true, Some(96)));
    assert_eq!(experts(config), Some((6, 2, false, "mlp")));
    let unsaid = json!({"model_type": "qwen2_moe", "num_experts": 6, "num_experts_per_tok": 2});
    assert_eq!(changed(unsaid).unwrap_err(), "config.json: shared_expert_intermediate_size is missing");
    let keys = [("llama.expert_count", Some(Key::Int(8))), ("llama.expert_used_count", Some(Key::Int(2)))];
    assert_eq!(experts(gguf_changed(&keys).unwrap()), Some((8, 2, true, "mlp")));
    let many = json!({"model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 3});
    assert_eq!(changed(many).unwrap_err(), "config.json: 3 of 2 experts for each token make no sense");
}

/// As transformers has it: layers by a step, counted from 1, less those that are named.
#[test]
fn some_layers_have_no_experts() {
    let dense = |step: Value, only: Value| {
        let experts = json!({"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2,
            "moe_intermediate_size": 32, "num_hidden_layers": 6, "decoder_sparse_step": step, "mlp_only_layers": only});
        changed(experts).map(|config| config.experts.map(|e| (e.dense, e.dense_ffn)).unwrap())
    };
    assert_eq!(dense(json!(1), json!([])), Ok((vec![], 0)));
    assert_eq!(dense(json!(null), json!([0, 4, 99])), Ok((vec![0, 4], 176)));
    assert_eq!(dense(json!(2), json!([3])), Ok((vec![0, 2, 3, 4], 176)));
    assert_eq!(dense(json!(0), json!([])).unwrap_err(), "config.json: decoder_sparse_step must be 1 or more");
    assert_eq!(
        dense(json!(1), json!(["a"])).unwrap_err(),
        "config.json: mlp_only_layers must be a list of whole numbers ≥ 0, not [\"a\"]"
    );
    let config = config_of(&fixture("qwen3_moe"));
    assert_eq!((0..4).map(|layer| config.experts_of(layer).is_some()).collect::<Vec<_>>(), [false, true, false, false]);
}

#[test]
fn gguf_rope_scaling_and_end_tokens_are_read() {
    let linear = [
        ("llama.rope.scaling.type", Some(Key::Text("linear".into()))),
        ("llama.rope.scaling.factor", Some(Key::Float(4.0))),
    ];
    assert_eq!(gguf_changed(&linear).unwrap().rope.scaling, RopeScaling::Linear { factor: 4.0 });
    let legacy = [("llama.rope.scale_linear", Some(Key::Float(2.0)))];
    assert_eq!(gguf_changed(&legacy).unwrap().rope.scaling, RopeScaling::Linear { factor: 2.0 });
    let ends = [("tokenizer.ggml.eot_token_id", Some(Key::Int(7))), ("tokenizer.ggml.eom_token_id", Some(Key::Int(2)))];
    assert_eq!(gguf_changed(&ends).unwrap().eos, [2, 7]);
}

#[test]
fn frequencies_follow_their_formulas() {
    let check = |scaling: RopeScaling, theta, expected: [f32; 8]| {
        let config = ModelConfig { rope: Rope { theta, scaling }, ..llama() };
        for (found, expected) in config.inv_freq().into_iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
        }
        assert_eq!(config.inv_freq().len(), 8);
    };
    let plain = [1.0, 0.316_227_77, 0.1, 0.031_622_78, 0.01, 0.003_162_277_7, 0.001, 0.000_316_227_77];
    check(RopeScaling::None, 10_000.0, plain);
    check(RopeScaling::Linear { factor: 4.0 }, 10_000.0, plain.map(|f| f / 4.0));
    let factors = [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 8.0, 8.0];
    check(RopeScaling::Factors(factors.into()), 10_000.0, std::array::from_fn(|i| plain[i] / factors[i]));
    // Evaluated in f64 from the published formula; the second lies on the ramp, the later ones are divided.
    let llama3 = [
        1.0,
        0.079_403_01,
        0.004_700_754,
        0.000_911_583_1,
        0.000_176_776_7,
        3.428_102_2e-5,
        6.647_87e-6,
        1.289_173_2e-6,
    ];
    let scaling =
        RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_context: 64.0 };
    check(scaling, 500_000.0, llama3);
}

/// What sentence-transformers leaves beside a checkpoint.
#[test]
fn poolings_are_read_where_they_are() {
    let config = |pooling: Value, modules: Option<Value>| {
        let scratch = Scratch::new();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(fixture("llama").join(file), scratch.0.join(file)).unwrap();
        }
        std::fs::create_dir(scratch.0.join("1_Pooling")).unwrap();
        scratch.write("1_Pooling/config.json", pooling.to_string());
        modules.map(|modules| scratch.write("modules.json", modules.to_string()));
        let config = ModelConfig::of(&weights::open(&scratch.0).unwrap()).map(|config| config.embedding);
        config.map_err(|e| e.to_string().replace(&scratch.0.display().to_string(), "@"))
    };
    let types = |types: &[&str]| Some(types.iter().map(|kind| json!({"type": kind})).collect());
    let last =
        json!({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": false, "pooling_mode_lasttoken": true});
    let mean = json!({"pooling_mode_mean_tokens": true, "include_prompt": true});
    let [transformer, pooling] = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"];
    let normalize = "sentence_transformers.models.Normalize";
    let embedding = |pooling, normalise| Ok(Some(Embedding { pooling, normalise }));
    assert_eq!(config(last.clone(), None), embedding("last", true));
    assert_eq!(config(mean.clone(), types(&[transformer, pooling])), embedding("mean", false));
    assert_eq!(config(last, types(&[transformer, pooling, normalize])), embedding("last", true));
    assert_eq!(config(json!({"pooling_mode": "mean"}), None), embedding("mean", true));
    for (wrong, found) in [(json!({}), ""), (json!({"pooling_mode_cls_token": true}), "cls_token")] {
        let expected = format!(
            "@/1_Pooling/config.json: pooling \"{found}\" is not supported; supported are lasttoken, mean_tokens"
        );
        assert_eq!(config(wrong, None), Err(expected));
    }
    let key = |kind| gguf_changed(&[("llama.pooling_type", Some(Key::Int(kind)))]).map(|config| config.embedding);
    assert_eq!((key(0), key(1), key(3)), (Ok(None), embedding("mean", true), embedding("last", true)));
    let rank = "m.gguf: llama.pooling_type 4 is not supported; supported are 0 (none), 1 (mean), 3 (last)";
    assert_eq!(key(4), Err(rank.into()));
}

#[test]
fn models_without_a_head_are_told_by_their_class() {
    let head = |model_type: &str, class: &str| {
        changed(json!({"model_type": model_type, "architectures": [class]})).map(|config| config.head)
    };
    for (model_type, class) in
        [("llama", "LlamaModel"), ("mistral", "MistralModel"), ("qwen2", "Qwen2Model"), ("qwen3", "Qwen3Model")]
    {
        assert_eq!(head(model_type, class), Ok(Head::None));
        assert_eq!(head(model_type, &class.replace("Model", "ForCausalLM")), Ok(Head::Own));
    }
}

//! Model files: what is in them comes out, as candle reads it too; damaged and hostile files are errors.

mod fixtures;

use candle_core::quantized::gguf_file::Content;
use candle_core::Device;
use fixtures::{default_model, fixture, json, Scratch};
use proptest::prelude::*;
use sglang_engine::model::config::{Head, ModelConfig, RopeScaling};
use sglang_engine::text::Tokenizer;
use sglang_engine::weights::{self, Description, ModelFiles};
use sglang_kernels::dtype::DType;
use std::collections::HashMap;
use std::path::Path;

fn open(path: &Path) -> ModelFiles {
    weights::open(path).unwrap_or_else(|e| panic!("{e}"))
}

/// The message of a path that does not open, with the path written as `@`.
fn error(path: &Path) -> String {
    let message = weights::open(path).err().expect("must fail").to_string();
    message.replace(path.to_str().unwrap(), "@")
}

#[test]
fn safetensors_come_out_as_candle_reads_them() {
    for name in ["llama", "llama3", "mistral", "qwen2", "qwen2_moe", "qwen3"] {
        let files = open(&fixture(name));
        let candle = candle_core::safetensors::load(fixture(name).join("model.safetensors"), &Device::Cpu).unwrap();
        let mut names: Vec<_> = candle.keys().cloned().collect();
        names.sort();
        assert_eq!(files.weights.names(), names, "{name}");
        for (key, expected) in &candle {
            let tensor = files.weights.tensor(key).unwrap();
            assert_eq!((tensor.dtype, tensor.shape.as_slice()), (DType::BF16, expected.dims()), "{name}: {key}");
            assert_eq!(tensor.to_f32(), f32_values(expected), "{name}: {key}");
        }
        assert_eq!(files.weights.bytes(), candle.values().map(|t| 2 * t.elem_count() as u64).sum::<u64>());
    }
}

/// Some rows, read alone, and some columns are those of the whole tensor.
#[test]
fn parts_of_a_tensor_are_those_of_the_whole() {
    for path in ["gguf/Q4_1.gguf", "gguf/Q4_K.gguf", "gguf/F32.gguf", "llama", "mixtral", "llava"] {
        let files = open(&fixture(path));
        for name in &files.weights.names() {
            let whole = files.weights.tensor(name).unwrap();
            let [rows, cols] = whole.shape[..] else { continue };
            let (values, block) = (whole.to_f32(), whole.dtype.block_len());
            assert_eq!(files.weights.dtype(name).unwrap(), whole.dtype, "{path}: {name}");
            for some in [0..rows / 2, rows / 2..rows] {
                let part = files.weights.rows(name, &whole.shape, some.clone()).unwrap();
                assert_eq!(part.shape, [some.len(), cols], "{path}: {name}");
                assert_eq!(part.to_f32(), values[some.start * cols..some.end * cols], "{path}: {name}, rows {some:?}");
            }
            let middle = cols / block / 2 * block;
            for some in [0..middle, middle..cols] {
                let part = whole.clone().columns(some.clone()).unwrap().to_f32();
                let expected = values.chunks(cols).flat_map(|row| &row[some.clone()]);
                assert!(expected.eq(&part), "{path}: {name}, columns {some:?}");
            }
        }
    }
    let blocks = open(&fixture("gguf/Q4_1.gguf"));
    let cut = blocks.weights.tensor("lm_head.weight").unwrap().columns(16..256);
    let message = "tensor lm_head.weight: columns 16..256 are not whole blocks of Q4_1";
    assert_eq!(cut.unwrap_err().to_string(), message);
    let misshapen = blocks.weights.rows("lm_head.weight", &[640, 128], 0..1).unwrap_err().to_string();
    assert!(misshapen.ends_with("has shape [640, 256]; the configuration asks for [640, 128]"), "{misshapen}");
}

/// The same bytes as llama.cpp wrote for the formats whose quantizer is published; for Q4_K, which it searches better
/// scales for, values that are nearly as close.
#[test]
fn floats_are_quantized_as_elsewhere() {
    let floats = open(&fixture("gguf/F32.gguf"));
    for (file, dtype, worse) in [("Q8_0", DType::Q8_0, 1.0), ("Q4_1", DType::Q4_1, 1.0), ("Q4_K", DType::Q4K, 1.3)] {
        let theirs = open(&fixture(&format!("gguf/{file}.gguf")));
        let mut compared = 0;
        for name in theirs.weights.names() {
            let (theirs, exact) = (theirs.weights.tensor(&name).unwrap(), floats.weights.tensor(&name).unwrap());
            if theirs.dtype != dtype {
                continue;
            }
            let mut ours = exact.clone();
            ours.convert(dtype).unwrap();
            assert!(worse > 1.0 || ours.bytes == theirs.bytes, "{file}: {name}");
            let error = |values: Vec<f32>| exact.to_f32().iter().zip(values).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            let (ours, theirs) = (error(ours.to_f32()), error(theirs.to_f32()));
            assert!(ours <= worse * theirs, "{file}: {name}: squared error {ours} beside {theirs}");
            compared += 1;
        }
        assert!(compared >= 7, "{file}: {compared} tensors");
    }
}

fn f32_values(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.to_dtype(candle_core::DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// The llama checkpoint as two shards with an index, written by candle.
fn sharded() -> Scratch {
    let scratch = Scratch::new();
    let tensors = candle_core::safetensors::load(fixture("llama/model.safetensors"), &Device::Cpu).unwrap();
    let shard = |name: &str| format!("model-0000{}-of-00002.safetensors", 1 + usize::from(name.contains(".mlp.")));
    let mut shards: HashMap<String, HashMap<String, candle_core::Tensor>> = HashMap::new();
    for (name, tensor) in &tensors {
        shards.entry(shard(name)).or_default().insert(name.clone(), tensor.clone());
    }
    for (file, tensors) in &shards {
        candle_core::safetensors::save(tensors, scratch.0.join(file)).unwrap();
    }
    let map: HashMap<_, _> = tensors.keys().map(|name| (name, shard(name))).collect();
    scratch.write("model.safetensors.index.json", serde_json::json!({ "weight_map": map }).to_string());
    scratch.write("config.json", json("llama/config.json").to_string());
    scratch
}

/// Whatever stands before the names of a language model, they go out as those of a checkpoint of it alone: in one file, in
/// shards, and of a model without a head. Two language models in one checkpoint keep their names.
#[test]
fn names_do_not_depend_on_what_stands_before_them() {
    let tensors = candle_core::safetensors::load(fixture("llama/model.safetensors"), &Device::Cpu).unwrap();
    let whole = open(&fixture("llama")).weights;
    let check = |rename: &dyn Fn(&str) -> Option<String>, index: bool| {
        let scratch = Scratch::new();
        let renamed: HashMap<_, _> = tensors.iter().filter_map(|(name, t)| Some((rename(name)?, t.clone()))).collect();
        candle_core::safetensors::save(&renamed, scratch.0.join("model.safetensors")).unwrap();
        scratch.write("config.json", json("llama/config.json").to_string());
        if index {
            let map: HashMap<_, _> = renamed.keys().map(|name| (name, "model.safetensors")).collect();
            scratch.write("model.safetensors.index.json", serde_json::json!({ "weight_map": map }).to_string());
        }
        let found = open(&scratch.0).weights;
        let kept = |name: &String| rename(name).is_some();
        assert_eq!(found.names(), whole.names().into_iter().filter(kept).collect::<Vec<_>>());
        for name in found.names() {
            assert_eq!(found.tensor(&name).unwrap().bytes, whole.tensor(&name).unwrap().bytes, "{name}");
        }
    };
    for index in [false, true] {
        check(&|name| Some(format!("language_model.{name}")), index);
        check(&|name| name.strip_prefix("model.").map(str::to_owned), index);
        check(&|name| Some(format!("encoder.{}", name.strip_prefix("model.").unwrap_or(name))), index);
    }
    let scratch = Scratch::new();
    let both = ["a.embed_tokens.weight", "b.embed_tokens.weight"];
    let two: HashMap<_, _> = both.into_iter().zip(tensors.values().cloned()).collect();
    candle_core::safetensors::save(&two, scratch.0.join("model.safetensors")).unwrap();
    scratch.write("config.json", json("llama/config.json").to_string());
    assert_eq!(open(&scratch.0).weights.names(), both);
}

#[test]
fn shards_are_one_checkpoint() {
    let scratch = sharded();
    let (parts, whole) = (open(&scratch.0).weights, open(&fixture("llama")).weights);
    assert_eq!((parts.names(), parts.bytes()), (whole.names(), whole.bytes()));
    for name in whole.names() {
        assert_eq!(parts.tensor(&name).unwrap().bytes, whole.tensor(&name).unwrap().bytes, "{name}");
    }
}

#[test]
fn an_index_cannot_lead_elsewhere() {
    for file in
        ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", "", "./a.safetensors", "a.safetensors/"]
    {
        let scratch = sharded();
        let index = serde_json::json!({ "weight_map": { "model.norm.weight": file } });
        scratch.write("model.safetensors.index.json", index.to_string());
        assert_eq!(
            error(&scratch.0),
            "@/model.safetensors.index.json: the file of model.norm.weight must be a name in the same folder",
            "{file}"
        );
    }
}

#[test]
fn an_index_must_agree_with_its_shards() {
    let scratch = sharded();
    let map = serde_json::json!({ "lm_head.weight": "model-00002-of-00002.safetensors" });
    scratch.write("model.safetensors.index.json", serde_json::json!({ "weight_map": map }).to_string());
    assert_eq!(
        error(&scratch.0),
        "@/model-00002-of-00002.safetensors: has no tensor lm_head.weight, which model.safetensors.index.json says it has"
    );
    std::fs::remove_file(scratch.0.join("model-00002-of-00002.safetensors")).unwrap();
    assert!(error(&scratch.0).starts_with("@/model-00002-of-00002.safetensors: cannot be read: "));
}

#[test]
fn gguf_tensors_come_out_as_candle_reads_them() {
    for path in
        [fixture("gguf/F32.gguf"), fixture("gguf/Q4_1.gguf"), fixture("gguf/Q8_0.gguf"), fixture("gguf/Q4_K.gguf")]
    {
        check_against_candle(&path, [4, 2]);
    }
}

#[test]
fn the_default_model_comes_out_as_candle_reads_it() {
    check_against_candle(&default_model(), [9, 3]);
}

fn check_against_candle(path: &Path, heads: [usize; 2]) {
    let files = open(path);
    let mut file = std::fs::File::open(path).unwrap();
    let content = Content::read(&mut file).unwrap();
    assert_eq!(files.weights.names().len(), content.tensor_infos.len());
    for name in files.weights.names() {
        let tensor = files.weights.tensor(&name).unwrap();
        let stored = content.tensor(&mut file, &gguf_name(&name), &Device::Cpu).unwrap();
        assert_eq!(tensor.shape, stored.shape().dims(), "{name}");
        assert_eq!(tensor.dtype.to_string(), format!("{:?}", stored.dtype()).replace('K', "_K"), "{name}");
        let heads = heads[usize::from(name.contains("k_proj"))];
        let paired = name.contains("q_proj") || name.contains("k_proj");
        let expected = stored.dequantize(&Device::Cpu).unwrap();
        let expected = if paired { halves(&expected, heads) } else { expected };
        let difference =
            tensor.to_f32().iter().zip(f32_values(&expected)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-6, "{}: {name} differs by {difference}", path.display());
    }
}

/// Undoes what the conversion to GGUF did to q and k, whose reference is: `[h, 2, S/2]` transposed to `[h, S/2, 2]`.
fn halves(stored: &candle_core::Tensor, heads: usize) -> candle_core::Tensor {
    let (rows, cols) = stored.dims2().unwrap();
    let pairs = stored.reshape((heads, rows / heads / 2, 2, cols)).unwrap();
    pairs.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, cols)).unwrap()
}

fn gguf_name(name: &str) -> String {
    let parts = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    parts.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}

#[test]
fn formats_that_candle_refuses_load_too() {
    let path = fixture("gguf/IQ4_XS.gguf");
    assert!(
        Content::read(&mut std::fs::File::open(&path).unwrap()).is_err(),
        "candle reads it now: drop our own reader"
    );
    let (files, exact) = (open(&path), open(&fixture("gguf/F32.gguf")));
    let name = "model.layers.1.mlp.up_proj.weight";
    let (tensor, exact) = (files.weights.tensor(name).unwrap(), exact.weights.tensor(name).unwrap());
    assert_eq!(tensor.dtype, DType::IQ4XS);
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>();
    let error = square(&mut tensor.to_f32().iter().zip(exact.to_f32()).map(|(a, b)| a - b));
    let relative = (error / square(&mut exact.to_f32().into_iter())).sqrt();
    assert!((1e-3..0.12).contains(&relative), "relative error of 4-bit weights: {relative}");
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let files = open(&fixture("gguf/F32.gguf"));
    let file = fixture("gguf/F32.gguf").display().to_string();
    assert_eq!(
        files.weights.tensor("model.x.weight").unwrap_err().to_string(),
        format!("{file}: no tensor model.x.weight")
    );
    assert!(files.weights.has("model.norm.weight") && !files.weights.has("output_norm.weight"));
    let norm = |shape: &[usize]| files.weights.rows("model.norm.weight", shape, 0..shape[0]);
    norm(&[256]).unwrap();
    assert_eq!(
        norm(&[512, 2]).unwrap_err().to_string(),
        format!("{file}: tensor model.norm.weight has shape [256]; the configuration asks for [512, 2]")
    );
    let folder = open(&fixture("llama"));
    let expected = format!("{}: its 1 .safetensors file(s): no tensor x", fixture("llama").display());
    assert_eq!(folder.weights.tensor("x").unwrap_err().to_string(), expected);
}

#[test]
fn what_cannot_be_opened_says_what_was_found() {
    let expected =
        "expected a GGUF file, a folder with config.json and *.safetensors or *.bin, or a folder with one *.gguf";
    let scratch = Scratch::new();
    assert_eq!(error(&scratch.0.join("x")), format!("@: no such file or folder; {expected}"));
    assert_eq!(error(&scratch.0), format!("@: has no model files; {expected}"));
    let file = scratch.write("pytorch_model.bin", "");
    assert_eq!(error(&file), format!("@: not a GGUF file; {expected}"));
    scratch.write("config.json", "{}");
    let no_zip = "is no ZIP archive, as PyTorch has written since 1.6; convert it to safetensors";
    assert_eq!(error(&scratch.0), format!("@/pytorch_model.bin: {no_zip}"));
    std::fs::remove_file(file).unwrap();
    assert_eq!(error(&scratch.0), format!("@: has config.json but no weights; {expected}"));
    std::fs::remove_file(scratch.0.join("config.json")).unwrap();
    scratch.write("a.safetensors", "");
    assert_eq!(error(&scratch.0), format!("@: has weights but no config.json; {expected}"));
    scratch.write("config.json", "{}");
    scratch.write("b.safetensors", "");
    let message = "@: 2 safetensors files and no model.safetensors.index.json that says what is in which";
    assert_eq!(error(&scratch.0), message);
    std::fs::remove_file(scratch.0.join("b.safetensors")).unwrap();
    assert!(error(&scratch.0).starts_with("@/a.safetensors: not a valid safetensors file: "));
    assert_eq!(
        error(&fixture("gguf")),
        "@: several GGUF files; give the path of one of: F32.gguf, IQ4_XS.gguf, Q4_1.gguf, Q4_K.gguf, Q8_0.gguf"
    );
}

#[test]
fn a_folder_may_hold_one_gguf_file() {
    let scratch = Scratch::new();
    std::fs::copy(fixture("gguf/Q4_K.gguf"), scratch.0.join("model.gguf")).unwrap();
    assert_eq!(open(&scratch.0).weights.names(), open(&fixture("gguf/Q4_K.gguf")).weights.names());
}

#[test]
fn chat_templates_are_found_where_they_are() {
    let template = |path: &Path| open(path).chat_template().unwrap();
    assert!(template(&fixture("llama")).unwrap().starts_with("{% for m in messages %}{% if m['role']=='user'"));
    assert!(template(&default_model()).unwrap().starts_with("{% for message in messages %}"));
    assert_eq!(template(&fixture("gguf/F32.gguf")), None);
    let scratch = sharded();
    assert_eq!(template(&scratch.0), None);
    let named = serde_json::json!([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]);
    scratch.write("tokenizer_config.json", serde_json::json!({ "chat_template": named }).to_string());
    assert_eq!(template(&scratch.0).as_deref(), Some("D"));
    scratch.write("chat_template.jinja", "J");
    assert_eq!(template(&scratch.0).as_deref(), Some("J"));
}

/// A GGUF file put together by hand.
#[derive(Default)]
struct Made {
    values: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
}

impl Made {
    fn value(mut self, key: &str, kind: u32, bytes: impl AsRef<[u8]>) -> Self {
        self.values.push([&text(key)[..], &kind.to_le_bytes(), bytes.as_ref()].concat());
        self
    }

    fn tensor(mut self, name: &str, sizes: &[u64], kind: u32, offset: u64) -> Self {
        let sizes_bytes: Vec<u8> = sizes.iter().flat_map(|n| n.to_le_bytes()).collect();
        let head = [&text(name)[..], &(sizes.len() as u32).to_le_bytes(), &sizes_bytes].concat();
        self.tensors.push([&head[..], &kind.to_le_bytes(), &offset.to_le_bytes()].concat());
        self
    }

    /// The file, with `payload` bytes of tensors.
    fn bytes(&self, payload: usize) -> Vec<u8> {
        let counts = [self.tensors.len() as u64, self.values.len() as u64].map(u64::to_le_bytes).concat();
        let mut file =
            [b"GGUF", &3u32.to_le_bytes()[..], &counts, &self.values.concat(), &self.tensors.concat()].concat();
        file.resize(file.len().next_multiple_of(32) + payload, 1);
        file
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A list of texts or of little-endian numbers.
fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
}

fn gguf_error(file: &[u8]) -> String {
    let scratch = Scratch::new();
    error(&scratch.write("model.gguf", file))
}

#[test]
fn damaged_gguf_files_say_where() {
    let check = |file: &[u8], expected: &str| assert_eq!(gguf_error(file), format!("@: {expected}"));
    let tensor = |sizes: &[u64], kind, offset| Made::default().tensor("t", sizes, kind, offset).bytes(128);
    let huge = u64::MAX.to_le_bytes();
    check(b"GGUF\x01\0\0\0", "is GGUF version 1; supported are 2 and 3");
    check(b"GGUF\0\0\0\x03", "is big-endian, which is not supported");
    check(b"GGUF", "is cut off or damaged: the header runs past the end at byte 4");
    check(
        &[&b"GGUF\x03\0\0\0"[..], &huge, &huge].concat(),
        "is cut off or damaged: the header runs past the end at byte 24",
    );
    check(
        &Made::default().value("k", 8, huge).bytes(0),
        "key k: is cut off or damaged: the header runs past the end at byte 45",
    );
    let long = [&8u32.to_le_bytes()[..], &(1u64 << 60).to_le_bytes()].concat();
    check(
        &Made::default().value("k", 9, long).bytes(0),
        "key k: is cut off or damaged: a list of 1152921504606846976 values is longer than the file",
    );
    check(
        &Made::default().value("k", 9, list(9, &[vec![0; 12]])).bytes(0),
        "key k: is an array of arrays, which is not supported",
    );
    check(&Made::default().value("k", 99, [0]).bytes(0), "key k: has unknown type 99; the file is damaged");
    check(&Made::default().value("k", 0, [0]).value("k", 0, [0]).bytes(0), "key k: appears twice");
    check(
        &Made::default().value("general.alignment", 4, 0u32.to_le_bytes()).bytes(0),
        "general.alignment must be a power of two up to 65536, not Int(0)",
    );
    check(&tensor(&[4; 5], 0, 0), "tensor t: has 5 dimensions; at most 4 are possible");
    check(
        &tensor(&[4], 4, 0),
        "tensor t: has GGUF type 4; supported are F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, \
         IQ4_NL, IQ4_XS, BF16",
    );
    check(&tensor(&[48], 3, 0), "tensor t: rows of 48 values are not whole Q4_1 blocks of 32");
    for (sizes, offset) in
        [(vec![33], 0), (vec![32], 1), (vec![0], 0), (vec![], 0), (vec![4], u64::MAX), (vec![1 << 62; 4], 0)]
    {
        let expected = format!("tensor t: sizes {sizes:?} at offset {offset} do not fit the file");
        check(&tensor(&sizes, 0, offset), &expected);
    }
    let twice = Made::default().tensor("t", &[1], 0, 0).tensor("t", &[1], 0, 0).bytes(128);
    check(&twice, "tensor t: appears twice");
    let split = Made::default().value("split.count", 2, 3u16.to_le_bytes()).bytes(0);
    check(&split, "is one of 3 parts, so its name must end in -00001-of-00003.gguf");
}

/// A small but whole model, so that random damage reaches everything.
fn small_model() -> Made {
    let number = |made: Made, key: &str, n: u32| made.value(key, 4, n.to_le_bytes());
    let tokens: Vec<_> = ["<unk>", "<s>", "a", "b", "ab", "▁", "▁a", "<0x0A>"].map(text).into();
    let scores: Vec<_> = (0..8).map(|i| (-(i as f32)).to_le_bytes().to_vec()).collect();
    let kinds: Vec<_> = [2i32, 3, 1, 1, 1, 1, 1, 6].iter().map(|kind| kind.to_le_bytes().to_vec()).collect();
    let mut made = Made::default().value("general.architecture", 8, text("llama"));
    for (key, n) in [("context_length", 64), ("embedding_length", 8), ("block_count", 1), ("feed_forward_length", 8)] {
        made = number(made, &format!("llama.{key}"), n);
    }
    made = number(made, "llama.attention.head_count", 2);
    made.value("llama.attention.layer_norm_rms_epsilon", 6, 1e-5f32.to_le_bytes())
        .value("tokenizer.ggml.model", 8, text("llama"))
        .value("tokenizer.ggml.tokens", 9, list(8, &tokens))
        .value("tokenizer.ggml.scores", 9, list(6, &scores))
        .value("tokenizer.ggml.token_type", 9, list(5, &kinds))
        .value("tokenizer.ggml.bos_token_id", 4, 1u32.to_le_bytes())
        .tensor("token_embd.weight", &[8, 8], 0, 0)
        .tensor("blk.0.attn_q.weight", &[8, 8], 1, 256)
        .tensor("output_norm.weight", &[8], 0, 384)
}

/// A file of some tensors, and the keys of a split model.
fn part(number: u16, of: u16, made: Made) -> Vec<u8> {
    let made = made.value("split.no", 2, number.to_le_bytes()).value("split.count", 2, of.to_le_bytes());
    made.bytes(416)
}

#[test]
fn parts_of_a_split_model_are_one_model() {
    let scratch = Scratch::new();
    let Made { values, tensors } = small_model();
    let (first, second) =
        (Made { values, tensors: tensors[..1].to_vec() }, Made { values: vec![], tensors: tensors[1..].to_vec() });
    scratch.write("m-00001-of-00002.gguf", part(0, 2, first));
    let second = scratch.write("m-00002-of-00002.gguf", part(1, 2, second));
    let whole = Scratch::new();
    let whole = open(&whole.write("model.gguf", small_model().bytes(416))).weights;
    for path in [&scratch.0, &second] {
        let files = open(path);
        assert_eq!(ModelConfig::of(&files).unwrap().vocab, 8);
        assert_eq!(files.weights.names(), whole.names());
        for name in whole.names() {
            assert_eq!(files.weights.tensor(&name).unwrap().bytes, whole.tensor(&name).unwrap().bytes, "{name}");
        }
    }
    let again = Made { values: vec![], tensors: tensors.to_vec() };
    std::fs::write(&second, part(1, 2, again)).unwrap();
    assert_eq!(
        error(&scratch.0),
        "@: its 2 .gguf file(s): tensor model.embed_tokens.weight is there twice, also as model.embed_tokens.weight"
    );
    std::fs::remove_file(second).unwrap();
    assert!(error(&scratch.0).starts_with("@/m-00002-of-00002.gguf: cannot be read: "));
}

/// Reads everything there is; errors are fine, panics are not.
fn read_all(path: &Path) {
    let Ok(files) = weights::open(path) else { return };
    for name in files.weights.names() {
        if let Ok(tensor) = files.weights.tensor(&name) {
            tensor.to_f32();
        }
    }
    if let Ok(config) = ModelConfig::of(&files) {
        config.inv_freq();
        if let Ok(tokenizer) = Tokenizer::of(&files, &config) {
            let _ = tokenizer.encode("ab <s>\n", true).map(|ids| tokenizer.decode(&ids, false));
        }
    }
}

#[test]
fn the_small_model_is_whole() {
    let scratch = Scratch::new();
    let files = open(&scratch.write("model.gguf", small_model().bytes(416)));
    let config = ModelConfig::of(&files).unwrap();
    assert_eq!((config.vocab, config.kv_heads, config.head), (8, 2, Head::Tied));
    assert_eq!(Tokenizer::of(&files, &config).unwrap().encode("ab\n", true).unwrap(), [1, 5, 4, 7]);
    assert!(matches!(files.description, Description::Gguf(_)));
}

#[test]
fn rope_factors_come_from_their_tensor() {
    let config = |sizes: &[u64]| {
        let scratch = Scratch::new();
        let file = small_model().tensor("rope_freqs.weight", sizes, 0, 384).bytes(416);
        ModelConfig::of(&open(&scratch.write("model.gguf", file)))
    };
    let stored = f32::from_le_bytes([1; 4]);
    assert_eq!(config(&[2]).unwrap().rope.scaling, RopeScaling::Factors(vec![stored; 2]));
    let message = config(&[3]).unwrap_err().to_string();
    assert!(message.ends_with("tensor rope_freqs.weight has shape [3]; the configuration asks for [2]"), "{message}");
}

#[test]
fn absurd_numbers_of_heads_are_errors() {
    let scratch = Scratch::new();
    for heads in [0, 3, u64::MAX] {
        let made = Made::default().value("general.architecture", 8, text("llama"));
        let made = made.value("llama.attention.head_count", 10, heads.to_le_bytes());
        let file = scratch.write("model.gguf", made.tensor("blk.0.attn_q.weight", &[8, 8], 0, 0).bytes(256));
        let message = open(&file).weights.tensor("model.layers.0.self_attn.q_proj.weight").unwrap_err().to_string();
        assert!(message.contains("q_proj.weight has 8 rows: not "), "{message}");
    }
}

/// All values of a vector may be whole blocks; one of them, which is its row, is not.
#[test]
fn vectors_of_blocks_are_errors() {
    let scratch = Scratch::new();
    let made = Made::default().tensor("output_norm.weight", &[64], 8, 0).tensor("rope_freqs.weight", &[64], 2, 0);
    let file = scratch.write("model.gguf", made.bytes(128));
    let (at, weights) = (file.display(), open(&file).weights);
    for (name, of) in [("model.norm.weight", "Q8_0"), ("rope_freqs.weight", "Q4_0")] {
        let expected = format!("{at}: tensor {name} is a vector of {of} blocks; a vector must be of floats");
        assert_eq!(weights.tensor(name).unwrap_err().to_string(), expected);
        assert_eq!(weights.rows(name, &[64], 0..64).unwrap_err().to_string(), expected);
    }
}

/// To name an expert takes memory, so a file must have bytes for each, also where tensors claim the same bytes.
#[test]
fn a_file_names_only_experts_that_it_has_bytes_for() {
    let stack = |made: Made, layer: u32, n| made.tensor(&format!("blk.{layer}.ffn_up_exps.weight"), &[16, n], 0, 0);
    let whole = stack(Made::default(), 0, 1000).bytes(64_000);
    assert_eq!(open(&Scratch::new().write("model.gguf", whole)).weights.names().len(), 1000);
    let tiny = Made::default().tensor("blk.0.ffn_up_exps.weight", &[1, 1000], 0, 0).bytes(4000);
    for (file, claimed) in [(tiny, 1000), (stack(stack(Made::default(), 0, 1000), 1, 1000).bytes(64_000), 2000)] {
        let claim = format!("its ffn_*_exps tensors claim {claimed} experts");
        let most = format!("a file of {} bytes holds at most {}", file.len(), file.len() / 64);
        assert_eq!(gguf_error(&file), format!("@: {claim}; {most}"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn damage_to_gguf_never_panics(
        hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut file = small_model().bytes(416);
        hits.iter().for_each(|(at, byte)| { let at = at.index(file.len()); file[at] = *byte; });
        file.truncate(cut.map_or(file.len(), |cut| cut.index(file.len())));
        let scratch = Scratch::new();
        read_all(&scratch.write("model.gguf", &file));
    }

    #[test]
    fn damage_to_safetensors_never_panics(
        hits in prop::collection::vec((0usize..2600, any::<u8>()), 0..4),
        cut in prop::option::weighted(0.2, 0usize..4000),
    ) {
        let mut file = std::fs::read(fixture("qwen2/model.safetensors")).unwrap();
        file.truncate(cut.unwrap_or(file.len()));
        hits.iter().for_each(|&(at, byte)| if let Some(place) = file.get_mut(at) { *place = byte });
        let scratch = Scratch::new();
        scratch.write("config.json", json("qwen2/config.json").to_string());
        scratch.write("model.safetensors", &file);
        read_all(&scratch.0);
    }
}

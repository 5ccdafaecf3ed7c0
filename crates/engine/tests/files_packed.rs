//! GPTQ and AWQ: layers packed here, as the published layouts say, come out as the values that were packed.

mod fixtures;

use fixtures::{json, Scratch};
use serde_json::{json, Value};
use sglang_engine::weights;
use sglang_kernels::dtype::DType;

/// A layer of 4-bit numbers: `(q − zero) · scale` by group of inputs.
struct Layer {
    inputs: usize,
    outputs: usize,
    /// The group of each input.
    groups: Vec<u32>,
    n_groups: usize,
    symmetric: bool,
}

impl Layer {
    fn new(inputs: usize, outputs: usize, size: usize, symmetric: bool) -> Self {
        let groups = (0..inputs).map(|i| (i / size) as u32).collect();
        Layer { inputs, outputs, groups, n_groups: inputs.div_ceil(size), symmetric }
    }

    fn q(&self, input: usize, output: usize) -> u32 {
        ((input * 7 + output * 5 + input * output) % 16) as u32
    }

    fn zero(&self, group: usize, output: usize) -> u32 {
        if self.symmetric {
            8
        } else {
            1 + ((group * 3 + output) % 15) as u32
        }
    }

    fn scale(&self, group: usize, output: usize) -> f32 {
        half::f16::from_f32(0.01 + 0.003 * ((group + 2 * output) % 11) as f32).to_f32()
    }

    fn value(&self, input: usize, output: usize) -> f32 {
        let group = self.groups[input] as usize;
        (self.q(input, output) as f32 - self.zero(group, output) as f32) * self.scale(group, output)
    }

    fn scales(&self) -> Stored {
        let places = (0..self.n_groups).flat_map(|g| (0..self.outputs).map(move |o| (g, o)));
        let bytes = places.flat_map(|(g, o)| half::f16::from_f32(self.scale(g, o)).to_le_bytes()).collect();
        Stored { part: "scales", kind: "F16", shape: vec![self.n_groups, self.outputs], bytes }
    }

    /// Eight outputs in a word, nibble `i` for output `order[i]`.
    fn by_output(
        &self,
        part: &'static str,
        rows: usize,
        order: [usize; 8],
        number: impl Fn(usize, usize) -> u32,
    ) -> Stored {
        let word = |row, column: usize| (0..8).map(|i| number(row, column * 8 + order[i]) << (4 * i)).sum::<u32>();
        let places = (0..rows).flat_map(|r| (0..self.outputs / 8).map(move |c| (r, c)));
        let bytes = places.flat_map(|(r, c)| word(r, c).to_le_bytes()).collect();
        Stored { part, kind: "I32", shape: vec![rows, self.outputs / 8], bytes }
    }

    fn awq(&self) -> Vec<Stored> {
        let order = [0, 2, 4, 6, 1, 3, 5, 7];
        let weights = self.by_output("qweight", self.inputs, order, |i, o| self.q(i, o));
        vec![weights, self.by_output("qzeros", self.n_groups, order, |g, o| self.zero(g, o)), self.scales()]
    }

    fn gptq(&self, stored_less: u32) -> Vec<Stored> {
        let word = |row: usize, output| (0..8).map(|i| self.q(row * 8 + i, output) << (4 * i)).sum::<u32>();
        let places = (0..self.inputs / 8).flat_map(|r| (0..self.outputs).map(move |o| (r, o)));
        let bytes = places.flat_map(|(r, o)| word(r, o).to_le_bytes()).collect();
        let weights = Stored { part: "qweight", kind: "I32", shape: vec![self.inputs / 8, self.outputs], bytes };
        let order = std::array::from_fn(|i| i);
        let zeros = self.by_output("qzeros", self.n_groups, order, |g, o| self.zero(g, o) - stored_less);
        let bytes = self.groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        vec![weights, zeros, self.scales(), Stored { part: "g_idx", kind: "I32", shape: vec![self.inputs], bytes }]
    }
}

struct Stored {
    part: &'static str,
    kind: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn checkpoint(quantization: Value, layer: &[Stored]) -> Scratch {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for stored in layer {
        let end = data.len() + stored.bytes.len();
        let entry = json!({"dtype": stored.kind, "shape": stored.shape, "data_offsets": [data.len(), end]});
        header.insert(format!("a.{}", stored.part), entry);
        data.extend(&stored.bytes);
    }
    let header = Value::Object(header).to_string();
    let scratch = Scratch::new();
    scratch.write("model.safetensors", [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat());
    let mut config = json("llama/config.json");
    config["quantization_config"] = quantization;
    scratch.write("config.json", config.to_string());
    scratch
}

fn check(quantization: Value, stored: &[Stored], layer: &Layer, dtype: DType, tolerance: f32) {
    let scratch = checkpoint(quantization.clone(), stored);
    let files = weights::open(&scratch.0).unwrap();
    assert_eq!(files.weights.names(), ["a.weight"]);
    let tensor = files.weights.tensor("a.weight").unwrap();
    assert_eq!((tensor.dtype, &tensor.shape), (dtype, &vec![layer.outputs, layer.inputs]), "{quantization}");
    for (i, found) in tensor.to_f32().into_iter().enumerate() {
        let (output, input) = (i / layer.inputs, i % layer.inputs);
        let expected = layer.value(input, output);
        assert!((found - expected).abs() <= tolerance, "{quantization} [{output}, {input}]: {found} is not {expected}");
    }
    let part = files.weights.rows("a.weight", &tensor.shape, 3..7).unwrap();
    let row = tensor.bytes.len() / layer.outputs;
    assert_eq!(
        (&part.shape, &part.bytes[..]),
        (&vec![4, layer.inputs], &tensor.bytes[3 * row..7 * row]),
        "{quantization}"
    );
}

/// The minimum of a block is rounded to f16: at most half a unit in the last place of 16 · 0.04.
const OF_MINIMUM: f32 = 3e-4;

#[test]
fn packed_layers_come_out_as_their_values() {
    let gptq = |format: &str| json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "checkpoint_format": format});
    let awq = json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"});
    for (symmetric, dtype, tolerance) in [(true, DType::Q4_0, 0.0), (false, DType::Q4_1, OF_MINIMUM)] {
        let layer = Layer::new(96, 24, 32, symmetric);
        check(awq.clone(), &layer.awq(), &layer, dtype, tolerance);
        check(gptq("gptq"), &layer.gptq(1), &layer, dtype, tolerance);
        check(gptq("gptq_v2"), &layer.gptq(0), &layer, dtype, tolerance);
    }
    let shuffled = Layer { groups: (0..96).map(|i| i * 7 % 3).collect(), ..Layer::new(96, 24, 32, false) };
    check(gptq("gptq"), &shuffled.gptq(1), &shuffled, DType::F16, OF_MINIMUM);
    let odd = Layer::new(176, 8, 44, true);
    check(awq, &odd.awq(), &odd, DType::F16, OF_MINIMUM);
}

#[test]
fn packing_that_is_not_known_or_does_not_fit_is_named() {
    let layer = Layer::new(64, 16, 32, true);
    let error = |quantization: Value, stored: &[Stored]| {
        let scratch = checkpoint(quantization, stored);
        let read = weights::open(&scratch.0).and_then(|files| files.weights.tensor("a.weight").map(|_| ()));
        read.expect_err("must fail").to_string().replace(scratch.0.to_str().unwrap(), "@")
    };
    let unknown = json!({"quant_method": "bitsandbytes", "load_in_4bit": true});
    assert_eq!(
        error(unknown.clone(), &layer.awq()),
        format!("@/config.json: quantization_config {unknown} is not supported; supported are gptq and awq (gemm) of 4 bits")
    );
    let awq = json!({"quant_method": "awq", "bits": 4});
    assert_eq!(
        error(awq.clone(), &layer.gptq(1)),
        "@/config.json: layer a: qweight [8, 16], qzeros [2, 2] and scales [2, 16] do not go together"
    );
    let mut far = layer.gptq(1);
    far[3].bytes[0] = 9;
    assert!(error(json!({"quant_method": "gptq", "bits": 4}), &far).contains("do not go together"));
}

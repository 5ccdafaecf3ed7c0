//! GPTQ and AWQ checkpoints (arXiv 2210.17323, 2306.00978): linear layers of 4-bit numbers, eight in a word, with a scale
//! and a zero point for each group of inputs.
//! Source of the layouts: AutoGPTQ, `qlinear_cuda.py`; AutoAWQ, `packing_utils.py`.
//!
//! Law: a weight goes out as rows of blocks that the kernels read: `Q4_0` where all zero points are 8, which changes
//! nothing, else `Q4_1`, whose minimum is rounded to f16; where neighbours are not in one group (GPTQ's `desc_act`), F16.

use super::shards::Shards;
use super::{expect_shape, Bytes, Source, Tensor, Words};
use crate::{Error, Result};
use half::f16;
use sglang_kernels::dtype::DType;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Numbers in a word.
const PER_WORD: usize = 8;
/// Values of a block.
const BLOCK: usize = 32;
/// Output of each nibble of a word of AWQ.
const AWQ_ORDER: [usize; PER_WORD] = [0, 2, 4, 6, 1, 3, 5, 7];

/// How eight numbers share a word.
#[derive(Clone, Copy, PartialEq)]
enum Layout {
    /// Inputs of one output; `.1` is added to stored zero points.
    Gptq(u32),
    /// Outputs of one input, in [`AWQ_ORDER`].
    Awq,
}

/// A checkpoint whose linear layers are packed.
pub struct Packed {
    inner: Shards,
    layout: Layout,
    config: PathBuf,
}

impl Packed {
    /// The checkpoint as it is, or unpacked where its configuration says that it is packed.
    pub fn unpacking(inner: Shards, config: &Path, json: &serde_json::Value) -> Result<Box<dyn Source>> {
        let packing = &json["quantization_config"];
        if packing.is_null() {
            return Ok(Box::new(inner));
        }
        let text = |key: &str| packing[key].as_str().unwrap_or_default().to_owned();
        let (method, bits) = (text("quant_method"), packing["bits"].as_u64().or(packing["w_bit"].as_u64()));
        let layout = match (method.as_str(), bits) {
            ("gptq", Some(4)) => Layout::Gptq(u32::from(text("checkpoint_format") != "gptq_v2")),
            ("awq", Some(4)) if ["", "gemm", "GEMM"].contains(&text("version").as_str()) => Layout::Awq,
            _ => {
                let file = config.display();
                return Err(Error::load(format!(
                    "{file}: quantization_config {packing} is not supported; supported are gptq and awq (gemm) of 4 bits"
                )));
            }
        };
        Ok(Box::new(Packed { inner, layout, config: config.to_owned() }))
    }

    /// The linear layer whose weight this is, if it is packed.
    fn layer<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_suffix(".weight").filter(|layer| self.inner.has(&format!("{layer}.qweight")))
    }

    /// The rows that `wanted` chooses when it is told the shape of all.
    fn unpack(&self, layer: &str, wanted: impl FnOnce(&[usize]) -> Result<Range<usize>>) -> Result<Tensor<'_>> {
        let read = |part: &str| self.inner.words(&format!("{layer}.{part}"));
        let scales = self.inner.tensor(&format!("{layer}.scales"))?;
        let groups = match (self.layout, self.inner.has(&format!("{layer}.g_idx"))) {
            (Layout::Gptq(_), true) => Some(read("g_idx")?),
            _ => None,
        };
        let linear = Linear { layout: self.layout, weights: read("qweight")?, zeros: read("qzeros")?, groups };
        let plan = linear.plan(&scales).ok_or_else(|| {
            let (file, weights, zeros, scales) =
                (self.config.display(), &linear.weights.shape, &linear.zeros.shape, &scales.shape);
            Error::load(format!(
                "{file}: layer {layer}: qweight {weights:?}, qzeros {zeros:?} and scales {scales:?} do not go together"
            ))
        })?;
        let rows = wanted(&plan.shape)?;
        let (shape, bytes) = (vec![rows.len(), plan.shape[1]], linear.rows(&plan, rows));
        Ok(Tensor {
            name: format!("{layer}.weight"),
            dtype: plan.dtype,
            shape,
            bytes: Bytes::Made(bytes),
            file: &self.config,
        })
    }
}

impl Source for Packed {
    fn tensor(&self, name: &str) -> Result<Tensor<'_>> {
        match self.layer(name) {
            Some(layer) => self.unpack(layer, |shape| Ok(0..shape[0])),
            None => self.inner.tensor(name),
        }
    }

    fn rows(&self, name: &str, shape: &[usize], rows: Range<usize>) -> Result<Tensor<'_>> {
        match self.layer(name) {
            Some(layer) => self.unpack(layer, |found| expect_shape(&self.config, name, found, shape).map(|()| rows)),
            None => self.inner.rows(name, shape, rows),
        }
    }

    fn dtype(&self, name: &str) -> Result<DType> {
        match self.layer(name) {
            Some(_) => Ok(DType::Q4_1),
            None => self.inner.dtype(name),
        }
    }

    fn words(&self, name: &str) -> Result<Words> {
        self.inner.words(name)
    }

    fn has(&self, name: &str) -> bool {
        self.layer(name).is_some() || self.inner.has(name)
    }

    fn names(&self) -> Vec<String> {
        let name = |name: String| match name.rsplit_once('.') {
            Some((layer, "qweight")) => Some(format!("{layer}.weight")),
            Some((layer, "qzeros" | "scales" | "g_idx")) if self.inner.has(&format!("{layer}.qweight")) => None,
            _ => Some(name),
        };
        let mut names: Vec<_> = self.inner.names().into_iter().filter_map(name).collect();
        names.sort();
        names
    }

    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }
}

/// How a layer goes out.
struct Plan {
    dtype: DType,
    /// `[out, in]`.
    shape: [usize; 2],
    /// The group of each input.
    group: Vec<usize>,
    /// `[groups, out]`.
    scales: Vec<f32>,
}

/// One packed layer.
struct Linear {
    layout: Layout,
    weights: Words,
    zeros: Words,
    /// The group of each input, where it is not told by its place.
    groups: Option<Words>,
}

impl Linear {
    /// `None` where the parts do not fit one another.
    fn plan(&self, scales: &Tensor) -> Option<Plan> {
        let (&[n_groups, outputs], &[a, b]) = (&scales.shape[..], &self.weights.shape[..]) else { return None };
        let inputs = match self.layout {
            Layout::Gptq(_) => a.checked_mul(PER_WORD).filter(|_| b == outputs)?,
            Layout::Awq => Some(a).filter(|_| b.checked_mul(PER_WORD) == Some(outputs))?,
        };
        let fits = n_groups > 0 && inputs > 0 && self.zeros.shape == [n_groups, outputs.div_ceil(PER_WORD)];
        if !fits || !outputs.is_multiple_of(PER_WORD) {
            return None;
        }
        let size = inputs.div_ceil(n_groups);
        let group: Vec<usize> = match &self.groups {
            Some(given) if given.words.len() == inputs => given.words.iter().map(|&g| g as usize).collect(),
            Some(_) => return None,
            None => (0..inputs).map(|i| i / size).collect(),
        };
        if group.iter().any(|&g| g >= n_groups) {
            return None;
        }
        let in_blocks =
            inputs.is_multiple_of(BLOCK) && group.chunks(BLOCK).all(|block| block.iter().all(|g| *g == block[0]));
        let mut plan = Plan { dtype: DType::F16, shape: [outputs, inputs], group, scales: scales.to_f32() };
        let symmetric = || (0..outputs).all(|output| (0..n_groups).all(|g| self.row(&plan, output).zero(g) == 8));
        if in_blocks {
            plan.dtype = if symmetric() { DType::Q4_0 } else { DType::Q4_1 };
        }
        Some(plan)
    }

    fn row<'a>(&'a self, plan: &'a Plan, output: usize) -> Row<'a> {
        Row { linear: self, output, outputs: plan.shape[0], group: &plan.group, scales: &plan.scales }
    }

    fn rows(&self, plan: &Plan, rows: Range<usize>) -> Vec<u8> {
        rows.flat_map(|output| self.row(plan, output).bytes(plan.dtype)).collect()
    }
}

/// The weights of one output.
struct Row<'a> {
    linear: &'a Linear,
    output: usize,
    outputs: usize,
    group: &'a [usize],
    scales: &'a [f32],
}

impl Row<'_> {
    /// Place of this output in a word of outputs: its column and its nibble.
    fn place(&self) -> (usize, usize) {
        let within = self.output % PER_WORD;
        let nibble = match self.linear.layout {
            Layout::Gptq(_) => within,
            Layout::Awq => AWQ_ORDER.iter().position(|&o| o == within).unwrap_or(within),
        };
        (self.output / PER_WORD, nibble)
    }

    fn weight(&self, input: usize) -> u32 {
        let words = &self.linear.weights.words;
        match self.linear.layout {
            Layout::Gptq(_) => words[input / PER_WORD * self.outputs + self.output] >> (4 * (input % PER_WORD)) & 15,
            Layout::Awq => {
                let (column, nibble) = self.place();
                words[input * (self.outputs / PER_WORD) + column] >> (4 * nibble) & 15
            }
        }
    }

    fn zero(&self, group: usize) -> u32 {
        let (column, nibble) = self.place();
        let stored = self.linear.zeros.words[group * (self.outputs / PER_WORD) + column] >> (4 * nibble) & 15;
        match self.linear.layout {
            Layout::Gptq(more) => stored + more,
            Layout::Awq => stored,
        }
    }

    fn scale(&self, group: usize) -> f32 {
        self.scales[group * self.outputs + self.output]
    }

    fn bytes(&self, dtype: DType) -> Vec<u8> {
        match dtype {
            DType::F16 => self.group.iter().enumerate().flat_map(|(input, &g)| self.value(input, g)).collect(),
            _ => (0..self.group.len()).step_by(BLOCK).flat_map(|first| self.block(first, dtype)).collect(),
        }
    }

    fn value(&self, input: usize, group: usize) -> [u8; 2] {
        f16::from_f32((self.weight(input) as f32 - self.zero(group) as f32) * self.scale(group)).to_le_bytes()
    }

    /// `d`, for `Q4_1` then `m`, then nibbles: value `j` low and `j + 16` high; `w = d·q + m`, or `d·(q − 8)`.
    fn block(&self, first: usize, dtype: DType) -> Vec<u8> {
        let scale = self.scale(self.group[first]);
        let mut block = f16::from_f32(scale).to_le_bytes().to_vec();
        if dtype == DType::Q4_1 {
            block.extend(f16::from_f32(-scale * self.zero(self.group[first]) as f32).to_le_bytes());
        }
        let half = BLOCK / 2;
        block.extend((first..first + half).map(|i| (self.weight(i) | self.weight(i + half) << 4) as u8));
        block
    }
}

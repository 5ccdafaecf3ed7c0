//! From named tensors to the weights of a [`Decoder`](super::decoder::Decoder): shapes are checked, projections that
//! read the same input are stacked into one matrix, and the device repacks them. A rank reads its part only.

use super::config::{Experts, Head, ModelConfig, VisionConfig, DENSE, SHARED};
use super::decoder::{Layer, Weights};
use super::feed_forward::{FeedForward, Gated, Shared};
use super::shard::{Part, Shard};
use super::vision;
use crate::error::Result;
use crate::weights::{Source, Tensor};
use sglang_kernels::device::{Device, HostMatrix};
use sglang_kernels::dtype::DType;

/// The format in which matrices go to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As the file stores them; a CPU keeps quantized formats as they are and makes integers of 14 bits of F16 and,
    /// without AMX, of BF16.
    AsStored,
    /// As f32.
    Float32,
    /// Floats in this format: Q8_0, Q4_0, Q4_1 or Q4_K; embedding and head in Q8_0.
    Quantized(DType),
}

impl Precision {
    /// The format for a matrix of `cols` columns stored as `stored`. Rows that are not whole blocks of 256 take Q4_1 in
    /// place of Q4_K, those that are not whole blocks of 32 stay as they are.
    pub(super) fn format(self, stored: DType, cols: usize, layer: bool) -> DType {
        let wanted = match self {
            Precision::AsStored => stored,
            Precision::Float32 => DType::F32,
            Precision::Quantized(_) if !stored.is_float() => stored,
            Precision::Quantized(_) if !layer => DType::Q8_0,
            Precision::Quantized(DType::Q4K) if !cols.is_multiple_of(256) => DType::Q4_1,
            Precision::Quantized(dtype) => dtype,
        };
        if cols.is_multiple_of(wanted.block_len()) {
            wanted
        } else {
            stored
        }
    }
}

/// Loads the weights of a rank; `on_bytes` is told the bytes read so far.
pub fn assemble<D: Device>(
    source: &dyn Source,
    config: &ModelConfig,
    shard: &Shard,
    device: &mut D,
    precision: Precision,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Weights<D>> {
    let mut assembly = Assembly { source, config, shard, device, precision, done: 0, on_bytes };
    let (vocab, hidden) = (shard.vocab.clone(), Part::all(config.hidden));
    Ok(Weights {
        embedding: assembly.matrix(&[("model.embed_tokens.weight", vocab.clone())], &hidden, false, true)?,
        layers: (0..config.layers).map(|index| assembly.layer(index)).collect::<Result<_>>()?,
        norm: assembly.vector("model.norm.weight", config.hidden)?,
        head: match config.head {
            Head::Tied | Head::None => None,
            Head::Own => Some(assembly.matrix(&[("lm_head.weight", vocab)], &hidden, false, false)?),
        },
    })
}

/// Loads the vision tower and the projector, in f32: they are small beside the language model.
pub fn assemble_vision<D: Device>(
    source: &dyn Source,
    config: &ModelConfig,
    vision: &VisionConfig,
    device: &mut D,
) -> Result<vision::Weights<D>> {
    let (on_bytes, shard, precision) = (&mut |_| {}, &Shard::whole(config), Precision::Float32);
    let mut assembly = Assembly { source, config, shard, device, precision, done: 0, on_bytes };
    let (hidden, patch) = (Part::all(vision.hidden), Part::all(3 * vision.patch * vision.patch));
    let width = Part::all(config.hidden);
    Ok(vision::Weights {
        patches: assembly.matrix(
            &[("vision.embeddings.patch_embedding.weight", hidden.clone())],
            &patch,
            false,
            false,
        )?,
        positions: assembly.positions(vision)?,
        norm: assembly.layer_norm("vision.pre_layrnorm", vision.hidden)?,
        layers: (0..vision.layers).map(|index| assembly.vision_layer(vision, index)).collect::<Result<_>>()?,
        projector: [
            assembly.linear(&[("projector.0".into(), width.clone())], &hidden)?,
            assembly.linear(&[("projector.2".into(), width.clone())], &width)?,
        ],
    })
}

struct Assembly<'a, D: Device> {
    source: &'a dyn Source,
    config: &'a ModelConfig,
    shard: &'a Shard,
    device: &'a mut D,
    precision: Precision,
    done: u64,
    on_bytes: &'a mut dyn FnMut(u64),
}

impl<D: Device> Assembly<'_, D> {
    fn layer(&mut self, index: usize) -> Result<Layer<D>> {
        let c = self.config;
        let (q, kv) = (self.shard.heads.times(c.head_size), self.shard.kv_heads.times(c.head_size));
        let hidden = Part::all(c.hidden);
        let named = |part: &str| format!("model.layers.{index}.{part}");
        let qkv = [("q", &q), ("k", &kv), ("v", &kv)];
        let qkv = qkv.map(|(p, rows)| (named(&format!("self_attn.{p}_proj")), rows.clone()));
        Ok(Layer {
            attention_norm: self.vector(&named("input_layernorm.weight"), c.hidden)?,
            qkv: self.stacked(&qkv, &hidden)?,
            qkv_bias: if c.qkv_bias { Some(self.stacked_bias(&qkv)?) } else { None },
            qk_norm: match c.qk_norm {
                true => Some((
                    self.vector(&named("self_attn.q_norm.weight"), c.head_size)?,
                    self.vector(&named("self_attn.k_norm.weight"), c.head_size)?,
                )),
                false => None,
            },
            output: self.stacked(&[(named("self_attn.o_proj"), hidden.clone())], &q)?,
            ffn_norm: self.vector(&named("post_attention_layernorm.weight"), c.hidden)?,
            feed_forward: self.feed_forward(index)?,
        })
    }

    /// The network of a layer, or its experts, as their names say.
    fn feed_forward(&mut self, index: usize) -> Result<FeedForward<D>> {
        let (layer, ffn) = (format!("model.layers.{index}"), self.shard.ffn.clone());
        let Some(Experts { count, names, shared, .. }) = self.config.experts_of(index) else {
            let ffn = if self.config.experts.is_some() { &self.shard.dense_ffn } else { &ffn };
            return Ok(FeedForward::Dense(self.gated(&format!("{layer}.mlp"), &DENSE, ffn)?));
        };
        let block = format!("{layer}.{}", names.block);
        let (experts, hidden) = (Part::all(*count), Part::all(self.config.hidden));
        Ok(FeedForward::Mixture {
            router: self.matrix(&[(&format!("{block}.gate.weight"), experts)], &hidden, false, false)?,
            experts: (0..*count)
                .map(|e| self.gated(&format!("{block}.experts.{e}"), &names.parts, &ffn))
                .collect::<Result<_>>()?,
            shared: shared.map(|_| self.shared(&block)).transpose()?,
        })
    }

    fn shared(&mut self, block: &str) -> Result<Shared<D>> {
        let (gate, hidden, ffn) = (Part::all(1), Part::all(self.config.hidden), self.shard.shared_ffn.clone());
        Ok(Shared {
            gate: self.matrix(&[(&format!("{block}.shared_expert_gate.weight"), gate)], &hidden, false, false)?,
            network: self.gated(&format!("{block}.{SHARED}"), &DENSE, &ffn)?,
        })
    }

    fn gated(&mut self, network: &str, [gate, up, down]: &[&str; 3], ffn: &Part) -> Result<Gated<D>> {
        let hidden = Part::all(self.config.hidden);
        let gate_up = [gate, up].map(|part| (format!("{network}.{part}"), ffn.clone()));
        Ok(Gated {
            gate_up: self.stacked(&gate_up, &hidden)?,
            down: self.stacked(&[(format!("{network}.{down}"), hidden)], ffn)?,
        })
    }

    fn vision_layer(&mut self, vision: &VisionConfig, index: usize) -> Result<vision::Layer<D>> {
        let (hidden, ffn) = (Part::all(vision.hidden), Part::all(vision.ffn));
        let named = |part: &str| format!("vision.encoder.layers.{index}.{part}");
        let qkv = ["q", "k", "v"].map(|part| (named(&format!("self_attn.{part}_proj")), hidden.clone()));
        Ok(vision::Layer {
            norm1: self.layer_norm(&named("layer_norm1"), vision.hidden)?,
            qkv: self.linear(&qkv, &hidden)?,
            output: self.linear(&[(named("self_attn.out_proj"), hidden.clone())], &hidden)?,
            norm2: self.layer_norm(&named("layer_norm2"), vision.hidden)?,
            fc1: self.linear(&[(named("mlp.fc1"), ffn.clone())], &hidden)?,
            fc2: self.linear(&[(named("mlp.fc2"), hidden)], &ffn)?,
        })
    }

    /// Positions, with the class token's vector added to the first.
    fn positions(&mut self, vision: &VisionConfig) -> Result<D::Buffer> {
        let shape = [vision.patches() + 1, vision.hidden];
        let rows = Part::all(shape[0]);
        let mut values = self.values("vision.embeddings.position_embedding.weight", &rows, &shape[1..])?;
        let class = self.values("vision.embeddings.class_embedding", &Part::all(vision.hidden), &[])?;
        values.iter_mut().zip(class).for_each(|(position, class)| *position += class);
        self.buffer(&values)
    }

    fn layer_norm(&mut self, name: &str, len: usize) -> Result<vision::Norm<D>> {
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        Ok(vision::Norm { weight: self.vector(&weight, len)?, bias: self.vector(&bias, len)? })
    }

    fn linear(&mut self, layers: &[(String, Part)], cols: &Part) -> Result<vision::Linear<D>> {
        Ok(vision::Linear { weight: self.stacked(layers, cols)?, bias: self.stacked_bias(layers)? })
    }

    /// The `.weight` matrices of linear layers over the same input, one below the other.
    fn stacked(&mut self, layers: &[(String, Part)], cols: &Part) -> Result<D::Matrix> {
        let names: Vec<_> = layers.iter().map(|(name, rows)| (format!("{name}.weight"), rows)).collect();
        let parts: Vec<_> = names.iter().map(|(name, rows)| (name.as_str(), (*rows).clone())).collect();
        self.matrix(&parts, cols, true, false)
    }

    fn stacked_bias(&mut self, layers: &[(String, Part)]) -> Result<D::Buffer> {
        let mut values = Vec::new();
        for (name, rows) in layers {
            values.extend(self.values(&format!("{name}.bias"), rows, &[])?);
        }
        self.buffer(&values)
    }

    /// `layer` tells matrices of layers from embedding and head.
    fn matrix(&mut self, parts: &[(&str, Part)], cols: &Part, layer: bool, keep_rows: bool) -> Result<D::Matrix> {
        let mut tensors = Vec::with_capacity(parts.len());
        for (name, rows) in parts {
            let mut tensor = self.tensor(name, rows, &[cols.of])?;
            let format = self.precision.format(tensor.dtype, cols.of, layer);
            // A cut falls between blocks of the format that is kept; the stored one may have longer blocks.
            if !tensor.dtype.is_float() {
                tensor.convert(format)?;
            }
            tensor = tensor.columns(cols.taken.clone())?;
            self.count(&tensor);
            tensor.convert(format)?;
            tensors.push(tensor);
        }
        let cols = cols.len();
        let parts: Vec<HostMatrix> =
            tensors.iter().map(|t| HostMatrix { rows: t.shape[0], cols, dtype: t.dtype, bytes: &t.bytes }).collect();
        Ok(self.device.matrix(&parts, keep_rows)?)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<D::Buffer> {
        let values = self.values(name, &Part::all(len), &[])?;
        self.buffer(&values)
    }

    fn buffer(&mut self, values: &[f32]) -> Result<D::Buffer> {
        let mut buffer = self.device.buffer(values.len())?;
        self.device.write(&mut buffer, values)?;
        Ok(buffer)
    }

    /// Some rows of a tensor whose rows are of this shape.
    fn tensor<'s>(&self, name: &str, rows: &Part, row: &[usize]) -> Result<Tensor<'s>>
    where
        Self: 's,
    {
        self.source.rows(name, &[&[rows.of], row].concat(), rows.taken.clone())
    }

    fn values(&mut self, name: &str, rows: &Part, row: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, rows, row)?;
        self.count(&tensor);
        Ok(tensor.to_f32())
    }

    fn count(&mut self, tensor: &Tensor) {
        self.done += tensor.bytes.len() as u64;
        (self.on_bytes)(self.done);
    }
}

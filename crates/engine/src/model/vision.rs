//! The eyes of LLaVA (arXiv 2310.03744): a CLIP vision tower, and a projector into the language model's width.
//!
//! Every patch sees every other one: their keys and values are stored like those of a sequence, and each row then asks as
//! if it were the last. Letters: N patches and the class token, D width of the tower.

use super::config::{ModelConfig, VisionConfig};
use crate::image::Image;
use sglang_kernels::device::{Device, Heads, KvFormat, KvShape, Result, Span, PAGE};
use std::sync::Arc;

/// Pictures whose features are kept while their prompts are computed chunk by chunk.
const KEPT: usize = 8;

/// A linear layer with its bias, over rows of `cols` values.
pub struct Linear<D: Device> {
    /// `[rows, cols]`.
    pub weight: D::Matrix,
    /// `[rows]`.
    pub bias: D::Buffer,
}

/// LayerNorm.
pub struct Norm<D: Device> {
    /// Scale `[D]`.
    pub weight: D::Buffer,
    /// Shift `[D]`.
    pub bias: D::Buffer,
}

/// One layer of the tower.
pub struct Layer<D: Device> {
    /// Before attention.
    pub norm1: Norm<D>,
    /// Fused projections `[3D, D]`.
    pub qkv: Linear<D>,
    /// `[D, D]`.
    pub output: Linear<D>,
    /// Before the feed-forward.
    pub norm2: Norm<D>,
    /// `[F, D]`.
    pub fc1: Linear<D>,
    /// `[D, F]`.
    pub fc2: Linear<D>,
}

/// Weights of tower and projector.
pub struct Weights<D: Device> {
    /// `[D, 3 · patch²]`.
    pub patches: D::Matrix,
    /// `[N, D]`, the class token's vector in the first row.
    pub positions: D::Buffer,
    /// After the embedding.
    pub norm: Norm<D>,
    /// The layers that run.
    pub layers: Vec<Layer<D>>,
    /// The projector, with the activation between.
    pub projector: [Linear<D>; 2],
}

/// A vision tower on a device.
pub struct Vision<D: Device> {
    config: VisionConfig,
    /// Width of the language model.
    width: usize,
    weights: Weights<D>,
    kv: D::Kv,
    x: D::Buffer,
    y: D::Buffer,
    qkv: D::Buffer,
    wide: D::Buffer,
    kept: Vec<(u64, Arc<Vec<f32>>)>,
}

impl<D: Device> Linear<D> {
    fn run(&self, device: &mut D, x: &D::Buffer, rows: usize, out: &mut D::Buffer) -> Result<()> {
        device.matmul(x, &self.weight, rows, out)?;
        device.add_bias(out, &self.bias, rows)
    }
}

impl<D: Device> Vision<D> {
    /// Takes loaded weights and allocates for one picture.
    pub fn new(device: &mut D, model: &ModelConfig, config: VisionConfig, weights: Weights<D>) -> Result<Self> {
        let rows = config.patches() + 1;
        let (hidden, width) = (config.hidden, model.hidden);
        let (kv_heads, head_size) = (config.heads, hidden / config.heads);
        let shape = KvShape { layers: 1, kv_heads, head_size, pages: rows.div_ceil(PAGE), format: KvFormat::F32 };
        Ok(Vision {
            width,
            weights,
            kv: device.kv(shape)?,
            x: device.buffer(rows * hidden.max(3 * config.patch * config.patch))?,
            y: device.buffer(rows * hidden)?,
            qkv: device.buffer(rows * 3 * hidden)?,
            wide: device.buffer(rows * config.ffn.max(width).max(hidden))?,
            config,
            kept: Vec::new(),
        })
    }

    /// Features of a picture, `[n_tokens, width of the language model]`.
    pub fn features(&mut self, device: &mut D, image: &Image) -> Result<Arc<Vec<f32>>> {
        if let Some((_, features)) = self.kept.iter().find(|(hash, _)| *hash == image.hash) {
            return Ok(features.clone());
        }
        self.embed(device, image)?;
        for layer in 0..self.weights.layers.len() {
            self.attend(device, layer)?;
            self.feed_forward(device, layer)?;
        }
        let features = Arc::new(self.project(device)?);
        self.kept.truncate(KEPT - 1);
        self.kept.insert(0, (image.hash, features.clone()));
        Ok(features)
    }

    fn rows(&self) -> usize {
        self.config.patches() + 1
    }

    /// `x = norm(patches + positions)`; the class token's patch is all zeros.
    fn embed(&mut self, device: &mut D, image: &Image) -> Result<()> {
        let (rows, hidden) = (self.rows(), self.config.hidden);
        let patches = self.patches(image);
        device.write(&mut self.x, &patches)?;
        device.matmul(&self.x, &self.weights.patches, rows, &mut self.y)?;
        device.add(&mut self.y, &self.weights.positions, rows * hidden)?;
        let norm = &self.weights.norm;
        device.layer_norm(&self.y, &norm.weight, &norm.bias, self.config.norm_eps, rows, &mut self.x)
    }

    /// Rows of `[3, patch, patch]` values, the first all zeros.
    fn patches(&self, image: &Image) -> Vec<f32> {
        let (patch, side) = (self.config.patch, self.config.sight.preprocess.crop);
        let mut rows = vec![0.0; 3 * patch * patch];
        for (top, left) in (0..side).step_by(patch).flat_map(|y| (0..side).step_by(patch).map(move |x| (y, x))) {
            for (channel, y) in (0..3).flat_map(|c| (top..top + patch).map(move |y| (c, y))) {
                rows.extend_from_slice(&image.pixels[(channel * side + y) * side + left..][..patch]);
            }
        }
        rows
    }

    fn attend(&mut self, device: &mut D, index: usize) -> Result<()> {
        let (rows, c, layer) = (self.rows(), &self.config, &self.weights.layers[index]);
        let heads = Heads { q: c.heads, kv: c.heads, size: c.hidden / c.heads };
        let pages: Vec<u32> = (0..rows.div_ceil(PAGE) as u32).collect();
        let whole = [Span { rows: 0..rows, position: 0, pages: pages.clone() }];
        let last = |row| Span { rows: row..row + 1, position: rows - 1, pages: pages.clone() };
        let each: Vec<Span> = (0..rows).map(last).collect();
        device.layer_norm(&self.x, &layer.norm1.weight, &layer.norm1.bias, c.norm_eps, rows, &mut self.y)?;
        layer.qkv.run(device, &self.y, rows, &mut self.qkv)?;
        device.store_kv(&self.qkv, heads, &mut self.kv, 0, &whole)?;
        let scale = (heads.size as f32).powf(-0.5);
        device.attention(&self.qkv, heads, &self.kv, 0, &each, 0, scale, &mut self.wide)?;
        layer.output.run(device, &self.wide, rows, &mut self.y)?;
        device.add(&mut self.x, &self.y, rows * c.hidden)
    }

    fn feed_forward(&mut self, device: &mut D, index: usize) -> Result<()> {
        let (rows, c, layer) = (self.rows(), &self.config, &self.weights.layers[index]);
        device.layer_norm(&self.x, &layer.norm2.weight, &layer.norm2.bias, c.norm_eps, rows, &mut self.y)?;
        layer.fc1.run(device, &self.y, rows, &mut self.wide)?;
        device.gelu(&mut self.wide, c.activation, rows * c.ffn)?;
        layer.fc2.run(device, &self.wide, rows, &mut self.y)?;
        device.add(&mut self.x, &self.y, rows * c.hidden)
    }

    fn project(&mut self, device: &mut D) -> Result<Vec<f32>> {
        let first = usize::from(!self.config.class_token);
        let taken: Vec<usize> = (first..self.rows()).collect();
        let [one, two] = &self.weights.projector;
        device.gather(&self.x, &taken, self.config.hidden, &mut self.y)?;
        let mut out = device.buffer(taken.len() * self.width)?;
        one.run(device, &self.y, taken.len(), &mut self.wide)?;
        device.gelu(&mut self.wide, sglang_kernels::device::Gelu::Exact, taken.len() * self.width)?;
        two.run(device, &self.wide, taken.len(), &mut out)?;
        device.read(&out, taken.len() * self.width)
    }
}

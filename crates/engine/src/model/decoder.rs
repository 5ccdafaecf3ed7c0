//! The decoder of all Llama-like models: one computation, whose differences are data in [`ModelConfig`].
//!
//! Letters as in `sglang_kernels::device`: T rows of the step, D hidden, H·S query width, F feed-forward, V vocabulary.
//! A rank of several holds its [`Shard`] of H, K, F and V; D is whole on every rank, and the same bits.

use crate::batch::{Answers, Batch, Picked};
use crate::comm::Communicator;
use crate::image::ImageRows;
use crate::model::config::{ModelConfig, VisionConfig};
use crate::model::feed_forward::{self, FeedForward};
use crate::model::shard::Shard;
use crate::model::vision::{self, Vision};
use sglang_kernels::device::{Device, Heads, KvShape, Result, Span};

/// Rows of logits held at a time: the head of a long list of outputs runs in tiles of about this many rows.
const HEAD_ROWS: usize = 64;

/// Output rows of a tile: as many for each rank, so that rank r answers the outputs r, r + ranks, r + 2 · ranks …
fn head_rows(ranks: usize) -> usize {
    HEAD_ROWS.next_multiple_of(ranks)
}

/// Weights of one layer.
pub struct Layer<D: Device> {
    /// RMSNorm before attention `[D]`.
    pub attention_norm: D::Buffer,
    /// Fused projections `[(H + 2K)·S, D]`.
    pub qkv: D::Matrix,
    /// Bias of the fused projections `[(H + 2K)·S]` (Qwen2).
    pub qkv_bias: Option<D::Buffer>,
    /// Norms of q and k heads `[S]` (Qwen3).
    pub qk_norm: Option<(D::Buffer, D::Buffer)>,
    /// Output projection `[D, H·S]`.
    pub output: D::Matrix,
    /// RMSNorm before the feed-forward `[D]`.
    pub ffn_norm: D::Buffer,
    /// What follows it.
    pub feed_forward: FeedForward<D>,
}

/// Weights of a model.
pub struct Weights<D: Device> {
    /// Token embedding `[V, D]`, also the head where `head` is `None`.
    pub embedding: D::Matrix,
    /// The layers, in order.
    pub layers: Vec<Layer<D>>,
    /// Last RMSNorm `[D]`.
    pub norm: D::Buffer,
    /// Output head `[V, D]` where it is not tied.
    pub head: Option<D::Matrix>,
}

/// A model with its KV cache and scratch on one device.
pub struct Decoder<D: Device> {
    device: D,
    config: ModelConfig,
    shard: Shard,
    heads: Heads,
    inv_freq: Vec<f32>,
    weights: Weights<D>,
    kv: D::Kv,
    scratch: Scratch<D>,
    max_rows: usize,
    vision: Option<Vision<D>>,
}

/// Activations of a step, allocated once for the largest one.
struct Scratch<D: Device> {
    /// Residual stream `[T, D]`.
    x: D::Buffer,
    /// Normalised input, then the output of a projection `[T, D]`.
    y: D::Buffer,
    /// Fused q, k, v `[T, (H + 2K)·S]`.
    qkv: D::Buffer,
    /// Attention output `[T, H·S]`.
    attention: D::Buffer,
    feed_forward: feed_forward::Scratch<D>,
    /// Cosines and sines `[T, S]`.
    rope: D::Buffer,
    /// Rows that are answered `[R, D]`, R a tile of them.
    last: D::Buffer,
    /// The same, normalised.
    last_normed: D::Buffer,
    /// Their logits, those of the rank's vocabulary `[R, V]`, where that is not the whole.
    some_logits: Option<D::Buffer>,
    /// All logits of those that this rank answers `[R, V]`.
    logits: D::Buffer,
}

impl<D: Device> Scratch<D> {
    fn new(device: &mut D, config: &ModelConfig, shard: &Shard, heads: Heads, rows: usize) -> Result<Self> {
        let (answered, hidden, vocab) = (head_rows(shard.ranks), config.hidden, config.vocab);
        let ffn = shard.ffn.len().max(shard.shared_ffn.len()).max(shard.dense_ffn.len());
        let some_logits = (shard.ranks > 1).then(|| device.buffer(answered * shard.vocab.len()));
        Ok(Scratch {
            x: device.buffer(rows * config.hidden)?,
            y: device.buffer(rows * config.hidden)?,
            qkv: device.buffer(rows * heads.row())?,
            attention: device.buffer(rows * heads.q * heads.size)?,
            feed_forward: feed_forward::Scratch::new(device, config, ffn, rows)?,
            rope: device.buffer(rows * heads.size)?,
            last: device.buffer(answered * hidden)?,
            last_normed: device.buffer(answered * hidden)?,
            some_logits: some_logits.transpose()?,
            logits: device.buffer(answered / shard.ranks * vocab)?,
        })
    }
}

impl<D: Device> Decoder<D> {
    /// Takes loaded weights; `max_rows` is the largest step, `kv` the size of the cache of all key/value heads.
    pub fn new(
        mut device: D,
        config: ModelConfig,
        shard: Shard,
        weights: Weights<D>,
        kv: KvShape,
        max_rows: usize,
    ) -> Result<Self> {
        let heads = Heads { q: shard.heads.len(), kv: shard.kv_heads.len(), size: config.head_size };
        let scratch = Scratch::new(&mut device, &config, &shard, heads, max_rows)?;
        let kv = device.kv(KvShape { kv_heads: heads.kv, ..kv })?;
        let inv_freq = config.inv_freq();
        Ok(Decoder { device, config, shard, heads, inv_freq, weights, kv, scratch, max_rows, vision: None })
    }

    /// Gives the model eyes.
    pub fn with_vision(mut self, config: VisionConfig, weights: vision::Weights<D>) -> Result<Self> {
        self.vision = Some(Vision::new(&mut self.device, &self.config, config, weights)?);
        Ok(self)
    }

    /// The device's own description.
    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// Runs one step: of a rank of several, what it answers; states are those of the first.
    pub fn forward(&mut self, comm: &mut dyn Communicator<D>, batch: &Batch) -> Result<Answers> {
        let rows = batch.tokens.len();
        assert!(rows <= self.max_rows, "a step of {rows} rows was scheduled; scratch holds {}", self.max_rows);
        self.device.copy_rows(&mut self.kv, &batch.copies)?;
        let positions: Vec<u32> = batch.positions().collect();
        self.device.rope_table(&positions, &self.inv_freq, &mut self.scratch.rope)?;
        self.embed(comm, batch)?;
        self.begin(rows)?;
        for layer in 0..self.weights.layers.len() {
            self.attend(comm, layer, rows, &batch.spans)?;
            self.feed_forward(comm, layer, rows, &batch.spans)?;
        }
        let picked = self.answer(comm, batch)?;
        // States are the same on all ranks.
        let states = if self.shard.rank == 0 { self.states(&batch.states)? } else { Vec::new() };
        Ok(Answers { picked, states })
    }

    /// Embeddings, and features of pictures in their places. Each rank looks up its part of the vocabulary, and the first
    /// one sees; the sum is whole.
    fn embed(&mut self, comm: &mut dyn Communicator<D>, batch: &Batch) -> Result<()> {
        let (rows, width) = (batch.tokens.len(), self.config.hidden);
        let (device, s, table) = (&mut self.device, &mut self.scratch, &self.weights.embedding);
        if self.shard.ranks == 1 {
            device.embed(table, &batch.tokens, &mut s.x)?;
            return self.place_images(&batch.images);
        }
        let vocab = &self.shard.vocab.taken;
        let local =
            |(row, &token): (usize, &u32)| vocab.contains(&(token as usize)).then(|| (row, token - vocab.start as u32));
        let (known, tokens): (Vec<usize>, Vec<u32>) = batch.tokens.iter().enumerate().filter_map(local).unzip();
        device.embed(table, &tokens, &mut s.y)?;
        device.zero(&mut s.x, rows * width)?;
        device.scatter_add(&s.y, &known, &vec![1.0; known.len()], width, &mut s.x)?;
        self.place_images(&batch.images)?;
        comm.all_reduce(&mut self.device, &mut self.scratch.x, rows * width)
    }

    /// Puts features of pictures in the place of embeddings.
    fn place_images(&mut self, images: &[ImageRows]) -> Result<()> {
        let Some(vision) = &mut self.vision else { return Ok(()) };
        for ImageRows { image, rows, first } in images {
            let features = vision.features(&mut self.device, image)?;
            let width = self.config.hidden;
            let values = &features[first * width..][..rows.len() * width];
            self.device.write_at(&mut self.scratch.x, rows.start * width, values)?;
        }
        Ok(())
    }

    /// `y = norm(x)`, what the first layer begins with.
    fn begin(&mut self, rows: usize) -> Result<()> {
        let (device, s, eps) = (&mut self.device, &mut self.scratch, self.config.norm_eps);
        let Some(first) = self.weights.layers.first() else { return Ok(()) };
        device.rms_norm(&s.x, &first.attention_norm, eps, rows, &mut s.y)
    }

    /// `x += output(attention(qkv(y)))`, `y = norm(x)`.
    fn attend(&mut self, comm: &mut dyn Communicator<D>, index: usize, rows: usize, spans: &[Span]) -> Result<()> {
        let (device, s, layer) = (&mut self.device, &mut self.scratch, &self.weights.layers[index]);
        device.matmul(&s.y, &layer.qkv, rows, &mut s.qkv)?;
        if let Some(bias) = &layer.qkv_bias {
            device.add_bias(&mut s.qkv, bias, rows)?;
        }
        if let Some((q, k)) = &layer.qk_norm {
            device.head_norm(&mut s.qkv, self.heads, q, k, self.config.norm_eps, rows)?;
        }
        device.rope(&mut s.qkv, self.heads, &s.rope, rows)?;
        device.store_kv(&s.qkv, self.heads, &mut self.kv, index, spans)?;
        let scale = (self.heads.size as f32).powf(-0.5);
        let window = self.config.sliding_window;
        device.attention(&s.qkv, self.heads, &self.kv, index, spans, window, scale, &mut s.attention)?;
        device.matmul(&s.attention, &layer.output, rows, &mut s.y)?;
        comm.all_reduce(device, &mut s.y, rows * self.config.hidden)?;
        device.add_norm(&mut s.x, &mut s.y, &layer.ffn_norm, self.config.norm_eps, rows)
    }

    /// `x += feed_forward(y)`, and `y = norm(x)` for the next layer.
    fn feed_forward(
        &mut self,
        comm: &mut dyn Communicator<D>,
        index: usize,
        rows: usize,
        spans: &[Span],
    ) -> Result<()> {
        let (device, s, layer) = (&mut self.device, &mut self.scratch, &self.weights.layers[index]);
        let next = self.weights.layers.get(index + 1);
        if next.is_some() {
            device.expect_attention(&self.kv, index + 1, spans);
        }
        layer.feed_forward.run(device, &mut s.feed_forward, &mut s.y, rows)?;
        comm.all_reduce(device, &mut s.y, rows * self.config.hidden)?;
        match next {
            Some(next) => device.add_norm(&mut s.x, &mut s.y, &next.attention_norm, self.config.norm_eps, rows),
            None => device.add(&mut s.x, &s.y, rows * self.config.hidden),
        }
    }

    /// Logits of the output rows only, and the tokens of those that this rank answers.
    fn answer(&mut self, comm: &mut dyn Communicator<D>, batch: &Batch) -> Result<Vec<Picked>> {
        let (device, s, weights) = (&mut self.device, &mut self.scratch, &self.weights);
        let Shard { rank, ranks, .. } = self.shard;
        let head = weights.head.as_ref().unwrap_or(&weights.embedding);
        let mut picked = Vec::with_capacity(batch.outputs.len());
        for tile in batch.outputs.chunks(head_rows(ranks)) {
            let rows: Vec<usize> = tile.iter().map(|output| output.row).collect();
            let asks: Vec<_> = tile.iter().skip(rank).step_by(ranks).map(|output| output.ask.clone()).collect();
            device.gather(&s.x, &rows, self.config.hidden, &mut s.last)?;
            device.rms_norm(&s.last, &weights.norm, self.config.norm_eps, rows.len(), &mut s.last_normed)?;
            match &mut s.some_logits {
                None => device.matmul(&s.last_normed, head, rows.len(), &mut s.logits)?,
                Some(some) => {
                    device.matmul(&s.last_normed, head, rows.len(), some)?;
                    comm.deal_rows(device, some, rows.len(), self.shard.vocab.len(), &mut s.logits)?;
                }
            }
            picked.extend(device.sample(&mut s.logits, self.config.vocab, &asks)?);
        }
        Ok(picked)
    }

    /// States of these rows after the last norm, `D` values each.
    fn states(&mut self, rows: &[usize]) -> Result<Vec<Vec<f32>>> {
        let (device, s, width) = (&mut self.device, &mut self.scratch, self.config.hidden);
        let mut states = Vec::with_capacity(rows.len());
        for tile in rows.chunks(HEAD_ROWS) {
            device.gather(&s.x, tile, width, &mut s.last)?;
            device.rms_norm(&s.last, &self.weights.norm, self.config.norm_eps, tile.len(), &mut s.last_normed)?;
            let values = device.read(&s.last_normed, tile.len() * width)?;
            states.extend(values.chunks(width).map(<[f32]>::to_vec));
        }
        Ok(states)
    }
}

//! The op vocabulary: everything a transformer step asks of a processor.
//!
//! Letters used in every shape: T rows (tokens of a step), R output rows, D hidden size, H query heads,
//! K key/value heads, S head size, F feed-forward size, V vocabulary, P pages.
//! Activations are f32, row-major. Weights and the KV cache live in whatever layout a device likes.
//! An op writes its result into `out` and allocates nothing that grows with the number of steps.
//!
//! Law (batch invariance): each output row depends on its own inputs only, bit for bit, whatever other rows,
//! threads or chunks are in the step.

use crate::dtype::DType;
pub use crate::kv_format::KvFormat;
use std::ops::Range;
use std::sync::Arc;

/// Tokens in one page of the KV cache.
pub const PAGE: usize = 16;

/// What can go wrong on a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device has less memory than was asked for.
    #[error("out of {device} memory: {wanted} bytes wanted")]
    OutOfMemory {
        /// Which device.
        device: &'static str,
        /// Size of the refused allocation in bytes.
        wanted: usize,
    },
    /// The device cannot hold or compute this.
    #[error("{0}")]
    Unsupported(String),
}

/// Result of every op.
pub type Result<T> = std::result::Result<T, DeviceError>;

/// A weight matrix as a file stores it: `rows × cols`, row-major, `cols` contiguous (y = x · Wᵀ).
pub struct HostMatrix<'a> {
    /// Output features N.
    pub rows: usize,
    /// Input features K.
    pub cols: usize,
    /// Element or block format of `bytes`.
    pub dtype: DType,
    /// `rows × dtype.row_bytes(cols)` bytes.
    pub bytes: &'a [u8],
}

/// Sizes of the paged KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Number of layers.
    pub layers: usize,
    /// Key/value heads K (of this rank).
    pub kv_heads: usize,
    /// Head size S.
    pub head_size: usize,
    /// Pages P of [`PAGE`] tokens each.
    pub pages: usize,
    /// How they are stored.
    pub format: KvFormat,
}

/// A run of consecutive rows of the step that belong to one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Rows of the step, `[first, end)`.
    pub rows: Range<usize>,
    /// Position in the sequence of the first row; the rows follow each other.
    pub position: usize,
    /// Page table: page `i` holds positions `16 i … 16 i + 15`; long enough for the last row. Where no row sees, any page
    /// may stand.
    pub pages: Vec<u32>,
}

/// Rows `[0, rows)` of page `from` are to be copied to page `to`, in every layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRows {
    /// Source page.
    pub from: u32,
    /// Destination page.
    pub to: u32,
    /// Rows to copy, fewer than [`PAGE`].
    pub rows: usize,
}

/// Heads of the fused query/key/value rows, laid out `[H·S | K·S | K·S]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads H.
    pub q: usize,
    /// Key/value heads K; divides H.
    pub kv: usize,
    /// Head size S.
    pub size: usize,
}

impl Heads {
    /// Length of one fused row, `(H + 2K) · S`.
    pub fn row(&self) -> usize {
        (self.q + 2 * self.kv) * self.size
    }
}

/// How the next token of an output row is found.
#[derive(Debug, Clone, PartialEq)]
pub enum Pick {
    /// The token is given (prompt log-probabilities): report its log-probability only.
    Given(u32),
    /// Sample it.
    Sample(SampleParams),
}

/// Parameters of one sampled row. Order of application: `allowed`, `edits`, repetition penalty, then temperature,
/// top-k, top-p, min-p, and one draw by inverse CDF in ascending token order.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleParams {
    /// ≤ 0 means greedy: the first of the largest logits.
    pub temperature: f32,
    /// Nucleus mass in (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Most likely tokens kept; 0 keeps all.
    pub top_k: u32,
    /// Tokens below `min_p ×` the largest probability are dropped; 0 keeps all.
    pub min_p: f32,
    /// Uniform draw in [0, 1).
    pub uniform: f32,
    /// Added to the logits: logit bias, frequency and presence penalties.
    pub edits: Vec<(u32, f32)>,
    /// Tokens already seen, without repeats, for the repetition penalty.
    pub seen: Vec<u32>,
    /// Divides positive and multiplies negative logits of `seen`; 1 does nothing.
    pub repetition_penalty: f32,
    /// Bit `t % 32` of word `t / 32` tells whether token `t` may be chosen; `None` allows all.
    pub allowed: Option<Arc<[u32]>>,
}

/// One output row of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRow {
    /// How its token is found.
    pub pick: Pick,
    /// Whether log-probabilities are wanted at all.
    pub logprob: bool,
    /// How many of the most likely tokens to report.
    pub top: usize,
    /// Tokens whose log-probability is to be reported.
    pub of_tokens: Vec<u32>,
}

/// Stands for a token where mask, edits or NaNs leave nothing to choose.
pub const NO_TOKEN: u32 = u32::MAX;

/// The answer for one output row. Log-probabilities are those of the model: natural logarithm of the softmax of the
/// raw logits, before temperature, penalties, bias and masks.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Picked {
    /// The sampled or given token, or [`NO_TOKEN`].
    pub token: u32,
    /// Its log-probability, where asked for (else 0).
    pub logprob: f32,
    /// The most likely tokens, in descending order; ties by ascending token.
    pub top: Vec<(u32, f32)>,
    /// Log-probabilities of `of_tokens`, in their order.
    pub of_tokens: Vec<(u32, f32)>,
}

/// An activation of vision towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// `v · Φ(v)`, Φ the cumulative normal distribution (Hendrycks and Gimpel, arXiv 1606.08415).
    Exact,
    /// `v · sigmoid(1.702 v)`.
    Quick,
}

/// The experts of one row, ascending, each with the weight of its output.
pub type Route = Vec<(usize, f32)>;

/// A processor that can run a transformer step. One value serves one rank and is used by one thread at a time; its
/// ops may run on many threads inside.
pub trait Device: Send + 'static {
    /// f32 values in device memory.
    type Buffer: Send;
    /// A weight matrix in the device's own layout.
    type Matrix: Send + Sync;
    /// The KV cache of all layers.
    type Kv: Send;

    /// What was chosen, for the start-up line: e.g. `cpu (avx512vnni, 2 threads)`.
    fn describe(&self) -> String;

    /// `len` zeros.
    fn buffer(&mut self, len: usize) -> Result<Self::Buffer>;
    /// Copies host values to the front of `buffer`.
    fn write(&mut self, buffer: &mut Self::Buffer, values: &[f32]) -> Result<()> {
        self.write_at(buffer, 0, values)
    }
    /// Copies host values to `buffer[at..]`.
    fn write_at(&mut self, buffer: &mut Self::Buffer, at: usize, values: &[f32]) -> Result<()>;
    /// Copies the first `len` values to the host.
    fn read(&mut self, buffer: &Self::Buffer, len: usize) -> Result<Vec<f32>>;
    /// Repacks a weight matrix for [`Device::matmul`]: `parts` of one width, one below the other. `keep_rows` says that rows are also looked up by
    /// [`Device::embed`] (tied embeddings).
    fn matrix(&mut self, parts: &[HostMatrix], keep_rows: bool) -> Result<Self::Matrix>;
    /// An empty KV cache.
    fn kv(&mut self, shape: KvShape) -> Result<Self::Kv>;

    /// `out[T, D] = table[tokens[t], :]`.
    fn embed(&mut self, table: &Self::Matrix, tokens: &[u32], out: &mut Self::Buffer) -> Result<()>;
    /// `out[r, :] = x[rows[r], :]`, rows of `width` values.
    fn gather(&mut self, x: &Self::Buffer, rows: &[usize], width: usize, out: &mut Self::Buffer) -> Result<()>;
    /// `out[t, :] = x[t, :] / sqrt(mean(x[t, :]²) + eps) · weight`, for `rows` rows of `weight`'s length.
    fn rms_norm(
        &mut self,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        eps: f32,
        rows: usize,
        out: &mut Self::Buffer,
    ) -> Result<()>;
    /// `x[t, :] += y[t, :]`, then `y[t, :]` = the same norm of the new `x[t, :]`: what lies between two halves of layers.
    fn add_norm(
        &mut self,
        x: &mut Self::Buffer,
        y: &mut Self::Buffer,
        weight: &Self::Buffer,
        eps: f32,
        rows: usize,
    ) -> Result<()>;
    /// The norm in place on each head of the q and k parts of fused rows (Qwen3): weights of length S.
    fn head_norm(
        &mut self,
        qkv: &mut Self::Buffer,
        heads: Heads,
        q: &Self::Buffer,
        k: &Self::Buffer,
        eps: f32,
        rows: usize,
    ) -> Result<()>;
    /// `out[T, N] = x[T, K] · wᵀ`.
    fn matmul(&mut self, x: &Self::Buffer, w: &Self::Matrix, rows: usize, out: &mut Self::Buffer) -> Result<()>;
    /// The same for rows `silu(x[t, k]) · x[t, K + k]` of `x[T, 2K]`, where silu(v) = v / (1 + e^−v).
    fn matmul_gated(&mut self, x: &Self::Buffer, w: &Self::Matrix, rows: usize, out: &mut Self::Buffer) -> Result<()>;
    /// `x[t, :] += bias`.
    fn add_bias(&mut self, x: &mut Self::Buffer, bias: &Self::Buffer, rows: usize) -> Result<()>;
    /// `x[i] += y[i]` for the first `len` values.
    fn add(&mut self, x: &mut Self::Buffer, y: &Self::Buffer, len: usize) -> Result<()>;
    /// Cosines and sines of the step: `out[t, 0..S/2] = cos(p·f)`, `out[t, S/2..S] = sin(p·f)`, with `p` the position of
    /// row t and `f` the `inv_freq[S/2]`; the product in f32.
    fn rope_table(&mut self, positions: &[u32], inv_freq: &[f32], out: &mut Self::Buffer) -> Result<()>;
    /// Rotates the q and k heads of fused rows in place; pairs are (i, i + S/2).
    fn rope(&mut self, qkv: &mut Self::Buffer, heads: Heads, table: &Self::Buffer, rows: usize) -> Result<()>;
    /// Writes the k and v parts of fused rows into the pages of their spans.
    fn store_kv(
        &mut self,
        qkv: &Self::Buffer,
        heads: Heads,
        kv: &mut Self::Kv,
        layer: usize,
        spans: &[Span],
    ) -> Result<()>;
    /// Says that [`Device::attention`] of this layer and these spans is near, so that its keys and values can be brought near
    /// while products are computed. Changes no result.
    fn expect_attention(&mut self, _kv: &Self::Kv, _layer: usize, _spans: &[Span]) {}
    /// Copies page rows in all layers. Sources are not destinations of the same call.
    fn copy_rows(&mut self, kv: &mut Self::Kv, copies: &[CopyRows]) -> Result<()>;
    /// Causal attention of each row over positions `[max(0, p + 1 − window), p]` of its sequence (`window` 0: all),
    /// scores scaled by `scale`; `out[T, H·S]`.
    #[allow(clippy::too_many_arguments)]
    fn attention(
        &mut self,
        qkv: &Self::Buffer,
        heads: Heads,
        kv: &Self::Kv,
        layer: usize,
        spans: &[Span],
        window: usize,
        scale: f32,
        out: &mut Self::Buffer,
    ) -> Result<()>;
    /// `out[t, :] = (x[t, :] − mean) / sqrt(variance + eps) · weight + bias`, mean and variance those of the row.
    fn layer_norm(
        &mut self,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        bias: &Self::Buffer,
        eps: f32,
        rows: usize,
        out: &mut Self::Buffer,
    ) -> Result<()>;
    /// The activation of the first `len` values, in place.
    fn gelu(&mut self, x: &mut Self::Buffer, kind: Gelu, len: usize) -> Result<()>;
    /// The `top` of `experts` experts that each row of `logits[T, E]` goes to, with their softmax over all experts,
    /// divided by the sum of those chosen where `normalise`.
    fn route(
        &mut self,
        logits: &Self::Buffer,
        experts: usize,
        top: usize,
        normalise: bool,
        rows: usize,
    ) -> Result<Vec<Route>>;
    /// `out[rows[i], :] += weights[i] · x[i, :]`; no row twice.
    fn scatter_add(
        &mut self,
        x: &Self::Buffer,
        rows: &[usize],
        weights: &[f32],
        width: usize,
        out: &mut Self::Buffer,
    ) -> Result<()>;
    /// `x[i] = 0` for the first `len` values.
    fn zero(&mut self, x: &mut Self::Buffer, len: usize) -> Result<()>;
    /// Finds the token of each output row; `logits[R, V]` are left in an unspecified state.
    fn sample(&mut self, logits: &mut Self::Buffer, vocab: usize, rows: &[OutputRow]) -> Result<Vec<Picked>>;
}

//! The cores of this machine.
//!
//! The law: the arithmetic of an output value is fixed by its own inputs; tiles, chunks and threads only decide who
//! computes it. Kernels are written once over sixteen lanes and compiled for every level; the level is chosen once, at
//! start.

mod ahead;
mod attention;
mod elementwise;
mod factors;
mod halves;
mod input;
mod kv;
mod level;
mod matmul;
mod matrix;
pub mod node;
mod norm;
mod planes;
mod pool;
mod roof;
mod rope;
mod sample;
mod simd;
mod slab;
mod steps;
mod tile;
mod vision;

use crate::device::{
    CopyRows, Device, DeviceError, Gelu, Heads, HostMatrix, KvShape, OutputRow, Picked, Result, Route, Span,
};
use crate::{reference, shape};
use attention::Ask;
pub use kv::Kv;
pub use level::Level;
use matmul::{Kept, Source};
pub use matrix::Matrix;
pub use pool::Patience;
use pool::Pool;
pub use roof::Roof;
use simd::Isa;
use slab::Shelf;
pub use slab::Slab;

/// Runs every op on the cores of this machine.
pub struct Cpu {
    pool: Pool,
    isa: Isa,
    level: Level,
    kept: Kept,
    partials: Vec<f32>,
    shelf: Shelf,
}

impl Cpu {
    /// A device of `threads` threads (at least 1) that uses `simd`, or the best level this machine has. Fails where
    /// the machine lacks it.
    pub fn new(threads: usize, simd: Option<Level>) -> Result<Cpu> {
        let level = Level::resolve(simd)?;
        let isa = Isa::detect(level).ok_or_else(|| DeviceError::Unsupported(format!("{level} is not built in")))?;
        let no_thread = |e| DeviceError::Unsupported(format!("cannot start {threads} threads: {e}"));
        let pool = Pool::new(threads.max(1)).map_err(no_thread)?;
        Ok(Cpu { pool, isa, level, kept: Kept::default(), partials: Vec::new(), shelf: Shelf::default() })
    }
}

impl Device for Cpu {
    type Buffer = Slab<f32>;
    type Matrix = Matrix;
    type Kv = Kv;

    fn describe(&self) -> String {
        let threads = self.pool.threads();
        format!("cpu ({}, {threads} thread{})", self.level, if threads == 1 { "" } else { "s" })
    }

    fn buffer(&mut self, len: usize) -> Result<Slab<f32>> {
        Slab::zeros(len)
    }

    fn read(&mut self, buffer: &Slab<f32>, len: usize) -> Result<Vec<f32>> {
        shape::enough("buffer", buffer.len(), len)?;
        Ok(buffer[..len].to_vec())
    }

    /// Rows can be read back from the tiles, so `keep_rows` costs nothing.
    fn matrix(&mut self, parts: &[HostMatrix], _keep_rows: bool) -> Result<Matrix> {
        shape::matrix(parts)?;
        Matrix::pack(self.level, &mut self.pool, &mut self.shelf, parts)
    }

    fn kv(&mut self, shape: KvShape) -> Result<Kv> {
        Kv::new(shape)
    }

    fn embed(&mut self, table: &Matrix, tokens: &[u32], out: &mut Slab<f32>) -> Result<()> {
        shape::below("token", tokens.iter().map(|&t| t as usize), table.rows)?;
        shape::enough("out of embed", out.len(), tokens.len() * table.cols)?;
        let width = table.cols.max(1);
        let out = &mut out[..tokens.len() * table.cols];
        self.pool.pieces(out, width, |first, row| table.row(tokens[first / width] as usize, row));
        Ok(())
    }

    fn gather(&mut self, x: &Slab<f32>, rows: &[usize], width: usize, out: &mut Slab<f32>) -> Result<()> {
        shape::below("row", rows.iter().copied(), x.len() / width.max(1))?;
        shape::enough("out of gather", out.len(), rows.len() * width)?;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(width.max(1))) {
            out.copy_from_slice(&x[row * width..][..width]);
        }
        Ok(())
    }

    fn rms_norm(
        &mut self,
        x: &Slab<f32>,
        weight: &Slab<f32>,
        eps: f32,
        rows: usize,
        out: &mut Slab<f32>,
    ) -> Result<()> {
        let len = rows * weight.len();
        shape::enough("x of rms_norm", x.len(), len)?;
        shape::enough("out of rms_norm", out.len(), len)?;
        norm::rms_norm(self.isa, &mut self.pool, &x[..len], weight, eps, &mut out[..len]);
        Ok(())
    }

    fn add_norm(
        &mut self,
        x: &mut Slab<f32>,
        y: &mut Slab<f32>,
        weight: &Slab<f32>,
        eps: f32,
        rows: usize,
    ) -> Result<()> {
        let len = rows * weight.len();
        shape::enough("operand of add_norm", x.len().min(y.len()), len)?;
        norm::add_norm(self.isa, &mut self.pool, &mut x[..len], &mut y[..len], weight, eps);
        Ok(())
    }

    fn head_norm(
        &mut self,
        qkv: &mut Slab<f32>,
        heads: Heads,
        q: &Slab<f32>,
        k: &Slab<f32>,
        eps: f32,
        rows: usize,
    ) -> Result<()> {
        shape::heads(heads)?;
        shape::enough("qkv of head_norm", qkv.len(), rows * heads.row())?;
        shape::enough("weight of head_norm", q.len().min(k.len()), heads.size)?;
        norm::head_norm(self.isa, &mut self.pool, &mut qkv[..rows * heads.row()], heads, q, k, eps);
        Ok(())
    }

    fn matmul(&mut self, x: &Slab<f32>, w: &Matrix, rows: usize, out: &mut Slab<f32>) -> Result<()> {
        shape::enough("x of matmul", x.len(), rows * w.cols)?;
        shape::enough("out of matmul", out.len(), rows * w.rows)?;
        matmul::matmul(self.isa, &mut self.pool, &mut self.kept, Source::Plain(x), w, rows, out);
        Ok(())
    }

    fn matmul_gated(&mut self, x: &Slab<f32>, w: &Matrix, rows: usize, out: &mut Slab<f32>) -> Result<()> {
        shape::enough("x of matmul_gated", x.len(), rows * 2 * w.cols)?;
        shape::enough("out of matmul_gated", out.len(), rows * w.rows)?;
        matmul::matmul(self.isa, &mut self.pool, &mut self.kept, Source::Gated(x), w, rows, out);
        Ok(())
    }

    fn add_bias(&mut self, x: &mut Slab<f32>, bias: &Slab<f32>, rows: usize) -> Result<()> {
        shape::enough("x of add_bias", x.len(), rows * bias.len())?;
        elementwise::add_rows(self.isa, &mut self.pool, &mut x[..rows * bias.len()], bias);
        Ok(())
    }

    fn add(&mut self, x: &mut Slab<f32>, y: &Slab<f32>, len: usize) -> Result<()> {
        shape::enough("operand of add", x.len().min(y.len()), len)?;
        elementwise::add(self.isa, &mut self.pool, &mut x[..len], &y[..len]);
        Ok(())
    }

    fn rope_table(&mut self, positions: &[u32], inv_freq: &[f32], out: &mut Slab<f32>) -> Result<()> {
        shape::enough("out of rope_table", out.len(), positions.len() * 2 * inv_freq.len())?;
        reference::rope::table(positions, inv_freq, out);
        Ok(())
    }

    fn rope(&mut self, qkv: &mut Slab<f32>, heads: Heads, table: &Slab<f32>, rows: usize) -> Result<()> {
        shape::heads(heads)?;
        shape::enough("qkv of rope", qkv.len(), rows * heads.row())?;
        shape::enough("table of rope", table.len(), rows * heads.size)?;
        rope::rope(self.isa, &mut self.pool, &mut qkv[..rows * heads.row()], heads, table);
        Ok(())
    }

    fn store_kv(&mut self, qkv: &Slab<f32>, heads: Heads, kv: &mut Kv, layer: usize, spans: &[Span]) -> Result<()> {
        shape::spans(kv.shape, heads, layer, spans, qkv.len() / heads.row().max(1))?;
        kv.store(self.isa, &mut self.pool, qkv, heads, layer, spans);
        Ok(())
    }

    fn expect_attention(&mut self, kv: &Kv, layer: usize, spans: &[Span]) {
        self.kept.ahead.attention(kv, layer, spans, self.pool.threads());
    }

    fn copy_rows(&mut self, kv: &mut Kv, copies: &[CopyRows]) -> Result<()> {
        shape::copies(kv.shape, copies)?;
        kv.copy_rows(copies);
        Ok(())
    }

    fn attention(
        &mut self,
        qkv: &Slab<f32>,
        heads: Heads,
        kv: &Kv,
        layer: usize,
        spans: &[Span],
        window: usize,
        scale: f32,
        out: &mut Slab<f32>,
    ) -> Result<()> {
        shape::spans(kv.shape, heads, layer, spans, qkv.len() / heads.row().max(1))?;
        shape::attended(heads, spans, out.len())?;
        let ask = Ask { qkv, heads, layer, window, scale };
        attention::attention(self.isa, &mut self.pool, &mut self.partials, ask, kv, spans, out);
        Ok(())
    }

    fn layer_norm(
        &mut self,
        x: &Slab<f32>,
        weight: &Slab<f32>,
        bias: &Slab<f32>,
        eps: f32,
        rows: usize,
        out: &mut Slab<f32>,
    ) -> Result<()> {
        shape::layer_norm(x.len(), weight.len(), bias.len(), rows, out.len())?;
        vision::layer_norm(&mut self.pool, x, weight, bias, eps, &mut out[..rows * weight.len()]);
        Ok(())
    }

    fn gelu(&mut self, x: &mut Slab<f32>, kind: Gelu, len: usize) -> Result<()> {
        shape::enough("x of gelu", x.len(), len)?;
        vision::gelu(&mut self.pool, &mut x[..len], kind);
        Ok(())
    }

    fn write_at(&mut self, buffer: &mut Slab<f32>, at: usize, values: &[f32]) -> Result<()> {
        shape::enough("buffer", buffer.len(), at + values.len())?;
        buffer[at..at + values.len()].copy_from_slice(values);
        Ok(())
    }

    /// A handful of numbers a row, so the plain loops are as fast as any.
    fn route(
        &mut self,
        logits: &Slab<f32>,
        experts: usize,
        top: usize,
        normalise: bool,
        rows: usize,
    ) -> Result<Vec<Route>> {
        shape::routes(experts, top)?;
        shape::enough("logits of route", logits.len(), rows * experts)?;
        Ok(reference::experts::route(logits, experts, top, normalise, rows))
    }

    fn scatter_add(
        &mut self,
        x: &Slab<f32>,
        rows: &[usize],
        weights: &[f32],
        width: usize,
        out: &mut Slab<f32>,
    ) -> Result<()> {
        shape::scatter(x.len(), rows, weights, width, out.len())?;
        elementwise::scatter_add(self.isa, x, rows, weights, width, out);
        Ok(())
    }

    fn zero(&mut self, x: &mut Slab<f32>, len: usize) -> Result<()> {
        shape::enough("x of zero", x.len(), len)?;
        x[..len].fill(0.0);
        Ok(())
    }

    fn sample(&mut self, logits: &mut Slab<f32>, vocab: usize, rows: &[OutputRow]) -> Result<Vec<Picked>> {
        shape::enough("logits", logits.len(), rows.len() * vocab)?;
        shape::outputs(vocab, rows)?;
        Ok(sample::sample(self.isa, &mut self.pool, logits, vocab, rows))
    }
}

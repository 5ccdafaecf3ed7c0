//! The specification of every op in plain f32 loops, and a [`Device`] made of them.
//!
//! The law: clear before fast. Nothing here knows of lanes, tiles or threads; every other device is tested against it.

mod attention;
mod elementwise;
mod embed;
pub mod experts;
mod kv;
mod matmul;
mod norm;
pub mod rope;
pub mod sample;
pub mod vision;

use crate::device::{CopyRows, Device, Gelu, Heads, HostMatrix, KvShape, OutputRow, Picked, Result, Route, Span};
use crate::dtype::dequantize;
use crate::shape;
pub use kv::Kv;

/// Runs every op in plain loops over `Vec<f32>`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reference;

/// A matrix `[rows, cols]` in f32.
#[derive(Debug, Clone)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    values: Vec<f32>,
}

impl Device for Reference {
    type Buffer = Vec<f32>;
    type Matrix = Matrix;
    type Kv = Kv;

    fn describe(&self) -> String {
        "reference (plain loops, 1 thread)".into()
    }

    fn buffer(&mut self, len: usize) -> Result<Vec<f32>> {
        Ok(vec![0.0; len])
    }

    fn read(&mut self, buffer: &Vec<f32>, len: usize) -> Result<Vec<f32>> {
        shape::enough("buffer", buffer.len(), len)?;
        Ok(buffer[..len].to_vec())
    }

    fn matrix(&mut self, parts: &[HostMatrix], _keep_rows: bool) -> Result<Matrix> {
        shape::matrix(parts)?;
        let mut all = Vec::new();
        for part in parts {
            let mut values = vec![0.0; part.rows * part.cols];
            dequantize(part.dtype, part.bytes, &mut values)?;
            all.extend(values);
        }
        let (rows, cols) = (parts.iter().map(|part| part.rows).sum(), parts.first().map_or(0, |part| part.cols));
        Ok(Matrix { rows, cols, values: all })
    }

    fn kv(&mut self, shape: KvShape) -> Result<Kv> {
        Ok(Kv::new(shape))
    }

    fn embed(&mut self, table: &Matrix, tokens: &[u32], out: &mut Vec<f32>) -> Result<()> {
        shape::below("token", tokens.iter().map(|&t| t as usize), table.rows)?;
        shape::enough("out of embed", out.len(), tokens.len() * table.cols)?;
        embed::embed(&table.values, table.cols, tokens, out);
        Ok(())
    }

    fn gather(&mut self, x: &Vec<f32>, rows: &[usize], width: usize, out: &mut Vec<f32>) -> Result<()> {
        shape::below("row", rows.iter().copied(), x.len() / width.max(1))?;
        shape::enough("out of gather", out.len(), rows.len() * width)?;
        embed::gather(x, rows, width, out);
        Ok(())
    }

    fn rms_norm(&mut self, x: &Vec<f32>, weight: &Vec<f32>, eps: f32, rows: usize, out: &mut Vec<f32>) -> Result<()> {
        shape::enough("x of rms_norm", x.len(), rows * weight.len())?;
        shape::enough("out of rms_norm", out.len(), rows * weight.len())?;
        norm::rms_norm(x, weight, eps, rows, out);
        Ok(())
    }

    fn add_norm(&mut self, x: &mut Vec<f32>, y: &mut Vec<f32>, weight: &Vec<f32>, eps: f32, rows: usize) -> Result<()> {
        shape::enough("operand of add_norm", x.len().min(y.len()), rows * weight.len())?;
        self.add(x, y, rows * weight.len())?;
        self.rms_norm(x, weight, eps, rows, y)
    }

    fn head_norm(
        &mut self,
        qkv: &mut Vec<f32>,
        heads: Heads,
        q: &Vec<f32>,
        k: &Vec<f32>,
        eps: f32,
        rows: usize,
    ) -> Result<()> {
        shape::heads(heads)?;
        shape::enough("qkv of head_norm", qkv.len(), rows * heads.row())?;
        shape::enough("weight of head_norm", q.len().min(k.len()), heads.size)?;
        norm::head_norm(qkv, heads, q, k, eps, rows);
        Ok(())
    }

    fn matmul(&mut self, x: &Vec<f32>, w: &Matrix, rows: usize, out: &mut Vec<f32>) -> Result<()> {
        shape::enough("x of matmul", x.len(), rows * w.cols)?;
        shape::enough("out of matmul", out.len(), rows * w.rows)?;
        matmul::matmul(x, &w.values, w.cols, rows, w.rows, out);
        Ok(())
    }

    fn matmul_gated(&mut self, x: &Vec<f32>, w: &Matrix, rows: usize, out: &mut Vec<f32>) -> Result<()> {
        shape::enough("x of matmul_gated", x.len(), rows * 2 * w.cols)?;
        let mut gated = vec![0.0; rows * w.cols];
        elementwise::silu_mul(x, rows, w.cols, &mut gated);
        self.matmul(&gated, w, rows, out)
    }

    fn add_bias(&mut self, x: &mut Vec<f32>, bias: &Vec<f32>, rows: usize) -> Result<()> {
        shape::enough("x of add_bias", x.len(), rows * bias.len())?;
        x.chunks_exact_mut(bias.len().max(1)).take(rows).for_each(|row| elementwise::add(row, bias));
        Ok(())
    }

    fn add(&mut self, x: &mut Vec<f32>, y: &Vec<f32>, len: usize) -> Result<()> {
        shape::enough("operand of add", x.len().min(y.len()), len)?;
        elementwise::add(&mut x[..len], y);
        Ok(())
    }

    fn rope_table(&mut self, positions: &[u32], inv_freq: &[f32], out: &mut Vec<f32>) -> Result<()> {
        shape::enough("out of rope_table", out.len(), positions.len() * 2 * inv_freq.len())?;
        rope::table(positions, inv_freq, out);
        Ok(())
    }

    fn rope(&mut self, qkv: &mut Vec<f32>, heads: Heads, table: &Vec<f32>, rows: usize) -> Result<()> {
        shape::heads(heads)?;
        shape::enough("qkv of rope", qkv.len(), rows * heads.row())?;
        shape::enough("table of rope", table.len(), rows * heads.size)?;
        rope::rope(qkv, heads, table, rows);
        Ok(())
    }

    fn store_kv(&mut self, qkv: &Vec<f32>, heads: Heads, kv: &mut Kv, layer: usize, spans: &[Span]) -> Result<()> {
        shape::spans(kv.shape, heads, layer, spans, qkv.len() / heads.row().max(1))?;
        kv.store(qkv, heads, layer, spans);
        Ok(())
    }

    fn copy_rows(&mut self, kv: &mut Kv, copies: &[CopyRows]) -> Result<()> {
        shape::copies(kv.shape, copies)?;
        kv.copy_rows(copies);
        Ok(())
    }

    fn attention(
        &mut self,
        qkv: &Vec<f32>,
        heads: Heads,
        kv: &Kv,
        layer: usize,
        spans: &[Span],
        window: usize,
        scale: f32,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        shape::spans(kv.shape, heads, layer, spans, qkv.len() / heads.row().max(1))?;
        shape::attended(heads, spans, out.len())?;
        attention::attention(qkv, heads, kv, layer, spans, window, scale, out);
        Ok(())
    }

    fn layer_norm(
        &mut self,
        x: &Vec<f32>,
        weight: &Vec<f32>,
        bias: &Vec<f32>,
        eps: f32,
        rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        shape::layer_norm(x.len(), weight.len(), bias.len(), rows, out.len())?;
        vision::layer_norm(&x[..rows * weight.len()], weight, bias, eps, out);
        Ok(())
    }

    fn gelu(&mut self, x: &mut Vec<f32>, kind: Gelu, len: usize) -> Result<()> {
        shape::enough("x of gelu", x.len(), len)?;
        vision::gelu(&mut x[..len], kind);
        Ok(())
    }

    fn write_at(&mut self, buffer: &mut Vec<f32>, at: usize, values: &[f32]) -> Result<()> {
        shape::enough("buffer", buffer.len(), at + values.len())?;
        buffer[at..at + values.len()].copy_from_slice(values);
        Ok(())
    }

    fn route(
        &mut self,
        logits: &Vec<f32>,
        experts: usize,
        top: usize,
        normalise: bool,
        rows: usize,
    ) -> Result<Vec<Route>> {
        shape::routes(experts, top)?;
        shape::enough("logits of route", logits.len(), rows * experts)?;
        Ok(experts::route(logits, experts, top, normalise, rows))
    }

    fn scatter_add(
        &mut self,
        x: &Vec<f32>,
        rows: &[usize],
        weights: &[f32],
        width: usize,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        shape::scatter(x.len(), rows, weights, width, out.len())?;
        experts::scatter_add(x, rows, weights, width, out);
        Ok(())
    }

    fn zero(&mut self, x: &mut Vec<f32>, len: usize) -> Result<()> {
        shape::enough("x of zero", x.len(), len)?;
        x[..len].fill(0.0);
        Ok(())
    }

    fn sample(&mut self, logits: &mut Vec<f32>, vocab: usize, rows: &[OutputRow]) -> Result<Vec<Picked>> {
        shape::enough("logits", logits.len(), rows.len() * vocab)?;
        shape::outputs(vocab, rows)?;
        let pairs = logits.chunks_exact_mut(vocab.max(1)).zip(rows);
        Ok(pairs.map(|(logits, row)| sample::pick(logits, row)).collect())
    }
}

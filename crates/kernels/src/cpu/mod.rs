//! The processor at hand (for now the reference loops behind the final interface).

mod level;

use crate::device::{CopyRows, Device, Heads, HostMatrix, KvShape, OutputRow, Picked, Result, Span};
use crate::reference::{self, Reference};
pub use level::Level;

/// Runs every op on the cores of this machine.
pub struct Cpu {
    threads: usize,
    level: Level,
    plain: Reference,
}

impl Cpu {
    /// A device of `threads` threads (at least 1) that uses `simd`, or the best level this machine has. Fails where
    /// the machine lacks it.
    pub fn new(threads: usize, simd: Option<Level>) -> Result<Cpu> {
        Ok(Cpu { threads: threads.max(1), level: Level::resolve(simd)?, plain: Reference })
    }
}

impl Device for Cpu {
    type Buffer = Vec<f32>;
    type Matrix = reference::Matrix;
    type Kv = reference::Kv;

    fn describe(&self) -> String {
        format!("cpu ({}, {} thread{})", self.level, self.threads, if self.threads == 1 { "" } else { "s" })
    }
    fn buffer(&mut self, len: usize) -> Result<Vec<f32>> {
        self.plain.buffer(len)
    }
    fn write(&mut self, buffer: &mut Vec<f32>, values: &[f32]) -> Result<()> {
        self.plain.write(buffer, values)
    }
    fn read(&mut self, buffer: &Vec<f32>, len: usize) -> Result<Vec<f32>> {
        self.plain.read(buffer, len)
    }
    fn matrix(&mut self, host: &HostMatrix, keep_rows: bool) -> Result<reference::Matrix> {
        self.plain.matrix(host, keep_rows)
    }
    fn kv(&mut self, shape: KvShape) -> Result<reference::Kv> {
        self.plain.kv(shape)
    }
    fn embed(&mut self, table: &reference::Matrix, tokens: &[u32], out: &mut Vec<f32>) -> Result<()> {
        self.plain.embed(table, tokens, out)
    }
    fn gather(&mut self, x: &Vec<f32>, rows: &[usize], width: usize, out: &mut Vec<f32>) -> Result<()> {
        self.plain.gather(x, rows, width, out)
    }
    fn rms_norm(&mut self, x: &Vec<f32>, weight: &Vec<f32>, eps: f32, rows: usize, out: &mut Vec<f32>) -> Result<()> {
        self.plain.rms_norm(x, weight, eps, rows, out)
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
        self.plain.head_norm(qkv, heads, q, k, eps, rows)
    }
    fn matmul(&mut self, x: &Vec<f32>, w: &reference::Matrix, rows: usize, out: &mut Vec<f32>) -> Result<()> {
        self.plain.matmul(x, w, rows, out)
    }
    fn add_bias(&mut self, x: &mut Vec<f32>, bias: &Vec<f32>, rows: usize) -> Result<()> {
        self.plain.add_bias(x, bias, rows)
    }
    fn add(&mut self, x: &mut Vec<f32>, y: &Vec<f32>, len: usize) -> Result<()> {
        self.plain.add(x, y, len)
    }
    fn rope_table(&mut self, positions: &[u32], inv_freq: &[f32], out: &mut Vec<f32>) -> Result<()> {
        self.plain.rope_table(positions, inv_freq, out)
    }
    fn rope(&mut self, qkv: &mut Vec<f32>, heads: Heads, table: &Vec<f32>, rows: usize) -> Result<()> {
        self.plain.rope(qkv, heads, table, rows)
    }
    fn store_kv(
        &mut self,
        qkv: &Vec<f32>,
        heads: Heads,
        kv: &mut reference::Kv,
        layer: usize,
        spans: &[Span],
    ) -> Result<()> {
        self.plain.store_kv(qkv, heads, kv, layer, spans)
    }
    fn copy_rows(&mut self, kv: &mut reference::Kv, copies: &[CopyRows]) -> Result<()> {
        self.plain.copy_rows(kv, copies)
    }
    fn attention(
        &mut self,
        qkv: &Vec<f32>,
        heads: Heads,
        kv: &reference::Kv,
        layer: usize,
        spans: &[Span],
        window: usize,
        scale: f32,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        self.plain.attention(qkv, heads, kv, layer, spans, window, scale, out)
    }
    fn silu_mul(&mut self, x: &Vec<f32>, rows: usize, width: usize, out: &mut Vec<f32>) -> Result<()> {
        self.plain.silu_mul(x, rows, width, out)
    }
    fn sample(&mut self, logits: &mut Vec<f32>, vocab: usize, rows: &[OutputRow]) -> Result<Vec<Picked>> {
        self.plain.sample(logits, vocab, rows)
    }
}

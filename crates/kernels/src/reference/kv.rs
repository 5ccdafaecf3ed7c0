//! The paged cache of keys and values, one f32 row per position and layer.
//!
//! The law: position p of a sequence is row p % 16 of page `pages[p / 16]`, and holds `[K·S keys | K·S values]` rounded
//! to the format of the cache.

use crate::device::{CopyRows, Heads, KvFormat, KvShape, Span, PAGE};
use half::{bf16, f16};

/// Keys and values of all layers, `[layer][page][row][2·K·S]`.
#[derive(Debug, Clone)]
pub struct Kv {
    pub(super) shape: KvShape,
    rows: Vec<f32>,
}

impl Kv {
    /// All zeros.
    pub fn new(shape: KvShape) -> Kv {
        let row = 2 * shape.kv_heads * shape.head_size;
        Kv { shape, rows: vec![0.0; shape.layers * shape.pages * PAGE * row] }
    }

    fn width(&self) -> usize {
        2 * self.shape.kv_heads * self.shape.head_size
    }

    fn offset(&self, layer: usize, page: u32, row: usize) -> usize {
        ((layer * self.shape.pages + page as usize) * PAGE + row) * self.width()
    }

    /// Keys and values of a position.
    pub fn row(&self, layer: usize, pages: &[u32], position: usize) -> (&[f32], &[f32]) {
        let at = self.offset(layer, pages[position / PAGE], position % PAGE);
        self.rows[at..][..self.width()].split_at(self.width() / 2)
    }

    /// Writes the k and v parts of fused rows.
    pub fn store(&mut self, qkv: &[f32], heads: Heads, layer: usize, spans: &[Span]) {
        for span in spans {
            for (i, t) in span.rows.clone().enumerate() {
                let position = span.position + i;
                let at = self.offset(layer, span.pages[position / PAGE], position % PAGE);
                let kv = &qkv[t * heads.row() + heads.q * heads.size..(t + 1) * heads.row()];
                self.rows[at..][..kv.len()].copy_from_slice(kv);
                let vectors = self.rows[at..][..kv.len()].chunks_exact_mut(heads.size);
                vectors.for_each(|vector| round(self.shape.format, vector));
            }
        }
    }

    /// Copies the first rows of pages, in every layer.
    pub fn copy_rows(&mut self, copies: &[CopyRows]) {
        let width = self.width();
        for layer in 0..self.shape.layers {
            for copy in copies {
                let (from, to) = (self.offset(layer, copy.from, 0), self.offset(layer, copy.to, 0));
                self.rows.copy_within(from..from + copy.rows * width, to);
            }
        }
    }
}

/// Rounds the key or value of one head. Integers are multiples of a step, of which the largest value has `most`: for 16
/// bits so many that the product of two such vectors fits 32.
fn round(format: KvFormat, vector: &mut [f32]) {
    let most = match format {
        KvFormat::F32 => return,
        KvFormat::F16 => return vector.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        KvFormat::BF16 => return vector.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        KvFormat::Int16 => (i32::MAX as f64 / vector.len() as f64).sqrt().min(32767.0).floor() as f32,
        KvFormat::Int8 => 127.0,
    };
    let largest = vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    if largest > 0.0 {
        vector.iter_mut().for_each(|x| *x = (*x * (most / largest)).round_ties_even() * (largest / most));
    }
}

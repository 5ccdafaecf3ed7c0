//! The paged KV cache as the attention kernel reads it.
//!
//! The law: per layer, page and head there is one block. What is in it is the business of its format: [`float`] or
//! [`quant`]. A row of a block is written and copied without a look at the others.

pub mod float;
pub mod quant;

use super::simd::{Isa, Kernel, Simd, LANES};
use crate::device::{CopyRows, Heads, KvFormat, KvShape, Result, Span, PAGE};
use float::Floats;
use half::{bf16, f16};
use quant::Quants;

const _: () = assert!(PAGE == LANES);

/// Keys and values of all layers.
pub struct Kv {
    /// Sizes.
    pub shape: KvShape,
    /// The pages.
    pub pages: AnyPages,
}

/// Pages of one format.
#[allow(missing_docs)]
pub enum AnyPages {
    F32(Floats<f32>),
    F16(Floats<f16>),
    BF16(Floats<bf16>),
    Int16(Quants<i16>),
    Int8(Quants<i8>),
}

/// Evaluates `$body` with `$pages` bound to the pages of whichever format.
macro_rules! with_pages {
    ($any:expr, $pages:ident => $body:expr) => {
        match $any {
            $crate::cpu::kv::AnyPages::F32($pages) => $body,
            $crate::cpu::kv::AnyPages::F16($pages) => $body,
            $crate::cpu::kv::AnyPages::BF16($pages) => $body,
            $crate::cpu::kv::AnyPages::Int16($pages) => $body,
            $crate::cpu::kv::AnyPages::Int8($pages) => $body,
        }
    };
}
pub(super) use with_pages;

/// Blocks of 16 tokens, one per layer, page and head, numbered by [`number`].
pub trait Blocks: Send {
    /// Puts one token's key and value into row `row` of a block.
    fn put<S: Simd>(&mut self, s: S, block: usize, row: usize, key: &[f32], value: &[f32]);
    /// Copies the first `rows` rows of block `from` to block `to`.
    fn copy(&mut self, from: usize, to: usize, rows: usize);
}

/// The number of a block.
#[inline(always)]
pub fn number(shape: &KvShape, layer: usize, page: u32, head: usize) -> usize {
    (layer * shape.pages + page as usize) * shape.kv_heads + head
}

/// Number of blocks; saturates, so that too many are refused as memory.
fn count(shape: &KvShape) -> usize {
    shape.layers.saturating_mul(shape.pages).saturating_mul(shape.kv_heads)
}

impl Kv {
    /// All zeros.
    pub fn new(shape: KvShape) -> Result<Kv> {
        let pages = match shape.format {
            KvFormat::F32 => AnyPages::F32(Floats::new(&shape)?),
            KvFormat::F16 => AnyPages::F16(Floats::new(&shape)?),
            KvFormat::BF16 => AnyPages::BF16(Floats::new(&shape)?),
            KvFormat::Int16 => AnyPages::Int16(Quants::new(&shape)?),
            KvFormat::Int8 => AnyPages::Int8(Quants::new(&shape)?),
        };
        Ok(Kv { shape, pages })
    }

    /// Writes the k and v parts of fused rows.
    pub fn store(&mut self, isa: Isa, qkv: &[f32], heads: Heads, layer: usize, spans: &[Span]) {
        let shape = &self.shape;
        with_pages!(&mut self.pages, blocks => isa.run(Store { qkv, heads, layer, spans, shape, blocks }));
    }

    /// Copies the first rows of pages, in every layer.
    pub fn copy_rows(&mut self, copies: &[CopyRows]) {
        with_pages!(&mut self.pages, blocks => copy_rows(blocks, &self.shape, copies));
    }
}

fn copy_rows(blocks: &mut impl Blocks, shape: &KvShape, copies: &[CopyRows]) {
    for layer in 0..shape.layers {
        for copy in copies {
            for head in 0..shape.kv_heads {
                let (from, to) = (number(shape, layer, copy.from, head), number(shape, layer, copy.to, head));
                blocks.copy(from, to, copy.rows);
            }
        }
    }
}

struct Store<'a, B: Blocks> {
    qkv: &'a [f32],
    heads: Heads,
    layer: usize,
    spans: &'a [Span],
    shape: &'a KvShape,
    blocks: &'a mut B,
}

impl<B: Blocks> Kernel for Store<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Heads { q, kv, size } = self.heads;
        for span in self.spans {
            for (i, t) in span.rows.clone().enumerate() {
                let position = span.position + i;
                let page = span.pages[position / PAGE];
                let row = &self.qkv[t * self.heads.row() + q * size..][..2 * kv * size];
                for head in 0..kv {
                    let (key, value) = (&row[head * size..][..size], &row[(kv + head) * size..][..size]);
                    let block = number(self.shape, self.layer, page, head);
                    self.blocks.put(s, block, position % PAGE, key, value);
                }
            }
        }
    }
}

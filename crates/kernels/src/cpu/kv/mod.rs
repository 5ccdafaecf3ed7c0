//! The paged KV cache as the attention kernel reads it.
//!
//! The law: per page, layer and head there is one block, those of a page side by side, so that memory is taken from the
//! system as pages are. What is in a block is the business of its format: [`float`] or [`quant`]. A row of it is written and
//! copied without a look at the others.

pub mod float;
pub mod quant;

use super::pool::Pool;
use super::simd::{Isa, Kernel, Simd, LANES};
use crate::device::{CopyRows, Heads, KvFormat, KvShape, Result, Span, PAGE};
use float::Floats;
use half::{bf16, f16};
use quant::Quants;
use std::ops::Range;

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

/// Blocks of 16 tokens, one per page, layer and head, numbered by [`number`].
pub trait Blocks: Send {
    /// A range of blocks, to write.
    type Part<'a>: Put + Send
    where
        Self: 'a;
    /// The memory of a range of blocks.
    fn memory(&self, range: Range<usize>) -> [Range<usize>; 2];
    /// The blocks of each of these ranges, which ascend and are apart.
    fn parts<'a>(&'a mut self, ranges: &[Range<usize>]) -> Vec<Self::Part<'a>>;
    /// Copies the first `rows` rows of block `from` to block `to`.
    fn copy(&mut self, from: usize, to: usize, rows: usize);
}

/// Blocks that one thread writes.
pub trait Put {
    /// Puts one token's key and value into row `row` of the block at `index`.
    fn put<S: Simd>(&mut self, s: S, index: usize, row: usize, key: &[f32], value: &[f32]);
}

/// The values of each of these ranges of blocks of `len` values.
fn apart<'a, T>(mut values: &'a mut [T], len: usize, ranges: &[Range<usize>]) -> Vec<&'a mut [T]> {
    let mut passed = 0;
    let mut take = |range: &Range<usize>| {
        let (_, from) = std::mem::take(&mut values).split_at_mut((range.start - passed) * len);
        let (taken, rest) = from.split_at_mut(range.len() * len);
        (values, passed) = (rest, range.end);
        taken
    };
    ranges.iter().map(&mut take).collect()
}

/// The number of a block.
#[inline(always)]
pub fn number(shape: &KvShape, layer: usize, page: u32, head: usize) -> usize {
    (page as usize * shape.layers + layer) * shape.kv_heads + head
}

/// Number of blocks; saturates, so that too many are refused as memory.
fn count(shape: &KvShape) -> usize {
    shape.pages.saturating_mul(shape.layers).saturating_mul(shape.kv_heads)
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

    /// Writes the k and v parts of fused rows; the threads share the pages, each those of rows that it will attend to.
    pub fn store(&mut self, isa: Isa, pool: &mut Pool, qkv: &[f32], heads: Heads, layer: usize, spans: &[Span]) {
        let mut rows: Vec<Place> = spans.iter().flat_map(Place::of).collect();
        rows.sort_by_key(|place| place.page);
        let pages: Vec<&[Place]> = rows.chunk_by(|a, b| a.page == b.page).collect();
        let first = |rows: &&[Place]| number(&self.shape, layer, rows[0].page, 0);
        let blocks: Vec<_> = pages.iter().map(first).map(|first| first..first + heads.kv).collect();
        with_pages!(&mut self.pages, all => {
            let mut stores: Vec<_> = all.parts(&blocks).into_iter().zip(pages).collect();
            stores.sort_by_key(|(_, rows)| rows[0].row);
            pool.each(&mut stores, |_, (blocks, rows)| isa.run(Store { qkv, heads, rows, blocks }));
        });
    }

    /// The memory of a page in a layer.
    pub fn memory(&self, layer: usize, page: u32) -> [Range<usize>; 2] {
        let first = number(&self.shape, layer, page, 0);
        with_pages!(&self.pages, blocks => blocks.memory(first..first + self.shape.kv_heads))
    }

    /// Copies the first rows of pages, in every layer.
    pub fn copy_rows(&mut self, copies: &[CopyRows]) {
        with_pages!(&mut self.pages, blocks => copy_rows(blocks, &self.shape, copies));
    }
}

fn copy_rows(blocks: &mut impl Blocks, shape: &KvShape, copies: &[CopyRows]) {
    for copy in copies {
        for layer in 0..shape.layers {
            for head in 0..shape.kv_heads {
                let (from, to) = (number(shape, layer, copy.from, head), number(shape, layer, copy.to, head));
                blocks.copy(from, to, copy.rows);
            }
        }
    }
}

/// Where a row of the step is kept.
struct Place {
    /// Of the step.
    row: usize,
    page: u32,
    /// In the page.
    slot: usize,
}

impl Place {
    fn of(span: &Span) -> impl Iterator<Item = Place> + '_ {
        let place = |(row, position)| Place { row, page: span.pages[position / PAGE], slot: position % PAGE };
        span.rows.clone().zip(span.position..).map(place)
    }
}

/// Rows of the step into the blocks of one page.
struct Store<'a, B> {
    qkv: &'a [f32],
    heads: Heads,
    rows: &'a [Place],
    blocks: &'a mut B,
}

impl<B: Put> Kernel for Store<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Heads { q, kv, size } = self.heads;
        for place in self.rows {
            let (keys, values) =
                self.qkv[place.row * self.heads.row()..][q * size..][..2 * kv * size].split_at(kv * size);
            for (head, (key, value)) in keys.chunks_exact(size).zip(values.chunks_exact(size)).enumerate() {
                self.blocks.put(s, head, place.slot, key, value);
            }
        }
    }
}

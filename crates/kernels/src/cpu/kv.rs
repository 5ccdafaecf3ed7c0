//! The paged KV cache as the attention kernel reads it.
//!
//! The law: per layer, page and head there is one block: S vectors of keys (vector d holds dimension d of the page's
//! 16 tokens, so that 16 scores come out of one register), then 16 rows of values, padded with zeros to whole vectors.

use super::simd::{Element, Isa, Kernel, Simd, LANES};
use super::slab::{Plain, Slab};
use crate::device::{CopyRows, Heads, KvShape, Result, Span, PAGE};
use crate::dtype::DType;
use half::{bf16, f16};

const _: () = assert!(PAGE == LANES);

/// Keys and values of all layers.
pub struct Kv {
    /// Sizes.
    pub shape: KvShape,
    /// The pages.
    pub pages: AnyPages,
}

/// Pages of one element format.
#[allow(missing_docs)]
pub enum AnyPages {
    F32(Pages<f32>),
    F16(Pages<f16>),
    BF16(Pages<bf16>),
}

/// Evaluates `$body` with `$pages` bound to the pages of whichever format.
macro_rules! with_pages {
    ($any:expr, $pages:ident => $body:expr) => {
        match $any {
            $crate::cpu::kv::AnyPages::F32($pages) => $body,
            $crate::cpu::kv::AnyPages::F16($pages) => $body,
            $crate::cpu::kv::AnyPages::BF16($pages) => $body,
        }
    };
}
pub(super) use with_pages;

impl Kv {
    /// All zeros. The format was checked.
    pub fn new(shape: KvShape) -> Result<Kv> {
        let pages = match shape.dtype {
            DType::F16 => AnyPages::F16(Pages::new(shape)?),
            DType::BF16 => AnyPages::BF16(Pages::new(shape)?),
            _ => AnyPages::F32(Pages::new(shape)?),
        };
        Ok(Kv { shape, pages })
    }

    /// Writes the k and v parts of fused rows.
    pub fn store(&mut self, isa: Isa, qkv: &[f32], heads: Heads, layer: usize, spans: &[Span]) {
        with_pages!(&mut self.pages, pages => isa.run(Store { qkv, heads, layer, spans, pages }));
    }

    /// Copies the first rows of pages, in every layer.
    pub fn copy_rows(&mut self, copies: &[CopyRows]) {
        with_pages!(&mut self.pages, pages => pages.copy_rows(self.shape, copies));
    }
}

/// `[layer][page][head]` blocks of `S + 16 · ⌈S / 16⌉` vectors.
pub struct Pages<E: Plain> {
    pages: usize,
    heads: usize,
    size: usize,
    vectors: Slab<[E; LANES]>,
}

impl<E: Element + Plain> Pages<E> {
    fn new(shape: KvShape) -> Result<Pages<E>> {
        let KvShape { layers, kv_heads: heads, head_size: size, pages, .. } = shape;
        let block = size + PAGE * size.div_ceil(LANES);
        let blocks = layers.saturating_mul(pages).saturating_mul(heads);
        Ok(Pages { pages, heads, size, vectors: Slab::zeros(blocks.saturating_mul(block))? })
    }

    /// Vectors of a row of values.
    #[inline(always)]
    pub fn value_vectors(&self) -> usize {
        self.size.div_ceil(LANES)
    }

    #[inline(always)]
    fn at(&self, layer: usize, page: u32, head: usize) -> (usize, usize) {
        let block = self.size + PAGE * self.value_vectors();
        (((layer * self.pages + page as usize) * self.heads + head) * block, block)
    }

    /// Keys `[S]` and values `[16][⌈S / 16⌉]` of a page.
    #[inline(always)]
    pub fn block(&self, layer: usize, page: u32, head: usize) -> (&[[E; LANES]], &[[E; LANES]]) {
        let (at, len) = self.at(layer, page, head);
        self.vectors[at..][..len].split_at(self.size)
    }

    fn copy_rows(&mut self, shape: KvShape, copies: &[CopyRows]) {
        for layer in 0..shape.layers {
            for copy in copies {
                (0..self.heads).for_each(|head| self.copy_block(layer, head, copy));
            }
        }
    }

    fn copy_block(&mut self, layer: usize, head: usize, copy: &CopyRows) {
        let (from, (to, _)) = (self.at(layer, copy.from, head).0, self.at(layer, copy.to, head));
        for d in 0..self.size {
            let keys = self.vectors[from + d];
            self.vectors[to + d][..copy.rows].copy_from_slice(&keys[..copy.rows]);
        }
        let values = copy.rows * self.value_vectors();
        self.vectors.copy_within(from + self.size..from + self.size + values, to + self.size);
    }
}

struct Store<'a, E: Plain> {
    qkv: &'a [f32],
    heads: Heads,
    layer: usize,
    spans: &'a [Span],
    pages: &'a mut Pages<E>,
}

impl<E: Element + Plain> Kernel for Store<'_, E> {
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
                    let (at, len) = self.pages.at(self.layer, page, head);
                    let (keys, values) = self.pages.vectors[at..][..len].split_at_mut(size);
                    let (k, v) = (&row[head * size..][..size], &row[(kv + head) * size..][..size]);
                    store_token(s, k, v, position % PAGE, keys, values);
                }
            }
        }
    }
}

/// Puts one token's key and value into row `row` of a block.
#[inline(always)]
fn store_token<S: Simd, E: Element>(
    s: S,
    k: &[f32],
    v: &[f32],
    row: usize,
    keys: &mut [[E; LANES]],
    values: &mut [[E; LANES]],
) {
    for (k, keys) in k.chunks(LANES).zip(keys.chunks_mut(LANES)) {
        let k = E::narrow_all(s, s.load_part(k));
        keys.iter_mut().zip(k).for_each(|(vector, k)| vector[row] = k);
    }
    let count = v.len().div_ceil(LANES);
    for (v, vector) in v.chunks(LANES).zip(&mut values[row * count..]) {
        *vector = E::narrow_all(s, s.load_part(v));
    }
}

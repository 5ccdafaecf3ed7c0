//! Keys and values as floats.
//!
//! The law: a block is S vectors of keys (vector d holds dimension d of the page's 16 tokens, so that 16 scores come out
//! of one register), then 16 rows of values, padded with zeros to whole vectors.

use super::{apart, Blocks, Put};
use crate::cpu::simd::{Element, Simd, LANES};
use crate::cpu::slab::{memory, Plain, Slab};
use crate::device::{KvShape, Result, PAGE};
use std::ops::Range;

/// Blocks of `S + 16 · ⌈S / 16⌉` vectors.
pub struct Floats<E: Plain> {
    size: usize,
    vectors: Slab<[E; LANES]>,
}

/// Vectors of a block.
#[inline(always)]
fn block_len(size: usize) -> usize {
    size + PAGE * size.div_ceil(LANES)
}

impl<E: Element + Plain> Floats<E> {
    /// All zeros.
    pub fn new(shape: &KvShape) -> Result<Floats<E>> {
        let size = shape.head_size;
        Ok(Floats { size, vectors: Slab::zeros(super::count(shape).saturating_mul(block_len(size)))? })
    }

    /// Vectors of a row of values.
    #[inline(always)]
    pub fn value_vectors(&self) -> usize {
        self.size.div_ceil(LANES)
    }

    /// Vectors of a block.
    #[inline(always)]
    fn len(&self) -> usize {
        block_len(self.size)
    }

    /// A block, to read.
    #[inline(always)]
    pub fn block(&self, block: usize) -> Block<'_, E> {
        let (keys, values) = self.vectors[block * self.len()..][..self.len()].split_at(self.size);
        Block { keys, values }
    }
}

/// What a block holds.
#[derive(Clone, Copy)]
pub struct Block<'a, E> {
    /// `[S]`.
    pub keys: &'a [[E; LANES]],
    /// `[16][⌈S / 16⌉]`.
    pub values: &'a [[E; LANES]],
}

/// A range of the blocks.
pub struct Part<'a, E> {
    size: usize,
    vectors: &'a mut [[E; LANES]],
}

impl<E: Element + Plain> Put for Part<'_, E> {
    #[inline(always)]
    fn put<S: Simd>(&mut self, s: S, index: usize, row: usize, key: &[f32], value: &[f32]) {
        let (count, len) = (self.size.div_ceil(LANES), block_len(self.size));
        let (keys, values) = self.vectors[index * len..][..len].split_at_mut(self.size);
        for (k, keys) in key.chunks(LANES).zip(keys.chunks_mut(LANES)) {
            let k = E::narrow_all(s, s.load_part(k));
            keys.iter_mut().zip(k).for_each(|(vector, k)| vector[row] = k);
        }
        for (v, vector) in value.chunks(LANES).zip(&mut values[row * count..]) {
            *vector = E::narrow_all(s, s.load_part(v));
        }
    }
}

impl<E: Element + Plain> Blocks for Floats<E> {
    type Part<'a>
        = Part<'a, E>
    where
        E: 'a;

    fn memory(&self, range: Range<usize>) -> [Range<usize>; 2] {
        [memory(&self.vectors[range.start * self.len()..range.end * self.len()]), 0..0]
    }

    fn parts<'a>(&'a mut self, ranges: &[Range<usize>]) -> Vec<Part<'a, E>> {
        let (size, len) = (self.size, self.len());
        apart(&mut self.vectors, len, ranges).into_iter().map(|vectors| Part { size, vectors }).collect()
    }

    fn copy(&mut self, from: usize, to: usize, rows: usize) {
        let (from, to) = (from * self.len(), to * self.len());
        for d in 0..self.size {
            let keys = self.vectors[from + d];
            self.vectors[to + d][..rows].copy_from_slice(&keys[..rows]);
        }
        let values = rows * self.value_vectors();
        self.vectors.copy_within(from + self.size..from + self.size + values, to + self.size);
    }
}

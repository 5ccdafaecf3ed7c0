//! Keys and values as integers, each head's key and value of a token with a scale of its own.
//!
//! The law: |q| ≤ R, where R is 127 for int8 and for int16 the largest for which a product of two vectors of S such
//! numbers fits 32 bits (5,792 for heads of 64: a 25,000th of the range is the error, a third of what f16 costs at worst).
//! So scores are exact sums of integers. A value that is not finite makes its scale NaN, and with it what is computed.

use super::{apart, Blocks, Put};
use crate::cpu::simd::{Simd, LANES};
use crate::cpu::slab::{memory, Plain, Slab};
use crate::cpu::steps::Steps;
use crate::device::{KvShape, Result, PAGE};
use std::ops::Range;

/// Numbers of a vector: 16 pairs.
pub const WIDE: usize = 2 * LANES;

/// A stored integer.
pub trait Quant: Plain {
    /// R for heads of `size`.
    fn range(size: usize) -> f32;
    /// 16 pairs, as 16 bits.
    fn load<S: Simd>(s: S, x: &[Self; WIDE]) -> S::B;
    /// A number of at most R.
    fn of(x: i16) -> Self;
}

impl Quant for i16 {
    fn range(size: usize) -> f32 {
        (f64::from(i32::MAX) / size as f64).sqrt().min(f64::from(i16::MAX)).floor() as f32
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[i16; WIDE]) -> S::B {
        s.pairs(x)
    }
    #[inline(always)]
    fn of(x: i16) -> i16 {
        x
    }
}

impl Quant for i8 {
    fn range(_: usize) -> f32 {
        127.0
    }
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[i8; WIDE]) -> S::B {
        s.widen_pairs(x)
    }
    #[inline(always)]
    fn of(x: i16) -> i8 {
        x as i8
    }
}

/// Blocks of `⌈S / 2⌉` vectors of keys (vector d holds dimensions 2d and 2d + 1 of the page's 16 tokens) and `⌈S / 16⌉`
/// times 8 vectors of values (of 16 dimensions, vector p holds tokens 2p and 2p + 1 side by side), padded with zeros.
pub struct Quants<E: Plain> {
    size: usize,
    range: f32,
    vectors: Slab<[E; WIDE]>,
    /// Per block: the scales of the 16 keys, the scales of the 16 values.
    scales: Slab<[[f32; LANES]; 2]>,
}

/// Values of a page's tokens in 16 dimensions.
pub type Values<E> = [[E; WIDE]; PAGE / 2];

/// What a block holds.
#[derive(Clone, Copy)]
pub struct Block<'a, E> {
    /// `[⌈S / 2⌉]`.
    pub keys: &'a [[E; WIDE]],
    /// `[⌈S / 16⌉]`.
    pub values: &'a [Values<E>],
    /// Of keys and values.
    pub scales: &'a [[f32; LANES]; 2],
}

/// Vectors of a block.
#[inline(always)]
fn block_len(size: usize) -> usize {
    size.div_ceil(2) + PAGE / 2 * size.div_ceil(LANES)
}

impl<E: Quant> Quants<E> {
    /// All zeros.
    pub fn new(shape: &KvShape) -> Result<Quants<E>> {
        let (size, count) = (shape.head_size, super::count(shape));
        Ok(Quants {
            size,
            range: E::range(size),
            vectors: Slab::zeros(count.saturating_mul(block_len(size)))?,
            scales: Slab::zeros(count)?,
        })
    }

    /// R.
    pub fn range(&self) -> f32 {
        self.range
    }

    /// Vectors of the keys of a page.
    #[inline(always)]
    pub fn key_vectors(&self) -> usize {
        self.size.div_ceil(2)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        block_len(self.size)
    }

    /// A block, to read.
    #[inline(always)]
    pub fn block(&self, block: usize) -> Block<'_, E> {
        let (keys, values) = self.vectors[block * self.len()..][..self.len()].split_at(self.key_vectors());
        Block { keys, values: values.as_chunks().0, scales: &self.scales[block] }
    }
}

/// A range of the blocks.
pub struct Part<'a, E> {
    size: usize,
    range: f32,
    vectors: &'a mut [[E; WIDE]],
    scales: &'a mut [[[f32; LANES]; 2]],
}

impl<E: Quant> Put for Part<'_, E> {
    #[inline(always)]
    fn put<S: Simd>(&mut self, s: S, index: usize, row: usize, key: &[f32], value: &[f32]) {
        let len = block_len(self.size);
        let (keys, values) = self.vectors[index * len..][..len].split_at_mut(self.size.div_ceil(2));
        let values: &mut [Values<E>] = values.as_chunks_mut().0;
        let (key, value) = (Steps::of(s, key, self.range), Steps::of(s, value, self.range));
        for (x, keys) in key.x.chunks(LANES).zip(keys.chunks_mut(LANES / 2)) {
            for (vector, pair) in keys.iter_mut().zip(key.pairs(s, x)) {
                vector.as_chunks_mut().0[row] = both(pair);
            }
        }
        for (x, values) in value.x.chunks(LANES).zip(values) {
            let fours = values[row / 2].as_chunks_mut::<4>().0;
            for (two, pair) in fours.iter_mut().zip(value.pairs(s, x)) {
                [two[row % 2], two[2 + row % 2]] = both(pair);
            }
        }
        self.scales[index][0][row] = key.step;
        self.scales[index][1][row] = value.step;
    }
}

impl<E: Quant> Blocks for Quants<E> {
    type Part<'a>
        = Part<'a, E>
    where
        E: 'a;

    fn memory(&self, range: Range<usize>) -> [Range<usize>; 2] {
        let vectors = range.start * self.len()..range.end * self.len();
        [memory(&self.vectors[vectors]), memory(&self.scales[range])]
    }

    fn parts<'a>(&'a mut self, ranges: &[Range<usize>]) -> Vec<Part<'a, E>> {
        let (size, range, len) = (self.size, self.range, self.len());
        let blocks = apart(&mut self.vectors, len, ranges).into_iter().zip(apart(&mut self.scales, 1, ranges));
        blocks.map(|(vectors, scales)| Part { size, range, vectors, scales }).collect()
    }

    fn copy(&mut self, from: usize, to: usize, rows: usize) {
        let len = self.len();
        let (at, onto) = (from * len, to * len);
        for d in 0..self.key_vectors() {
            let keys = self.vectors[at + d];
            self.vectors[onto + d][..2 * rows].copy_from_slice(&keys[..2 * rows]);
        }
        for group in (self.key_vectors()..len).step_by(PAGE / 2) {
            let (at, onto, pairs) = (at + group, onto + group, rows / 2);
            self.vectors.copy_within(at..at + pairs, onto);
            if rows % 2 == 1 {
                let values = self.vectors[at + pairs];
                let halves = self.vectors[onto + pairs].iter_mut().zip(values);
                halves.step_by(2).for_each(|(to, from)| *to = from);
            }
        }
        let scales = self.scales[from];
        for (to, from) in self.scales[to].iter_mut().zip(scales) {
            to[..rows].copy_from_slice(&from[..rows]);
        }
    }
}

/// The two numbers of a pair.
#[inline(always)]
fn both<E: Quant>(pair: i32) -> [E; 2] {
    [E::of(pair as i16), E::of((pair >> 16) as i16)]
}

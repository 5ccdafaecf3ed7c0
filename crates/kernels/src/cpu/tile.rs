//! Weights in register tiles: 16 rows side by side, one record per step along K.
//!
//! The law: a record holds what a kernel needs at one step, scales beside their weights, in whole cache lines where it
//! can; [`Sum::multiply`] is the only arithmetic of a product, so each row of y is one sum in one order. Integer
//! sums within a record are exact, so that whole tiles may compute them elsewhere ([`Bytes`]) and share the rest.

use super::factors::{Factor, Offset};
use super::input::Word;
use super::matmul::Chunk;
use super::planes::{Apart, Planes};
use super::simd::{Isa, Numbers, Simd, Sums, LANES, START, TILE, WHOLE};
use super::slab::Plain;
use crate::block::{Block, BLOCK};
use std::ops::Range;

/// Some blocks of 16 rows along K.
pub trait Record: Plain {
    /// How the input is fed: int8 blocks ([`Fed`]), blocks of 14 bits ([`Pair`]), two BF16 or floats.
    type Word: Word;
    /// Inputs (steps along K) per block.
    const STEPS: usize;
    /// Blocks per record.
    const BLOCKS: usize = 1;

    /// The weights of row `row`, `BLOCKS · STEPS` of them.
    fn row(&self, row: usize, out: &mut [f32]);
    /// Multiplies by tiles of `width` tokens.
    fn multiply_chunk(isa: Isa, chunk: Chunk<Self>, width: usize);
}

/// A record whose products any level adds to sums of floats.
pub trait Sum: Record {
    /// Words per block and token.
    const WORDS: usize;

    /// `f[t] += block · x[t]` for each of the `T` tokens; `x` is `WORDS` rows. Reads the rows that `s` has lanes for.
    fn multiply<S: Simd, const T: usize>(&self, s: S, block: usize, x: &[[Self::Word; T]], f: &mut [S::F; T]);
}

/// One part of the inputs of 16 tokens: the words of [`Fed`].
pub type WholeTile = [[i32; TILE]; Fed::WORDS];

/// A record of small whole numbers, which whole tiles of tokens can be multiplied with.
pub trait Bytes: Sum<Word = i32> {
    /// Sums of products per block and token: 1, or 2 where each half has factors of its own.
    const HALVES: usize;

    /// A block as tiles of tokens read it fastest, one after the other.
    type Apart: Sum<Word = i32>;

    /// Takes a block apart.
    fn apart<S: Simd>(&self, s: S, block: usize) -> Self::Apart;
    /// Writes the numbers of a block.
    fn unpack<S: Simd>(&self, s: S, block: usize, out: &mut Numbers);
    /// [`Sum::multiply`] of a block, or of the first or second half of one, the sums of products of whole numbers being there.
    fn add_sums<S: Simd>(&self, s: S, at: (usize, usize), sums: Stored, f: &mut [S::F; TILE]);
}

/// Words of one quantized token in a block of 32: eight of four int8 each, then what scales and offsets need. A tile has a row
/// of tokens for each word; one of 16 tokens has the eight of each token side by side in place of the first eight rows.
pub struct Fed;

impl Fed {
    /// Words per block.
    pub const WORDS: usize = 13;
    /// Bits of the f32 factor of the quants.
    pub const SCALE: usize = 8;
    /// Bits of the f32 `scale · sum`, what a weight offset is multiplied by.
    pub const OFFSET: usize = 9;
    /// Bits of the same for the first 16 alone.
    pub const FIRST: usize = 10;
    /// Where sums of signed weights start, to take their bias off: `−BIAS · sum` of the quants, i32.
    pub const BIAS: usize = 11;
    /// Bits of the f32 `−WHOLE · scale`, for [`Simd::times`].
    pub const LESS: usize = 12;
}

/// Quants 0 … 63 with scales and offsets: weight = scale · quant + offset.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct Affine<F, O, P, const B: usize> {
    scale: F,
    offset: O,
    quants: [P; B],
}

/// Quants −128 … 127 with scales: weight = scale · quant. The planes hold 128 more.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub struct Signed<F, P, const B: usize> {
    scale: F,
    quants: [P; B],
}

// SAFETY: arrays of numbers; all zeros are records of zero weights.
unsafe impl<F: Factor, O: Offset, P: Planes, const B: usize> Plain for Affine<F, O, P, B> {}
// SAFETY: as above, the scales of whatever quants being 0.
unsafe impl<F: Factor, P: Planes, const B: usize> Plain for Signed<F, P, B> {}

/// A record that values can be put into.
pub trait FromValues: Record {
    /// Puts `STEPS` values into row `row`, which was zero.
    fn set(&mut self, row: usize, values: &[f32]);
}

/// A record that quantized blocks can be put into.
pub trait FromBlock: Record {
    /// Puts `from` into row `row` of a block, which was zero.
    fn set(&mut self, row: usize, block: usize, from: &Block);
}

impl<F: Factor, O: Offset, P: Planes, const B: usize> FromBlock for Affine<F, O, P, B> {
    fn set(&mut self, row: usize, block: usize, from: &Block) {
        self.scale.set(row, block, &from.scale);
        self.offset.set(row, block, &from.offset);
        self.quants[block].set(row, &from.quants.map(|quant| (quant + O::RAISED) as u8));
    }
}

impl<F: Factor, P: Planes, const B: usize> FromBlock for Signed<F, P, B> {
    fn set(&mut self, row: usize, block: usize, from: &Block) {
        self.scale.set(row, block, &from.scale);
        self.quants[block].set(row, &from.quants.map(|quant| (quant as u8) ^ 0x80));
    }
}

/// Whole numbers of 14 bits, times a power of two for each row: F16 and BF16. A weight of at least a 32nd of its block's
/// largest (BF16; a quarter for F16) is kept exactly, any other to a 16,000th of the largest. 1,088 bytes. 512 rows take
/// 0.62 of the time that the same weights take as floats with f32 inputs, which rounds less than inputs in bf16 would.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Words {
    scale: [f32; LANES],
    /// Numbers 2r and 2r + 1 of pair p: row r, k = 2p and 2p + 1.
    pairs: [[i16; 2 * LANES]; 16],
}

/// Two of the inputs of [`Words`], or the step that they count.
#[derive(Clone, Copy, Default)]
pub struct Pair(pub i32);

impl Pair {
    /// Words per block of 32: 16 pairs, then the bits of the f32 step.
    pub const WORDS: usize = 17;
    /// The largest weight and input: 32 products of two such fit 32 bits.
    pub const RANGE: f32 = 8191.0;
}

// SAFETY: arrays of numbers; all zeros are records of zero weights.
unsafe impl Plain for Words {}

impl FromValues for Words {
    /// In loops that compilers turn into vectors of any processor: with `f32::max` and rounding, loading took three times as long.
    fn set(&mut self, row: usize, values: &[f32]) {
        // Bits of numbers without signs are in their order, those of infinity and then NaN after all others.
        let largest = values.iter().fold(0, |most, v| most.max(v.abs().to_bits() as i32));
        let exponent = f32::from_bits((largest & f32::INFINITY.to_bits() as i32) as u32);
        // The power of two that is at most the largest, 4,096 steps; what is less than 2⁻¹²⁶ is some of the steps of that.
        let power = exponent.max(f32::MIN_POSITIVE);
        let inverse = 1.0 / power;
        for (k, &v) in values.iter().enumerate() {
            let quant = (v * inverse * 4096.0 + WHOLE).to_bits() as i32 - START;
            self.pairs[k / 2][2 * row + k % 2] = quant as i16;
        }
        // What is not finite makes the row NaN.
        self.scale[row] = match largest {
            0 => 0.0,
            _ if exponent.is_finite() => power / 4096.0,
            _ => f32::NAN,
        };
    }
}

impl Record for Words {
    type Word = Pair;
    const STEPS: usize = 32;

    fn row(&self, row: usize, out: &mut [f32]) {
        for (k, y) in out.iter_mut().enumerate() {
            *y = self.scale[row] * f32::from(self.pairs[k / 2][2 * row + k % 2]);
        }
    }

    fn multiply_chunk(isa: Isa, chunk: Chunk<Self>, width: usize) {
        chunk.multiply(isa, width);
    }
}

impl Sum for Words {
    const WORDS: usize = Pair::WORDS;

    #[inline(always)]
    fn multiply<S: Simd, const T: usize>(&self, s: S, _: usize, x: &[[Pair; T]], f: &mut [S::F; T]) {
        let x: &[[Pair; T]; Pair::WORDS] = x.try_into().expect("one block");
        let scale = s.load(&self.scale);
        let mut w = [s.pairs(&self.pairs[0]); 16];
        for (w, pairs) in w.iter_mut().zip(&self.pairs) {
            *w = s.pairs(pairs);
        }
        for t in 0..T {
            let (mut even, mut odd) = (s.splat_i(0), s.splat_i(0));
            for p in 0..8 {
                even = s.dot_pairs_at(even, w[2 * p], &x[2 * p][t].0);
                odd = s.dot_pairs_at(odd, w[2 * p + 1], &x[2 * p + 1][t].0);
            }
            let factor = s.mul(scale, s.splat(float(x[16][t].0)));
            f[t] = s.mul_add(s.float(s.add_i(even, odd)), factor, f[t]);
        }
    }
}

/// The float whose bits a word is.
#[inline(always)]
fn float(word: i32) -> f32 {
    f32::from_bits(word as u32)
}

/// Sums of products of whole numbers.
trait Dots<S: Simd> {
    /// That of token `t`, times what its quants count.
    fn scaled(&self, s: S, t: usize) -> S::F;
}

/// Sums of signed quants. They read where they start, so that reading [`Fed::LESS`] too would cost more than it saves.
struct Biased<'a, S: Simd, const T: usize> {
    sums: [S::I; T],
    x: &'a [[i32; T]; Fed::WORDS],
}

impl<S: Simd, const T: usize> Dots<S> for Biased<'_, S, T> {
    #[inline(always)]
    fn scaled(&self, s: S, t: usize) -> S::F {
        s.mul(s.float(self.sums[t]), s.splat(float(self.x[Fed::SCALE][t])))
    }
}

/// Sums that started at [`START`].
struct Summed<'a, S: Simd, const T: usize> {
    sums: [S::I; T],
    x: &'a [[i32; T]; Fed::WORDS],
}

impl<S: Simd, const T: usize> Dots<S> for Summed<'_, S, T> {
    #[inline(always)]
    fn scaled(&self, s: S, t: usize) -> S::F {
        s.times(self.sums[t], float(self.x[Fed::SCALE][t]), float(self.x[Fed::LESS][t]))
    }
}

/// Products of quants with the fours of planes `fours`.
#[inline(always)]
fn unsigned<S: Simd, P: Planes, const T: usize>(
    s: S,
    quants: &P,
    fours: Range<usize>,
    x: &[[i32; T]; Fed::WORDS],
) -> [S::I; T] {
    let mut sums = [s.splat_i(START); T];
    for p in fours.map(|four| 4 * four) {
        let w = [quants.plane(s, p), quants.plane(s, p + 1), quants.plane(s, p + 2), quants.plane(s, p + 3)];
        for t in 0..T {
            sums[t] = s.dots(sums[t], w, [x[p][t], x[p + 1][t], x[p + 2][t], x[p + 3][t]], i32::from(P::MOST));
        }
    }
    sums
}

/// Products of quants that the planes hold 128 more of.
#[inline(always)]
fn signed<S: Simd, P: Planes, const T: usize>(s: S, quants: &P, x: &[[i32; T]; Fed::WORDS]) -> [S::I; T] {
    let mut sums = [s.splat_i(0); T];
    for t in 0..T {
        sums[t] = s.splat_i(x[Fed::BIAS][t]);
    }
    for (p, x) in x[..Fed::SCALE].iter().enumerate() {
        let w = s.signed(quants.plane(s, p));
        for t in 0..T {
            sums[t] = s.dot_signed(sums[t], w, x[t]);
        }
    }
    sums
}

/// Sums of a whole tile, of a block or of one half of each. An addition of whole numbers in place of a conversion, since AMX leaves
/// floats but one port.
#[derive(Clone, Copy)]
pub struct Stored<'a> {
    /// The sums.
    pub sums: &'a Sums,
    /// What they are products of.
    pub x: &'a WholeTile,
}

impl<S: Simd> Dots<S> for Stored<'_> {
    #[inline(always)]
    fn scaled(&self, s: S, t: usize) -> S::F {
        let sum = s.add_i(s.splat_i(START), s.load_i(&self.sums.0[t]));
        s.times(sum, float(self.x[Fed::SCALE][t]), float(self.x[Fed::LESS][t]))
    }
}

impl<F: Factor, O: Offset, P: Planes, const B: usize> Affine<F, O, P, B> {
    /// `f += scale · dots + offset · x.offset`, in this order, of a half of a block or of all.
    #[inline(always)]
    fn add<S: Simd, const T: usize>(
        &self,
        s: S,
        (block, half): (usize, usize),
        dots: impl Dots<S>,
        x: &[[i32; T]; Fed::WORDS],
        f: &mut [S::F; T],
    ) {
        let scale = self.scale.load(s, block, half);
        let offset = self.offset.load(s, scale, block, half);
        for t in 0..T {
            let (all, first) = (float(x[Fed::OFFSET][t]), float(x[Fed::FIRST][t]));
            let x = [if F::HALVES == 1 { all } else { first }, all - first][half];
            f[t] = s.mul_add(dots.scaled(s, t), scale, f[t]);
            f[t] = s.mul_add(offset, s.splat(x), f[t]);
        }
    }
}

impl<F: Factor, O: Offset, P: Planes, const B: usize> Bytes for Affine<F, O, P, B> {
    const HALVES: usize = F::HALVES;
    type Apart = Affine<F::Floats, O::Floats, Apart<P>, 1>;

    #[inline(always)]
    fn apart<S: Simd>(&self, s: S, block: usize) -> Self::Apart {
        let (scale, offset) = (self.scale.floats(s, block), Offset::floats(&self.offset, s, block));
        Affine { scale, offset, quants: [Apart::of(s, &self.quants[block])] }
    }

    #[inline(always)]
    fn unpack<S: Simd>(&self, s: S, block: usize, out: &mut Numbers) {
        self.quants[block].unpack(s, &mut out.0);
    }

    #[inline(always)]
    fn add_sums<S: Simd>(&self, s: S, at: (usize, usize), sums: Stored, f: &mut [S::F; TILE]) {
        let x = sums.x;
        self.add(s, at, sums, x, f);
    }
}

impl<F: Factor, O: Offset, P: Planes, const B: usize> Record for Affine<F, O, P, B> {
    type Word = i32;
    const STEPS: usize = BLOCK;
    const BLOCKS: usize = B;

    fn multiply_chunk(isa: Isa, chunk: Chunk<Self>, width: usize) {
        chunk.multiply_bytes(isa, width);
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        for (i, y) in out.iter_mut().enumerate() {
            let (block, k) = (i / BLOCK, i % BLOCK);
            let half = k / 16 * F::HALVES / 2;
            let scale = self.scale.get(row, block, half);
            *y = scale * f32::from(self.quants[block].get(row, k)) + self.offset.get(row, scale, block, half);
        }
    }
}

impl<F: Factor, O: Offset, P: Planes, const B: usize> Sum for Affine<F, O, P, B> {
    const WORDS: usize = Fed::WORDS;

    #[inline(always)]
    fn multiply<S: Simd, const T: usize>(&self, s: S, block: usize, x: &[[i32; T]], f: &mut [S::F; T]) {
        let x: &[[i32; T]; Fed::WORDS] = x.try_into().expect("one block");
        let fours = 2 / F::HALVES;
        for half in 0..F::HALVES {
            let sums = unsigned(s, &self.quants[block], half * fours..(half + 1) * fours, x);
            self.add(s, (block, half), Summed::<S, T> { sums, x }, x, f);
        }
    }
}

impl<F: Factor, P: Planes, const B: usize> Signed<F, P, B> {
    #[inline(always)]
    fn add<S: Simd, const T: usize>(&self, s: S, block: usize, dots: impl Dots<S>, f: &mut [S::F; T]) {
        let scale = self.scale.load(s, block, 0);
        for (t, f) in f.iter_mut().enumerate() {
            *f = s.mul_add(dots.scaled(s, t), scale, *f);
        }
    }
}

impl<F: Factor, P: Planes, const B: usize> Bytes for Signed<F, P, B> {
    const HALVES: usize = 1;
    type Apart = Signed<F::Floats, Apart<P>, 1>;

    #[inline(always)]
    fn apart<S: Simd>(&self, s: S, block: usize) -> Self::Apart {
        Signed { scale: self.scale.floats(s, block), quants: [Apart::of(s, &self.quants[block])] }
    }

    #[inline(always)]
    fn unpack<S: Simd>(&self, s: S, block: usize, out: &mut Numbers) {
        self.quants[block].unpack(s, &mut out.0);
        out.0.as_flattened_mut().iter_mut().for_each(|number| *number ^= 0x80);
    }

    #[inline(always)]
    fn add_sums<S: Simd>(&self, s: S, (block, _): (usize, usize), sums: Stored, f: &mut [S::F; TILE]) {
        self.add(s, block, sums, f);
    }
}

impl<F: Factor, P: Planes, const B: usize> Record for Signed<F, P, B> {
    type Word = i32;
    const STEPS: usize = BLOCK;
    const BLOCKS: usize = B;

    fn multiply_chunk(isa: Isa, chunk: Chunk<Self>, width: usize) {
        chunk.multiply_bytes(isa, width);
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        for (i, y) in out.iter_mut().enumerate() {
            let (block, k) = (i / BLOCK, i % BLOCK);
            let quant = (self.quants[block].get(row, k) ^ 0x80) as i8;
            *y = self.scale.get(row, block, 0) * f32::from(quant);
        }
    }
}

impl<F: Factor, P: Planes, const B: usize> Sum for Signed<F, P, B> {
    const WORDS: usize = Fed::WORDS;

    #[inline(always)]
    fn multiply<S: Simd, const T: usize>(&self, s: S, block: usize, x: &[[i32; T]], f: &mut [S::F; T]) {
        let x: &[[i32; T]; Fed::WORDS] = x.try_into().expect("one block");
        self.add(s, block, Biased::<S, T> { sums: signed(s, &self.quants[block], x), x }, f);
    }
}

impl FromValues for [f32; LANES] {
    fn set(&mut self, row: usize, values: &[f32]) {
        self[row] = values[0];
    }
}

/// Floats: one k per record.
impl Record for [f32; LANES] {
    type Word = f32;
    const STEPS: usize = 1;

    fn row(&self, row: usize, out: &mut [f32]) {
        out[0] = self[row];
    }

    fn multiply_chunk(isa: Isa, chunk: Chunk<Self>, width: usize) {
        chunk.multiply(isa, width);
    }
}

impl Sum for [f32; LANES] {
    const WORDS: usize = 1;

    #[inline(always)]
    fn multiply<S: Simd, const T: usize>(&self, s: S, _: usize, x: &[[f32; T]], f: &mut [S::F; T]) {
        let w = s.load(self);
        for t in 0..T {
            f[t] = s.mul_add(w, s.splat(x[0][t]), f[t]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slab::Slab;
    use super::*;

    /// Weights as a record keeps them.
    fn kept(weights: &[f32]) -> [f32; 32] {
        let (mut record, mut kept) = (Slab::<Words>::zeros(1).unwrap(), [f32::NAN; 32]);
        record[0].set(3, weights);
        record[0].row(3, &mut kept);
        kept
    }

    #[test]
    fn weights_near_their_largest_are_exact_however_small() {
        for power in [-126, -120, -114, -24, 0, 126] {
            let weights = [1.0, -1.5, 0.0, 1.9921875].map(|w| w * 2f32.powi(power)).repeat(8);
            assert_eq!(kept(&weights)[..], weights, "of 2^{power}");
        }
        let least_of_bf16 = f32::from_bits(1 << 16);
        let weights = [least_of_bf16, -3.0 * least_of_bf16].repeat(16);
        assert_eq!(kept(&weights)[..], weights);
    }

    #[test]
    fn zeros_are_zero_and_what_is_not_finite_makes_its_row_nan() {
        let mut record = Slab::<Words>::zeros(1).unwrap();
        for (row, last) in [0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0].into_iter().enumerate() {
            let mut values = [0.0; 32];
            values[31] = last;
            record[0].set(row, &values);
        }
        assert_eq!(record[0].scale[0], 0.0);
        assert!(record[0].scale[1..4].iter().all(|scale| scale.is_nan()));
        assert!(record[0].scale[4] > 0.0);
    }
}

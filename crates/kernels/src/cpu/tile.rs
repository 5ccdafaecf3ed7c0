//! Weights in register tiles: 16 rows side by side, one record per step along K.
//!
//! The law: a record holds what a kernel needs at one step, scales beside their weights, in whole cache lines where it
//! can; [`Record::accumulate`] is the only arithmetic of a product, so each row of y is one sum in one order. Integer
//! sums within a record are exact.

use super::simd::{Element, Simd, LANES};
use super::slab::Plain;
use crate::block::Block;
use half::f16;

/// One step of 16 rows along K.
pub trait Record: Plain {
    /// How the input is fed: int8 blocks ([`Fed`]) or floats.
    type Word: Copy + Send + Sync;
    /// Words per record and token.
    const WORDS: usize;
    /// Inputs (steps along K) per record.
    const STEPS: usize;

    /// `f[t] += record · x[t]` for each of the `T` tokens; `x` is `WORDS` rows.
    fn accumulate<S: Simd, const T: usize>(&self, s: S, x: &[[Self::Word; T]], f: &mut [S::F; T]);
    /// The weights of row `row`, `STEPS` of them.
    fn row(&self, row: usize, out: &mut [f32]);
}

/// Words of one quantized token in a block of 32: eight of four int8 each, then scale, scale · sum and sum.
pub struct Fed;

impl Fed {
    /// Words per block.
    pub const WORDS: usize = 11;
    /// Bits of the f32 factor of the quants.
    pub const SCALE: usize = 8;
    /// Bits of the f32 `scale · sum`, what a weight offset is multiplied by.
    pub const OFFSET: usize = 9;
    /// Sum of the quants, i32.
    pub const SUM: usize = 10;
}

/// Nibbles: Q4_0, Q4_1, Q4_K. Weight = scale · nibble + offset. 320 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Nibbles {
    scale: [f16; LANES],
    offset: [f16; LANES],
    /// Byte 4r + j of plane p: row r, k = 4p + j in the low nibble, 16 + 4p + j in the high one.
    planes: [[u8; 4 * LANES]; 4],
}

/// Bytes 0 … 127: Q5_0, Q5_1, Q5_K. Weight = scale · byte + offset. 576 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Bytes {
    scale: [f16; LANES],
    offset: [f16; LANES],
    /// Byte 4r + j of plane p: row r, k = 4p + j.
    planes: [[u8; 4 * LANES]; 8],
}

/// Signed bytes: Q8_0, IQ4_NL, IQ4_XS. Weight = scale · (byte − 128). 576 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Signed {
    scale: [f32; LANES],
    /// Byte 4r + j of plane p: row r, k = 4p + j, plus 128.
    planes: [[u8; 4 * LANES]; 8],
}

// SAFETY: arrays of numbers; all zeros are records of zero weights (but for the offset 128, whose scale is then 0).
unsafe impl Plain for Nibbles {}
// SAFETY: as above.
unsafe impl Plain for Bytes {}
// SAFETY: as above.
unsafe impl Plain for Signed {}

/// A record that a quantized block can be put into.
pub trait FromBlock: Record {
    /// Puts `block` into row `row`.
    fn set(&mut self, row: usize, block: &Block);
}

impl FromBlock for Nibbles {
    fn set(&mut self, row: usize, block: &Block) {
        self.scale[row] = f16::from_f32(block.scale[0]);
        self.offset[row] = f16::from_f32(block.offset[0]);
        for i in 0..16 {
            self.planes[i / 4][4 * row + i % 4] = block.quants[i] as u8 | (block.quants[16 + i] as u8) << 4;
        }
    }
}

impl FromBlock for Bytes {
    fn set(&mut self, row: usize, block: &Block) {
        self.scale[row] = f16::from_f32(block.scale[0]);
        self.offset[row] = f16::from_f32(block.offset[0]);
        for (i, &q) in block.quants.iter().enumerate() {
            self.planes[i / 4][4 * row + i % 4] = q as u8;
        }
    }
}

impl FromBlock for Signed {
    fn set(&mut self, row: usize, block: &Block) {
        self.scale[row] = block.scale[0];
        for (i, &q) in block.quants.iter().enumerate() {
            self.planes[i / 4][4 * row + i % 4] = (q as u8) ^ 0x80;
        }
    }
}

/// `c` of two chains of four dot products, for token `t`.
macro_rules! two_chains {
    ($s:ident.$dot:ident, $start:expr, $w:ident, $x:ident, $t:ident) => {{
        let mut low = $start;
        let mut high = $s.splat_i(0);
        for p in 0..4 {
            low = $s.$dot(low, $w[p], $x[p][$t]);
            high = $s.$dot(high, $w[p + 4], $x[p + 4][$t]);
        }
        $s.float($s.add_i(low, high))
    }};
}

/// `f += c · scale · x.scale + offset · x.offset`, in this order.
#[inline(always)]
fn affine<S: Simd>(s: S, c: S::F, scale: S::F, offset: S::F, x: (i32, i32), f: S::F) -> S::F {
    let f = s.mul_add(c, s.mul(scale, s.splat(f32::from_bits(x.0 as u32))), f);
    s.mul_add(offset, s.splat(f32::from_bits(x.1 as u32)), f)
}

impl Record for Nibbles {
    type Word = i32;
    const WORDS: usize = Fed::WORDS;
    const STEPS: usize = 32;

    #[inline(always)]
    fn accumulate<S: Simd, const T: usize>(&self, s: S, x: &[[i32; T]], f: &mut [S::F; T]) {
        let x: &[[i32; T]; Fed::WORDS] = x.try_into().expect("one block");
        let (scale, offset) = (s.load_f16(&self.scale), s.load_f16(&self.offset));
        let mut w = [s.bytes(&self.planes[0]); 8];
        for p in 0..4 {
            let packed = s.bytes(&self.planes[p]);
            (w[p], w[p + 4]) = (s.low(packed), s.high(packed));
        }
        for t in 0..T {
            let c = two_chains!(s.dot, s.splat_i(0), w, x, t);
            f[t] = affine(s, c, scale, offset, (x[Fed::SCALE][t], x[Fed::OFFSET][t]), f[t]);
        }
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        let (scale, offset) = (self.scale[row].to_f32(), self.offset[row].to_f32());
        for (i, y) in out.iter_mut().enumerate() {
            let quant = self.planes[i % 16 / 4][4 * row + i % 4] >> (i / 16 * 4) & 15;
            *y = scale * f32::from(quant) + offset;
        }
    }
}

impl Record for Bytes {
    type Word = i32;
    const WORDS: usize = Fed::WORDS;
    const STEPS: usize = 32;

    #[inline(always)]
    fn accumulate<S: Simd, const T: usize>(&self, s: S, x: &[[i32; T]], f: &mut [S::F; T]) {
        let x: &[[i32; T]; Fed::WORDS] = x.try_into().expect("one block");
        let (scale, offset) = (s.load_f16(&self.scale), s.load_f16(&self.offset));
        let mut w = [s.bytes(&self.planes[0]); 8];
        for (w, plane) in w.iter_mut().zip(&self.planes) {
            *w = s.bytes(plane);
        }
        for t in 0..T {
            let c = two_chains!(s.dot, s.splat_i(0), w, x, t);
            f[t] = affine(s, c, scale, offset, (x[Fed::SCALE][t], x[Fed::OFFSET][t]), f[t]);
        }
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        let (scale, offset) = (self.scale[row].to_f32(), self.offset[row].to_f32());
        for (i, y) in out.iter_mut().enumerate() {
            *y = scale * f32::from(self.planes[i / 4][4 * row + i % 4]) + offset;
        }
    }
}

impl Record for Signed {
    type Word = i32;
    const WORDS: usize = Fed::WORDS;
    const STEPS: usize = 32;

    #[inline(always)]
    fn accumulate<S: Simd, const T: usize>(&self, s: S, x: &[[i32; T]], f: &mut [S::F; T]) {
        let x: &[[i32; T]; Fed::WORDS] = x.try_into().expect("one block");
        let scale = s.load(&self.scale);
        let mut w = [s.signed(s.bytes(&self.planes[0])); 8];
        for (w, plane) in w.iter_mut().zip(&self.planes) {
            *w = s.signed(s.bytes(plane));
        }
        for t in 0..T {
            let c = two_chains!(s.dot_signed, s.splat_i(-S::BIAS * x[Fed::SUM][t]), w, x, t);
            let factor = s.mul(scale, s.splat(f32::from_bits(x[Fed::SCALE][t] as u32)));
            f[t] = s.mul_add(c, factor, f[t]);
        }
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        for (i, y) in out.iter_mut().enumerate() {
            *y = self.scale[row] * f32::from((self.planes[i / 4][4 * row + i % 4] ^ 0x80) as i8);
        }
    }
}

/// Floats: one k per record.
impl<E: Element + Plain> Record for [E; LANES] {
    type Word = f32;
    const WORDS: usize = 1;
    const STEPS: usize = 1;

    #[inline(always)]
    fn accumulate<S: Simd, const T: usize>(&self, s: S, x: &[[f32; T]], f: &mut [S::F; T]) {
        let w = E::load(s, self);
        for t in 0..T {
            f[t] = s.mul_add(w, s.splat(x[0][t]), f[t]);
        }
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        out[0] = self[row].widen();
    }
}

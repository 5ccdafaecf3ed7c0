//! Scales and offsets of weight tiles, in the precision and number of their formats.
//!
//! The law: what a format stores is kept as stored, so that a factor is its value exactly.

use super::simd::{Simd, LANES};
use super::slab::Plain;
use crate::block::Halves;
use half::f16;

/// A number for each block of 32 (or each half of one) of 16 rows.
pub trait Factor: Plain {
    /// Numbers per block: 1 or 2.
    const HALVES: usize;
    /// [`Floats`].
    type Floats: Factor;

    /// The numbers of a block, as many tokens read them fastest.
    fn floats<S: Simd>(&self, s: S, block: usize) -> Self::Floats;

    /// The numbers of the rows.
    fn load<S: Simd>(&self, s: S, block: usize, half: usize) -> S::F;
    /// The number of a row.
    fn get(&self, row: usize, block: usize, half: usize) -> f32;
    /// Sets the numbers of a row.
    fn set(&mut self, row: usize, block: usize, numbers: &Halves);
}

/// One block whose numbers are f32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Floats<const H: usize>([[f32; LANES]; H]);

// SAFETY: an array of numbers.
unsafe impl<const H: usize> Plain for Floats<H> {}

impl<const H: usize> Floats<H> {
    #[inline(always)]
    fn of<S: Simd>(s: S, factor: &impl Factor, block: usize) -> Self {
        let mut floats = [[0.0; LANES]; H];
        for (half, floats) in floats.iter_mut().enumerate() {
            s.store(factor.load(s, block, half), floats);
        }
        Floats(floats)
    }
}

impl<const H: usize> Factor for Floats<H> {
    const HALVES: usize = H;
    type Floats = Self;

    #[inline(always)]
    fn floats<S: Simd>(&self, _: S, _: usize) -> Self {
        *self
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, _: usize, half: usize) -> S::F {
        s.load(&self.0[half])
    }

    fn get(&self, row: usize, _: usize, half: usize) -> f32 {
        self.0[half][row]
    }

    fn set(&mut self, row: usize, _: usize, numbers: &Halves) {
        for (floats, value) in self.0.iter_mut().zip(numbers.values()) {
            floats[row] = value;
        }
    }
}

/// One block with a number of its own.
pub type Own = [f16; LANES];

impl Factor for Own {
    const HALVES: usize = 1;
    type Floats = Floats<1>;

    #[inline(always)]
    fn floats<S: Simd>(&self, s: S, block: usize) -> Floats<1> {
        Floats::of(s, self, block)
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, _: usize, _: usize) -> S::F {
        s.load_f16(self)
    }

    fn get(&self, row: usize, _: usize, _: usize) -> f32 {
        self[row].to_f32()
    }

    fn set(&mut self, row: usize, _: usize, numbers: &Halves) {
        self[row] = numbers.unit;
    }
}

/// Eight blocks whose numbers count in steps of one unit.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Stepped<const H: usize> {
    unit: [f16; LANES],
    steps: [[[i8; LANES]; H]; 8],
}

// SAFETY: arrays of numbers.
unsafe impl<const H: usize> Plain for Stepped<H> {}

impl<const H: usize> Factor for Stepped<H> {
    const HALVES: usize = H;
    type Floats = Floats<H>;

    #[inline(always)]
    fn floats<S: Simd>(&self, s: S, block: usize) -> Floats<H> {
        Floats::of(s, self, block)
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, block: usize, half: usize) -> S::F {
        s.mul(s.load_f16(&self.unit), s.load_i8(&self.steps[block][half]))
    }

    fn get(&self, row: usize, block: usize, half: usize) -> f32 {
        self.unit[row].to_f32() * f32::from(self.steps[block][half][row])
    }

    fn set(&mut self, row: usize, block: usize, numbers: &Halves) {
        self.unit[row] = numbers.unit;
        for (half, steps) in self.steps[block].iter_mut().enumerate() {
            steps[row] = numbers.steps[half];
        }
    }
}

/// What is added to `scale · quant`.
pub trait Offset: Plain {
    /// What quants are raised by, to be no less than 0.
    const RAISED: i8;
    /// Offsets as many tokens read them fastest.
    type Floats: Offset;

    /// The offsets of a block.
    fn floats<S: Simd>(&self, s: S, block: usize) -> Self::Floats;

    /// The offsets of the rows whose scales are `scale`.
    fn load<S: Simd>(&self, s: S, scale: S::F, block: usize, half: usize) -> S::F;
    /// The offset of a row whose scale is `scale`.
    fn get(&self, row: usize, scale: f32, block: usize, half: usize) -> f32;
    /// Sets the offsets of a row.
    fn set(&mut self, row: usize, block: usize, offsets: &Halves);
}

impl<F: Factor> Offset for F {
    const RAISED: i8 = 0;
    type Floats = F::Floats;

    #[inline(always)]
    fn floats<S: Simd>(&self, s: S, block: usize) -> F::Floats {
        Factor::floats(self, s, block)
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, _: S::F, block: usize, half: usize) -> S::F {
        Factor::load(self, s, block, half)
    }

    fn get(&self, row: usize, _: f32, block: usize, half: usize) -> f32 {
        Factor::get(self, row, block, half)
    }

    fn set(&mut self, row: usize, block: usize, offsets: &Halves) {
        Factor::set(self, row, block, offsets);
    }
}

/// Nothing but what takes back that quants are raised by `C`, a power of two: exact.
#[derive(Clone, Copy)]
pub struct Raised<const C: i8>;

// SAFETY: no bytes at all.
unsafe impl<const C: i8> Plain for Raised<C> {}

impl<const C: i8> Offset for Raised<C> {
    const RAISED: i8 = C;
    type Floats = Self;

    #[inline(always)]
    fn floats<S: Simd>(&self, _: S, _: usize) -> Self {
        *self
    }

    #[inline(always)]
    fn load<S: Simd>(&self, s: S, scale: S::F, _: usize, _: usize) -> S::F {
        s.mul(scale, s.splat(-f32::from(C)))
    }

    fn get(&self, _: usize, scale: f32, _: usize, _: usize) -> f32 {
        scale * -f32::from(C)
    }

    fn set(&mut self, _: usize, _: usize, _: &Halves) {}
}

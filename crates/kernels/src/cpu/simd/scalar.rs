//! Sixteen lanes in plain loops, which the compiler vectorizes for the baseline of the target.

use super::{Kernel, NoTiles, Simd, LANES, WHOLE};
use half::{bf16, f16};
use std::array::from_fn;
use std::ops::Range;

/// Every machine has this level.
#[derive(Clone, Copy)]
pub struct Scalar;

type F = [f32; LANES];

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    from_fn(|i| f(a[i], b[i]))
}

/// Halves the lanes until one is left.
#[inline(always)]
fn fold(mut v: F, f: impl Fn(f32, f32) -> f32) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            v[i] = f(v[i], v[i + width]);
        }
    }
    v[0]
}

/// The largest integer up to `x`, below 2²² as it is.
#[inline(always)]
fn floor(x: f32) -> f32 {
    let n = round(x);
    if n > x {
        n - 1.0
    } else {
        n
    }
}

/// The nearest integer to `x`, below 2²² as it is: adding [`WHOLE`] leaves no bits for a fraction.
#[inline(always)]
fn round(x: f32) -> f32 {
    x + WHOLE - WHOLE
}

#[inline(always)]
fn dot(acc: [i32; LANES], w: impl Fn(usize) -> i32, x: i32) -> [i32; LANES] {
    let x = x.to_le_bytes().map(|b| i32::from(b as i8));
    from_fn(|r| acc[r] + w(4 * r) * x[0] + w(4 * r + 1) * x[1] + w(4 * r + 2) * x[2] + w(4 * r + 3) * x[3])
}

impl Simd for Scalar {
    type F = F;
    type I = [i32; LANES];
    type B = [u8; 4 * LANES];
    type W = [u8; 4 * LANES];
    type Tiles = NoTiles;
    type HalfTiles = NoTiles;

    const TOKENS: usize = 4;
    const QUERIES: usize = 4;
    const BIAS: i32 = 0;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> F {
        *x
    }
    #[inline(always)]
    fn load_f16(self, x: &[f16; LANES]) -> F {
        x.map(f16::to_f32)
    }
    #[inline(always)]
    fn load_bf16(self, x: &[bf16; LANES]) -> F {
        x.map(|v| f32::from_bits(u32::from(v.to_bits()) << 16))
    }
    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> F {
        x.map(f32::from)
    }
    #[inline(always)]
    fn store(self, v: F, out: &mut [f32; LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn to_f16(self, v: F) -> [f16; LANES] {
        v.map(f16::from_f32)
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self, v: F) -> F {
        v.map(round)
    }
    #[inline(always)]
    fn floor(self, v: F) -> F {
        v.map(floor)
    }
    #[inline(always)]
    fn scale(self, v: F, n: F) -> F {
        zip(v, n, |v, n| v * f32::from_bits(((floor(n) as i32 + 127) as u32) << 23))
    }
    #[inline(always)]
    fn within(self, range: Range<usize>, v: F, other: F) -> F {
        from_fn(|i| if range.contains(&i) { v[i] } else { other[i] })
    }
    #[inline(always)]
    fn sum(self, v: F) -> f32 {
        fold(v, |a, b| a + b)
    }
    #[inline(always)]
    fn largest(self, v: F) -> f32 {
        fold(v, f32::max)
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> [i32; LANES] {
        [x; LANES]
    }
    #[inline(always)]
    fn load_i(self, x: &[i32; LANES]) -> [i32; LANES] {
        *x
    }
    #[inline(always)]
    fn add_i(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn float(self, v: [i32; LANES]) -> F {
        v.map(|x| x as f32)
    }
    #[inline(always)]
    fn same_bits(self, v: [i32; LANES]) -> F {
        v.map(|x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn times(self, sum: [i32; LANES], x: f32, _: f32) -> F {
        self.same_bits(sum).map(|sum| (sum - WHOLE) * x)
    }
    #[inline(always)]
    fn narrow_four(self, v: [F; 4]) -> [u8; 4 * LANES] {
        let v = v.map(|v| self.round(v));
        from_fn(|i| v[i / 4 % 4][i / 16 * 4 + i % 4] as i8 as u8)
    }
    #[inline(always)]
    fn sum_bytes(self, v: [u8; 4 * LANES]) -> [i32; LANES] {
        dot([0; LANES], |i| i32::from(v[i] as i8), 0x0101_0101)
    }
    #[inline(always)]
    fn narrow_pairs(self, v: F) -> [i32; LANES / 2] {
        let v = self.round(v);
        from_fn(|i| i32::from(v[2 * i + 1] as i16) << 16 | i32::from(v[2 * i] as i16 as u16))
    }

    #[inline(always)]
    fn pairs(self, x: &[i16; 2 * LANES]) -> [u8; 4 * LANES] {
        from_fn(|i| x[i / 2].to_le_bytes()[i % 2])
    }
    #[inline(always)]
    fn widen_pairs(self, x: &[i8; 2 * LANES]) -> [u8; 4 * LANES] {
        self.pairs(&x.map(i16::from))
    }
    #[inline(always)]
    fn dot_pairs(self, acc: [i32; LANES], a: [u8; 4 * LANES], b: i32) -> [i32; LANES] {
        let product = |i: usize, b: i32| i32::from(i16::from_le_bytes([a[i], a[i + 1]])) * i32::from(b as i16);
        from_fn(|r| acc[r].wrapping_add(product(4 * r, b)).wrapping_add(product(4 * r + 2, b >> 16)))
    }

    #[inline(always)]
    fn bytes(self, x: &[u8; 4 * LANES]) -> [u8; 4 * LANES] {
        *x
    }
    #[inline(always)]
    fn store_bytes(self, v: [u8; 4 * LANES], out: &mut [u8; 4 * LANES]) {
        *out = v;
    }
    #[inline(always)]
    fn bits(self, v: [u8; 4 * LANES], at: usize, count: usize) -> [u8; 4 * LANES] {
        v.map(|b| b >> at & 255 >> (8 - count))
    }
    #[inline(always)]
    fn join(self, low: [u8; 4 * LANES], high: [u8; 4 * LANES], at: usize) -> [u8; 4 * LANES] {
        from_fn(|i| low[i] | high[i] << at)
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], v: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        v.map(|b| table[usize::from(b & 15)])
    }
    #[inline(always)]
    fn dot(self, acc: [i32; LANES], w: [u8; 4 * LANES], x: i32) -> [i32; LANES] {
        dot(acc, |i| i32::from(w[i]), x)
    }
    #[inline(always)]
    fn signed(self, v: [u8; 4 * LANES]) -> [u8; 4 * LANES] {
        v
    }
    #[inline(always)]
    fn dot_signed(self, acc: [i32; LANES], w: [u8; 4 * LANES], x: i32) -> [i32; LANES] {
        dot(acc, |i| i32::from(w[i]) - 128, x)
    }
}

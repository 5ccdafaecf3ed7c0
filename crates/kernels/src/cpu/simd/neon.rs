//! Sixteen lanes as four registers of AArch64's Advanced SIMD.
//!
//! Dot products of bytes and conversions of halves are instructions that Rust names in no stable intrinsic (for halves:
//! not in the oldest Rust that builds this), so they are written out.
#![allow(clippy::needless_range_loop)] // Iterators take closures, which are compiled without the level's instructions.

use super::{chain, fits_words, Kernel, NoTiles, Simd, LANES};
use crate::cpu::tile::Sum;
use half::{bf16, f16};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::ops::Range;

/// Proof of Advanced SIMD, and of its dot products where `DOT`, for `R` of the four registers: all, or one at a time.
#[derive(Clone, Copy)]
pub struct Neon<const DOT: bool, const R: usize = 4> {
    /// The first of the registers; each holds four lanes.
    first: usize,
}

/// `each!(out, i => f)`: `out` with `f` of each register in place of it.
macro_rules! each {
    ($out:expr, $i:ident => $f:expr) => {{
        let mut out = $out;
        for $i in 0..R {
            out[$i] = $f;
        }
        out
    }};
}

impl Neon<false> {
    /// The proof, where the machine has the instructions.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Neon { first: 0 })
    }
}

impl Neon<true> {
    /// The proof, where the machine has the instructions.
    pub fn detect_dot() -> Option<Self> {
        (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod")).then_some(Neon { first: 0 })
    }
}

impl<const DOT: bool, const R: usize> Neon<DOT, R> {
    /// What register `i` is of 16 lanes in memory. No check: `first + R` is at most 4.
    #[inline(always)]
    fn part<T, const N: usize>(self, x: &[T; N], i: usize) -> *const T {
        x.as_ptr().wrapping_add(N / 4 * (self.first + i))
    }

    /// The same, to write.
    #[inline(always)]
    fn part_mut<T, const N: usize>(self, x: &mut [T; N], i: usize) -> *mut T {
        x.as_mut_ptr().wrapping_add(N / 4 * (self.first + i))
    }
}

#[target_feature(enable = "neon,dotprod")]
fn inside_dot<const DOT: bool, const R: usize, K: Kernel>(s: Neon<DOT, R>, kernel: K) -> K::Output {
    kernel.run(s)
}

/// `acc + Σ w x` by fours; `x` needs no copies in other lanes.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot4(mut acc: int32x4_t, w: int8x16_t, x: i32) -> int32x4_t {
    let x = f32::from_bits(x as u32);
    // SAFETY: arithmetic on registers only.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.4b[0]", inlateout(vreg) acc, in(vreg) w, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// The same without that instruction: two products of a weight in −128 … 127 and an input in −127 … 127 fit 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn dot4_by_pairs(acc: int32x4_t, w: int8x16_t, x: i32) -> int32x4_t {
    let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(w, x)))
}

/// The sum of four dot products whose pairs add up within 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn dots4_by_pairs(w: [int8x16_t; 4], x: [i32; 4]) -> int32x4_t {
    let mut x4 = [w[0]; 4];
    for p in 0..4 {
        x4[p] = vreinterpretq_s8_s32(vdupq_n_s32(x[p]));
    }
    let mut low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x4[0]));
    let mut high = vmull_high_s8(w[0], x4[0]);
    for p in 1..4 {
        low = vmlal_s8(low, vget_low_s8(w[p]), vget_low_s8(x4[p]));
        high = vmlal_high_s8(high, w[p], x4[p]);
    }
    vpaddlq_s16(vpaddq_s16(low, high))
}

/// Four halves, widened.
#[target_feature(enable = "neon")]
#[inline]
fn widen_halves(x: uint16x4_t) -> float32x4_t {
    let out;
    // SAFETY: arithmetic on registers only.
    unsafe {
        asm!("fcvtl {0:v}.4s, {1:v}.4h", lateout(vreg) out, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The nearest halves.
#[target_feature(enable = "neon")]
#[inline]
fn narrow_to_halves(x: float32x4_t) -> uint16x4_t {
    let out;
    // SAFETY: arithmetic on registers only.
    unsafe {
        asm!("fcvtn {0:v}.4h, {1:v}.4s", lateout(vreg) out, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// The nearest integers of 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn narrow_to_words(v: float32x4_t) -> int16x4_t {
    vqmovn_s32(vcvtnq_s32_f32(v))
}

/// Ones in the lanes `first … first + 3` that are within `range`.
#[target_feature(enable = "neon")]
#[inline]
fn mask4(range: &Range<usize>, first: usize) -> uint32x4_t {
    // SAFETY: reads the whole array.
    let lane = unsafe { vaddq_s32(vld1q_s32([0, 1, 2, 3].as_ptr()), vdupq_n_s32(first as i32)) };
    let after = vcgeq_s32(lane, vdupq_n_s32(range.start as i32));
    vandq_u32(after, vcltq_s32(lane, vdupq_n_s32(range.end as i32)))
}

/// Sum of four lanes by halves.
#[target_feature(enable = "neon")]
#[inline]
fn sum4(v: float32x4_t) -> f32 {
    let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
}

/// Four pairs as their first numbers, then their second ones: a product with either is then one instruction.
#[target_feature(enable = "neon")]
#[inline]
fn apart(pairs: int16x8_t) -> int8x16_t {
    vreinterpretq_s8_s16(vcombine_s16(vget_low_s16(vuzp1q_s16(pairs, pairs)), vget_low_s16(vuzp2q_s16(pairs, pairs))))
}

impl<const DOT: bool, const R: usize> Simd for Neon<DOT, R> {
    type F = [float32x4_t; R];
    type I = [int32x4_t; R];
    type B = [int8x16_t; R];
    type W = [int8x16_t; R];
    type Tiles = NoTiles;
    type HalfTiles = NoTiles;

    const TOKENS: usize = 4;
    const QUERIES: usize = 4;
    const BIAS: i32 = 0;

    fn vectorize<K: Kernel>(self, kernel: K) -> K::Output {
        match DOT {
            // SAFETY: `self` proves the instructions.
            true => unsafe { inside_dot(self, kernel) },
            false => kernel.run(self),
        }
    }

    /// A record's weights fill the registers, so that a quarter of its rows is multiplied with all tokens at a time.
    #[inline(always)]
    fn accumulate<W: Sum, const T: usize>(self, record: &W, block: usize, x: &[[W::Word; T]], f: &mut [Self::F; T]) {
        for i in 0..R {
            let part = Neon::<DOT, 1> { first: self.first + i };
            let mut sums = [part.zero(); T];
            for t in 0..T {
                sums[t] = [f[t][i]];
            }
            record.multiply(part, block, x, &mut sums);
            for t in 0..T {
                f[t][i] = sums[t][0];
            }
        }
    }

    intrinsics! {
        fn splat(self, x: f32) -> [float32x4_t; R] { [vdupq_n_f32(x); R] }
        fn load(self, x: &[f32; LANES]) -> [float32x4_t; R] {
            each!(self.zero(), i => vld1q_f32(self.part(x, i)))
        }
        fn load_f16(self, x: &[f16; LANES]) -> [float32x4_t; R] {
            each!(self.zero(), i => widen_halves(vld1_u16(self.part(x, i).cast())))
        }
        fn load_bf16(self, x: &[bf16; LANES]) -> [float32x4_t; R] {
            let upper = each!([vdupq_n_u32(0); R], i => {
                vshll_n_u16::<16>(vld1_u16(self.part(x, i).cast()))
            });
            each!(self.zero(), i => vreinterpretq_f32_u32(upper[i]))
        }
        fn load_i8(self, x: &[i8; LANES]) -> [float32x4_t; R] {
            each!(self.zero(), i => {
                let four: *const i32 = self.part(x, i).cast();
                let bytes = vreinterpret_s8_s32(vdup_n_s32(four.read_unaligned()));
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
            })
        }
        fn store(self, v: [float32x4_t; R], out: &mut [f32; LANES]) -> () {
            for i in 0..R {
                vst1q_f32(self.part_mut(out, i), v[i]);
            }
        }
        fn to_f16(self, v: [float32x4_t; R]) -> [f16; LANES] {
            let mut out = [f16::ZERO; LANES];
            for i in 0..R {
                vst1_u16(self.part_mut(&mut out, i).cast(), narrow_to_halves(v[i]));
            }
            out
        }
        fn add(self, a: [float32x4_t; R], b: [float32x4_t; R]) -> [float32x4_t; R] { each!(a, i => vaddq_f32(a[i], b[i])) }
        fn sub(self, a: [float32x4_t; R], b: [float32x4_t; R]) -> [float32x4_t; R] { each!(a, i => vsubq_f32(a[i], b[i])) }
        fn mul(self, a: [float32x4_t; R], b: [float32x4_t; R]) -> [float32x4_t; R] { each!(a, i => vmulq_f32(a[i], b[i])) }
        fn div(self, a: [float32x4_t; R], b: [float32x4_t; R]) -> [float32x4_t; R] { each!(a, i => vdivq_f32(a[i], b[i])) }
        fn mul_add(self, a: [float32x4_t; R], b: [float32x4_t; R], c: [float32x4_t; R]) -> [float32x4_t; R] {
            each!(c, i => vfmaq_f32(c[i], a[i], b[i]))
        }
        fn max(self, a: [float32x4_t; R], b: [float32x4_t; R]) -> [float32x4_t; R] {
            each!(a, i => vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]))
        }
        fn min(self, a: [float32x4_t; R], b: [float32x4_t; R]) -> [float32x4_t; R] {
            each!(a, i => vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
        }
        fn abs(self, v: [float32x4_t; R]) -> [float32x4_t; R] { each!(v, i => vabsq_f32(v[i])) }
        fn round(self, v: [float32x4_t; R]) -> [float32x4_t; R] { each!(v, i => vrndnq_f32(v[i])) }
        fn floor(self, v: [float32x4_t; R]) -> [float32x4_t; R] { each!(v, i => vrndmq_f32(v[i])) }
        fn scale(self, v: [float32x4_t; R], n: [float32x4_t; R]) -> [float32x4_t; R] {
            let bias = vdupq_n_s32(127);
            let power = each!([bias; R], i => vshlq_n_s32::<23>(vaddq_s32(vcvtmq_s32_f32(n[i]), bias)));
            each!(v, i => vmulq_f32(v[i], vreinterpretq_f32_s32(power[i])))
        }
        fn within(self, range: Range<usize>, v: [float32x4_t; R], other: [float32x4_t; R]) -> [float32x4_t; R] {
            each!(v, i => vbslq_f32(mask4(&range, 4 * (self.first + i)), v[i], other[i]))
        }
        fn sum(self, v: [float32x4_t; R]) -> f32 {
            let (mut v, mut count) = (v, R);
            while count > 1 {
                count /= 2;
                for i in 0..count {
                    v[i] = vaddq_f32(v[i], v[i + count]);
                }
            }
            sum4(v[0])
        }
        fn largest(self, v: [float32x4_t; R]) -> f32 {
            let mut largest = v[0];
            for i in 1..R {
                largest = vmaxnmq_f32(largest, v[i]);
            }
            vmaxnmvq_f32(largest)
        }

        fn splat_i(self, x: i32) -> [int32x4_t; R] { [vdupq_n_s32(x); R] }
        fn load_i(self, x: &[i32; LANES]) -> [int32x4_t; R] { each!(self.splat_i(0), i => vld1q_s32(self.part(x, i))) }
        fn add_i(self, a: [int32x4_t; R], b: [int32x4_t; R]) -> [int32x4_t; R] { each!(a, i => vaddq_s32(a[i], b[i])) }
        fn float(self, v: [int32x4_t; R]) -> [float32x4_t; R] { each!(self.zero(), i => vcvtq_f32_s32(v[i])) }
        fn same_bits(self, v: [int32x4_t; R]) -> [float32x4_t; R] { each!(self.zero(), i => vreinterpretq_f32_s32(v[i])) }
        fn narrow_four(self, v: [[float32x4_t; R]; 4]) -> [int8x16_t; R] {
            each!([vdupq_n_s8(0); R], i => {
                let low = vcombine_s16(narrow_to_words(v[0][i]), narrow_to_words(v[1][i]));
                let high = vcombine_s16(narrow_to_words(v[2][i]), narrow_to_words(v[3][i]));
                vcombine_s8(vqmovn_s16(low), vqmovn_s16(high))
            })
        }
        fn sum_bytes(self, v: [int8x16_t; R]) -> [int32x4_t; R] { self.dot(self.splat_i(0), v, 0x0101_0101) }
        fn narrow_pairs(self, v: [float32x4_t; R]) -> [i32; LANES / 2] {
            let mut out = [0; LANES / 2];
            for i in 0..R {
                vst1_s16(self.part_mut(&mut out, i).cast(), narrow_to_words(v[i]));
            }
            out
        }

        fn bytes(self, x: &[u8; 4 * LANES]) -> [int8x16_t; R] {
            each!([vdupq_n_s8(0); R], i => vld1q_s8(self.part(x, i).cast()))
        }
        fn store_bytes(self, v: [int8x16_t; R], out: &mut [u8; 4 * LANES]) -> () {
            for i in 0..R {
                vst1q_s8(self.part_mut(out, i).cast(), v[i]);
            }
        }
        fn bits(self, v: [int8x16_t; R], at: usize, count: usize) -> [int8x16_t; R] {
            let (down, mask) = (vdupq_n_s8(-(at as i8)), vdupq_n_u8(255 >> (8 - count)));
            each!(v, i => vreinterpretq_s8_u8(vandq_u8(vshlq_u8(vreinterpretq_u8_s8(v[i]), down), mask)))
        }
        fn join(self, low: [int8x16_t; R], high: [int8x16_t; R], at: usize) -> [int8x16_t; R] {
            each!(low, i => vorrq_s8(low[i], vshlq_s8(high[i], vdupq_n_s8(at as i8))))
        }
        fn lookup(self, table: &[u8; 16], v: [int8x16_t; R]) -> [int8x16_t; R] {
            let table = vld1q_s8(table.as_ptr().cast());
            each!(v, i => vqtbl1q_s8(table, vreinterpretq_u8_s8(v[i])))
        }
        fn dot(self, acc: [int32x4_t; R], w: [int8x16_t; R], x: i32) -> [int32x4_t; R] {
            each!(acc, i => if DOT { dot4(acc[i], w[i], x) } else { dot4_by_pairs(acc[i], w[i], x) })
        }
        fn dots(self, acc: [int32x4_t; R], w: [[int8x16_t; R]; 4], x: [i32; 4], most: i32) -> [int32x4_t; R] {
            if DOT || !fits_words(most) {
                return chain(self, acc, w, x);
            }
            let [a, b, c, d] = w;
            each!(acc, i => vaddq_s32(acc[i], dots4_by_pairs([a[i], b[i], c[i], d[i]], x)))
        }
        fn signed(self, v: [int8x16_t; R]) -> [int8x16_t; R] { each!(v, i => veorq_s8(v[i], vdupq_n_s8(-128))) }
        fn dot_signed(self, acc: [int32x4_t; R], w: [int8x16_t; R], x: i32) -> [int32x4_t; R] { self.dot(acc, w, x) }

        fn pairs(self, x: &[i16; 2 * LANES]) -> [int8x16_t; R] {
            each!([vdupq_n_s8(0); R], i => apart(vld1q_s16(self.part(x, i))))
        }
        fn widen_pairs(self, x: &[i8; 2 * LANES]) -> [int8x16_t; R] {
            each!([vdupq_n_s8(0); R], i => apart(vmovl_s8(vld1_s8(self.part(x, i)))))
        }
        fn dot_pairs(self, acc: [int32x4_t; R], a: [int8x16_t; R], b: i32) -> [int32x4_t; R] {
            let b = vreinterpret_s16_s32(vdup_n_s32(b));
            each!(acc, i => {
                let a = vreinterpretq_s16_s8(a[i]);
                vmlal_high_lane_s16::<1>(vmlal_lane_s16::<0>(acc[i], vget_low_s16(a), b), a, b)
            })
        }
    }
}

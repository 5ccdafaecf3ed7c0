//! Sixteen lanes as four registers of AArch64's Advanced SIMD.
//!
//! Dot products of bytes and conversions of halves are instructions that Rust names in no stable intrinsic (for halves:
//! not in the oldest Rust that builds this), so they are written out.

use super::{Kernel, Simd, LANES};
use half::{bf16, f16};
use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};
use std::ops::Range;

/// Proof of Advanced SIMD, and of its dot products where `DOT`.
#[derive(Clone, Copy)]
pub struct Neon<const DOT: bool>(());

/// Four registers: lanes 0–3, 4–7, 8–11 and 12–15.
type Four<T> = [T; 4];

/// `four!(i => f)`: `[f(0), f(1), f(2), f(3)]`.
macro_rules! four {
    ($i:ident => $f:expr) => {
        [
            {
                let $i = 0;
                $f
            },
            {
                let $i = 1;
                $f
            },
            {
                let $i = 2;
                $f
            },
            {
                let $i = 3;
                $f
            },
        ]
    };
}

impl Neon<false> {
    /// The proof, where the machine has the instructions.
    pub fn detect() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

impl Neon<true> {
    /// The proof, where the machine has the instructions.
    pub fn detect_dot() -> Option<Self> {
        (is_aarch64_feature_detected!("neon") && is_aarch64_feature_detected!("dotprod")).then_some(Neon(()))
    }
}

#[target_feature(enable = "neon,dotprod")]
fn inside_dot<const DOT: bool, K: Kernel>(s: Neon<DOT>, kernel: K) -> K::Output {
    kernel.run(s)
}

/// `acc + Σ w x` by fours.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn dot4(mut acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: arithmetic on registers only.
    unsafe {
        asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inlateout(vreg) acc, in(vreg) w, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}

/// The same without that instruction: two products of a weight in −128 … 127 and an input in −127 … 127 fit 16 bits.
#[target_feature(enable = "neon")]
#[inline]
fn dot4_by_pairs(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(w, x)))
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

impl<const DOT: bool> Simd for Neon<DOT> {
    type F = Four<float32x4_t>;
    type I = Four<int32x4_t>;
    type B = Four<int8x16_t>;
    type W = Four<int8x16_t>;

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

    intrinsics! {
        fn any_above(self, v: Four<float32x4_t>, limit: Four<float32x4_t>) -> bool {
            let above = four!(i => vcgtq_f32(v[i], limit[i]));
            vmaxvq_u32(vorrq_u32(vorrq_u32(above[0], above[1]), vorrq_u32(above[2], above[3]))) != 0
        }
        fn splat(self, x: f32) -> Four<float32x4_t> { [vdupq_n_f32(x); 4] }
        fn load(self, x: &[f32; LANES]) -> Four<float32x4_t> { four!(i => vld1q_f32(x[4 * i..].as_ptr())) }
        fn load_f16(self, x: &[f16; LANES]) -> Four<float32x4_t> {
            four!(i => widen_halves(vld1_u16(x[4 * i..].as_ptr().cast())))
        }
        fn load_bf16(self, x: &[bf16; LANES]) -> Four<float32x4_t> {
            four!(i => vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x[4 * i..].as_ptr().cast()))))
        }
        fn store(self, v: Four<float32x4_t>, out: &mut [f32; LANES]) -> () {
            four!(i => vst1q_f32(out[4 * i..].as_mut_ptr(), v[i]));
        }
        fn to_f16(self, v: Four<float32x4_t>) -> [f16; LANES] {
            let mut out = [f16::ZERO; LANES];
            four!(i => vst1_u16(out[4 * i..].as_mut_ptr().cast(), narrow_to_halves(v[i])));
            out
        }
        fn add(self, a: Four<float32x4_t>, b: Four<float32x4_t>) -> Four<float32x4_t> { four!(i => vaddq_f32(a[i], b[i])) }
        fn sub(self, a: Four<float32x4_t>, b: Four<float32x4_t>) -> Four<float32x4_t> { four!(i => vsubq_f32(a[i], b[i])) }
        fn mul(self, a: Four<float32x4_t>, b: Four<float32x4_t>) -> Four<float32x4_t> { four!(i => vmulq_f32(a[i], b[i])) }
        fn div(self, a: Four<float32x4_t>, b: Four<float32x4_t>) -> Four<float32x4_t> { four!(i => vdivq_f32(a[i], b[i])) }
        fn mul_add(self, a: Four<float32x4_t>, b: Four<float32x4_t>, c: Four<float32x4_t>) -> Four<float32x4_t> {
            four!(i => vfmaq_f32(c[i], a[i], b[i]))
        }
        fn max(self, a: Four<float32x4_t>, b: Four<float32x4_t>) -> Four<float32x4_t> {
            four!(i => vbslq_f32(vcgtq_f32(a[i], b[i]), a[i], b[i]))
        }
        fn min(self, a: Four<float32x4_t>, b: Four<float32x4_t>) -> Four<float32x4_t> {
            four!(i => vbslq_f32(vcltq_f32(a[i], b[i]), a[i], b[i]))
        }
        fn abs(self, v: Four<float32x4_t>) -> Four<float32x4_t> { four!(i => vabsq_f32(v[i])) }
        fn round(self, v: Four<float32x4_t>) -> Four<float32x4_t> { four!(i => vrndnq_f32(v[i])) }
        fn scale(self, v: Four<float32x4_t>, n: Four<float32x4_t>) -> Four<float32x4_t> {
            let bias = vdupq_n_s32(127);
            let power = four!(i => vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n[i]), bias)));
            four!(i => vmulq_f32(v[i], vreinterpretq_f32_s32(power[i])))
        }
        fn within(self, range: Range<usize>, v: Four<float32x4_t>, other: Four<float32x4_t>) -> Four<float32x4_t> {
            four!(i => vbslq_f32(mask4(&range, 4 * i), v[i], other[i]))
        }
        fn sum(self, v: Four<float32x4_t>) -> f32 {
            sum4(vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3])))
        }
        fn largest(self, v: Four<float32x4_t>) -> f32 {
            vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(v[0], v[2]), vmaxnmq_f32(v[1], v[3])))
        }

        fn splat_i(self, x: i32) -> Four<int32x4_t> { [vdupq_n_s32(x); 4] }
        fn add_i(self, a: Four<int32x4_t>, b: Four<int32x4_t>) -> Four<int32x4_t> { four!(i => vaddq_s32(a[i], b[i])) }
        fn float(self, v: Four<int32x4_t>) -> Four<float32x4_t> { four!(i => vcvtq_f32_s32(v[i])) }
        fn narrow(self, v: Four<float32x4_t>) -> [i8; LANES] {
            let v = four!(i => vqmovn_s32(vcvtnq_s32_f32(v[i])));
            let (low, high) = (vqmovn_s16(vcombine_s16(v[0], v[1])), vqmovn_s16(vcombine_s16(v[2], v[3])));
            let mut out = [0; LANES];
            vst1q_s8(out.as_mut_ptr(), vcombine_s8(low, high));
            out
        }
        fn narrow_pairs(self, v: Four<float32x4_t>) -> [i32; LANES / 2] {
            let mut out = [0; LANES / 2];
            four!(i => vst1_s16(out[2 * i..].as_mut_ptr().cast(), vqmovn_s32(vcvtnq_s32_f32(v[i]))));
            out
        }

        fn bytes(self, x: &[u8; 4 * LANES]) -> Four<int8x16_t> { four!(i => vld1q_s8(x[16 * i..].as_ptr().cast())) }
        fn low(self, v: Four<int8x16_t>) -> Four<int8x16_t> { four!(i => vandq_s8(v[i], vdupq_n_s8(15))) }
        fn high(self, v: Four<int8x16_t>) -> Four<int8x16_t> {
            four!(i => vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(v[i]))))
        }
        fn dot(self, acc: Four<int32x4_t>, w: Four<int8x16_t>, x: i32) -> Four<int32x4_t> {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
            if DOT { four!(i => dot4(acc[i], w[i], x)) } else { four!(i => dot4_by_pairs(acc[i], w[i], x)) }
        }
        fn signed(self, v: Four<int8x16_t>) -> Four<int8x16_t> { four!(i => veorq_s8(v[i], vdupq_n_s8(-128))) }
        fn dot_signed(self, acc: Four<int32x4_t>, w: Four<int8x16_t>, x: i32) -> Four<int32x4_t> { self.dot(acc, w, x) }

        // Pairs are kept apart, so that a product with either of `b` is one instruction: the first numbers of the lanes
        // in two registers, then the second ones.
        fn pairs(self, x: &[i16; 2 * LANES]) -> Four<int8x16_t> {
            let (low, high) = (vld2q_s16(x.as_ptr()), vld2q_s16(x[LANES..].as_ptr()));
            [low.0, high.0, low.1, high.1].map(|v| vreinterpretq_s8_s16(v))
        }
        fn widen_pairs(self, x: &[i8; 2 * LANES]) -> Four<int8x16_t> {
            let int8x16x2_t(first, second) = vld2q_s8(x.as_ptr());
            let first = [vmovl_s8(vget_low_s8(first)), vmovl_high_s8(first)];
            let second = [vmovl_s8(vget_low_s8(second)), vmovl_high_s8(second)];
            [first[0], first[1], second[0], second[1]].map(|v| vreinterpretq_s8_s16(v))
        }
        fn dot_pairs(self, acc: Four<int32x4_t>, a: Four<int8x16_t>, b: i32) -> Four<int32x4_t> {
            let a = four!(i => vreinterpretq_s16_s8(a[i]));
            let b = vreinterpret_s16_s32(vdup_n_s32(b));
            let acc = [
                vmlal_lane_s16::<0>(acc[0], vget_low_s16(a[0]), b),
                vmlal_high_lane_s16::<0>(acc[1], a[0], b),
                vmlal_lane_s16::<0>(acc[2], vget_low_s16(a[1]), b),
                vmlal_high_lane_s16::<0>(acc[3], a[1], b),
            ];
            [
                vmlal_lane_s16::<1>(acc[0], vget_low_s16(a[2]), b),
                vmlal_high_lane_s16::<1>(acc[1], a[2], b),
                vmlal_lane_s16::<1>(acc[2], vget_low_s16(a[3]), b),
                vmlal_high_lane_s16::<1>(acc[3], a[3], b),
            ]
        }
    }
}

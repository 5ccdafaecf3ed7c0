//! Numbers as they are stored, widened to lanes of f32.

use super::{lanes, Simd, LANES};
use half::{bf16, f16};

/// A stored element that loads as f32 lanes.
pub trait Element: Copy + Sync {
    /// 16 elements, widened.
    fn load<S: Simd>(s: S, x: &[Self; LANES]) -> S::F;
    /// The nearest elements.
    fn narrow_all<S: Simd>(s: S, v: S::F) -> [Self; LANES];
}

impl Element for f32 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f32; LANES]) -> S::F {
        s.load(x)
    }
    #[inline(always)]
    fn narrow_all<S: Simd>(s: S, v: S::F) -> [f32; LANES] {
        lanes(s, v)
    }
}

impl Element for f16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[f16; LANES]) -> S::F {
        s.load_f16(x)
    }
    #[inline(always)]
    fn narrow_all<S: Simd>(s: S, v: S::F) -> [f16; LANES] {
        s.to_f16(v)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn load<S: Simd>(s: S, x: &[bf16; LANES]) -> S::F {
        s.load_bf16(x)
    }
    #[inline(always)]
    fn narrow_all<S: Simd>(s: S, v: S::F) -> [bf16; LANES] {
        s.to_bf16(v)
    }
}

//! Vectors rounded to whole multiples of a step.

use super::simd::{fold, Simd, LANES};

/// A vector as whole multiples of a step, the largest of which is R.
pub struct Steps<'a> {
    /// The values.
    pub x: &'a [f32],
    /// The step; NaN where a value is not finite.
    pub step: f32,
    inverse: f32,
}

impl<'a> Steps<'a> {
    /// Chooses the step.
    #[inline(always)]
    pub fn of<S: Simd>(s: S, x: &'a [f32], range: f32) -> Steps<'a> {
        let largest = s.largest(fold!(s, x, s.zero(), 0.0, |most, v| s.max(s.abs(v), most)));
        let nothing = s.sum(fold!(s, x, s.zero(), 0.0, |sum, v| s.mul_add(v, s.zero(), sum)));
        Steps { x, step: largest / range + nothing, inverse: if largest > 0.0 { range / largest } else { 0.0 } }
    }

    /// Up to 16 of the values as pairs.
    #[inline(always)]
    pub fn pairs<S: Simd>(&self, s: S, x: &[f32]) -> [i32; LANES / 2] {
        s.narrow_pairs(s.mul(s.load_part(x), s.splat(self.inverse)))
    }
}

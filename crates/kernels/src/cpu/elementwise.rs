//! Sums and the gated activation. Law: each value depends on its own operands only, so any cut is right.

use super::pool::Pool;
use super::simd::{combine, update, Isa, Kernel, Simd};
use std::f32::consts::LOG2_E;

/// Adds `y` to each row of `x`, rows of `y`'s length.
pub fn add_rows(isa: Isa, pool: &mut Pool, x: &mut [f32], y: &[f32]) {
    pool.rows(x, y.len(), |_, x| isa.run(Add { x, y }));
}

/// `x[i] += y[i]`; the slices have one length.
pub fn add(isa: Isa, pool: &mut Pool, x: &mut [f32], y: &[f32]) {
    pool.rows(x, 1, |first, x| {
        let y = &y[first..first + x.len()];
        isa.run(Add { x, y });
    });
}

struct Add<'a> {
    x: &'a mut [f32],
    y: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.x.chunks_exact_mut(self.y.len().max(1)) {
            update!(s, row, self.y, |x, y| s.add(x, y));
        }
    }
}

/// `out[t, k] = silu(x[t, k]) · x[t, K + k]`; x is `[T, 2K]`, out `[T, K]`.
#[inline(always)]
pub fn silu_mul<S: Simd>(s: S, x: &[f32], k: usize, out: &mut [f32]) {
    let one = s.splat(1.0);
    for (x, out) in x.chunks_exact(2 * k).zip(out.chunks_exact_mut(k)) {
        let (gate, up) = x.split_at(k);
        combine!(s, gate, up => out, |gate, up| {
            // Below −87 it is so small that 2¹²⁶ will do for e^−gate.
            let e = s.pow2(s.min(s.splat(126.0), s.mul(gate, s.splat(-LOG2_E))));
            s.mul(s.div(gate, s.add(one, e)), up)
        });
    }
}

/// `out[rows[i], :] += weights[i] · x[i, :]`.
pub fn scatter_add(isa: Isa, x: &[f32], rows: &[usize], weights: &[f32], width: usize, out: &mut [f32]) {
    for ((x, &row), &weight) in x.chunks_exact(width.max(1)).zip(rows).zip(weights) {
        isa.run(AddScaled { x, weight, out: &mut out[row * width..][..width] });
    }
}

struct AddScaled<'a> {
    x: &'a [f32],
    weight: f32,
    out: &'a mut [f32],
}

impl Kernel for AddScaled<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let weight = s.splat(self.weight);
        update!(s, self.out, self.x, |out, x| s.add(out, s.mul(x, weight)));
    }
}

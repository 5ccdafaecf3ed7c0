//! Root-mean-square normalisation. Law: the sum of squares is 16 sums in order of the row, added by halves.

use super::pool::Pool;
use super::simd::{combine, fold, update, Isa, Kernel, Simd};
use crate::device::Heads;

/// `out[t, :] = x[t, :] / sqrt(mean(x[t, :]²) + eps) · weight`; `x` and `out` have one length.
pub fn rms_norm(isa: Isa, pool: &mut Pool, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    pool.rows(out, weight.len(), |first, out| {
        let x = &x[first..first + out.len()];
        isa.run(Norm { x, weight, eps, out });
    });
}

struct Norm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            normalize(s, x, self.weight, self.eps, out);
        }
    }
}

/// `x += y`, then `y = x / sqrt(mean(x²) + eps) · weight`, row by row; `x` and `y` have one length.
pub fn add_norm(isa: Isa, pool: &mut Pool, x: &mut [f32], y: &mut [f32], weight: &[f32], eps: f32) {
    let step = pool.piece(x.len(), weight.len());
    let mut pieces: Vec<_> = x.chunks_mut(step).zip(y.chunks_mut(step)).collect();
    pool.each(&mut pieces, |_, (x, y)| isa.run(AddNorm { x, y, weight, eps }));
}

struct AddNorm<'a> {
    x: &'a mut [f32],
    y: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for AddNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        for (x, y) in self.x.chunks_exact_mut(width).zip(self.y.chunks_exact_mut(width)) {
            update!(s, x, y, |x, y| s.add(x, y));
            normalize(s, x, self.weight, self.eps, y);
        }
    }
}

/// One row.
#[inline(always)]
fn normalize<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let factor = s.splat(factor(s, x, eps));
    combine!(s, x, weight => out, |x, w| s.mul(s.mul(x, factor), w));
}

/// `1 / sqrt(mean(x²) + eps)`.
#[inline(always)]
fn factor<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let squares = fold!(s, x, s.zero(), 0.0, |sum, v| s.mul_add(v, v, sum));
    1.0 / (s.sum(squares) / x.len() as f32 + eps).sqrt()
}

/// The same in place on each q and k head of fused rows.
pub fn head_norm(isa: Isa, pool: &mut Pool, qkv: &mut [f32], heads: Heads, q: &[f32], k: &[f32], eps: f32) {
    pool.rows(qkv, heads.row(), |_, rows| isa.run(HeadNorm { rows, heads, q, k, eps }));
}

struct HeadNorm<'a> {
    rows: &'a mut [f32],
    heads: Heads,
    q: &'a [f32],
    k: &'a [f32],
    eps: f32,
}

impl Kernel for HeadNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Heads { q, kv, size } = self.heads;
        for row in self.rows.chunks_exact_mut(self.heads.row()) {
            for (h, head) in row.chunks_exact_mut(size).take(q + kv).enumerate() {
                let weight = if h < q { self.q } else { self.k };
                let factor = s.splat(factor(s, head, self.eps));
                update!(s, head, weight[..size], |x, w| s.mul(s.mul(x, factor), w));
            }
        }
    }
}

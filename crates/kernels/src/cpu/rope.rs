//! Rotary position embedding. Law: a pair (i, i + S/2) is turned by the angle of its row's position and of i.

use super::pool::Pool;
use super::simd::{Isa, Kernel, Simd, LANES};
use crate::device::Heads;

/// Rotates the q and k heads of fused rows in place; `table` is `[rows][cos S/2 | sin S/2]`.
pub fn rope(isa: Isa, pool: &mut Pool, qkv: &mut [f32], heads: Heads, table: &[f32]) {
    let width = heads.row();
    pool.rows(qkv, width, |first, rows| {
        isa.run(Rope { rows, heads, table: &table[first / width * heads.size..] });
    });
}

struct Rope<'a> {
    rows: &'a mut [f32],
    heads: Heads,
    table: &'a [f32],
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Heads { q, kv, size } = self.heads;
        for (row, angles) in self.rows.chunks_exact_mut(self.heads.row()).zip(self.table.chunks_exact(size)) {
            for head in row.chunks_exact_mut(size).take(q + kv) {
                let (a, b) = head.split_at_mut(size / 2);
                turn(s, a, b, angles.split_at(size / 2));
            }
        }
    }
}

#[inline(always)]
fn turn<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], (cos, sin): (&[f32], &[f32])) {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks_mut::<LANES>(), b.as_chunks_mut::<LANES>());
    let ((cos, cos_rest), (sin, sin_rest)) = (cos.as_chunks(), sin.as_chunks());
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let (x, y) = pair(s, s.load(a), s.load(b), s.load(cos), s.load(sin));
        s.store(x, a);
        s.store(y, b);
    }
    if !a_rest.is_empty() {
        let (cos, sin) = (s.load_part(cos_rest), s.load_part(sin_rest));
        let (x, y) = pair(s, s.load_part(a_rest), s.load_part(b_rest), cos, sin);
        s.store_part(x, a_rest);
        s.store_part(y, b_rest);
    }
}

/// `(a cos − b sin, b cos + a sin)`.
#[inline(always)]
fn pair<S: Simd>(s: S, a: S::F, b: S::F, cos: S::F, sin: S::F) -> (S::F, S::F) {
    (s.sub(s.mul(a, cos), s.mul(b, sin)), s.mul_add(a, sin, s.mul(b, cos)))
}

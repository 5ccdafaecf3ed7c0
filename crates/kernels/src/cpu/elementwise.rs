//! Sums and the gated activation. Law: each value depends on its own operands only, so any cut is right.

use super::pool::Pool;
use super::simd::{combine, update, Isa, Kernel, Simd};

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
            let e = s.exp(s.sub(s.zero(), gate));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::level::Level;
    use crate::cpu::simd::{lanes, LANES};

    struct Exp([f32; LANES]);

    impl Kernel for Exp {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [f32; LANES] {
            lanes(s, s.exp(s.load(&self.0)))
        }
    }

    #[test]
    fn exp_is_within_a_millionth() {
        for level in Level::available() {
            let isa = Isa::detect(level).unwrap();
            for i in 0..11_000 {
                let x =
                    std::array::from_fn(|lane| (i * 16 + lane as i32) as f32 * 1e-3 - 88.0).map(|x: f32| x.max(-87.0));
                for (x, y) in x.iter().zip(isa.run(Exp(x))) {
                    let exact = f64::from(*x).min(88.0).exp();
                    assert!((f64::from(y) / exact - 1.0).abs() < 5e-7, "{level}: e^{x} = {y}");
                }
            }
            assert!(isa.run(Exp([f32::NAN; LANES]))[3].is_nan(), "{level}");
            assert!(isa.run(Exp([f32::NEG_INFINITY; LANES]))[3] < 2e-38, "{level}");
        }
    }
}

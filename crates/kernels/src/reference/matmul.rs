//! y = x · Wᵀ.

/// `out[rows, n] = x[rows, k] · w[n, k]ᵀ`.
pub fn matmul(x: &[f32], w: &[f32], k: usize, rows: usize, n: usize, out: &mut [f32]) {
    for t in 0..rows {
        for i in 0..n {
            out[t * n + i] = dot(&x[t * k..][..k], &w[i * k..][..k]);
        }
    }
}

/// `Σ aᵢ bᵢ`.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

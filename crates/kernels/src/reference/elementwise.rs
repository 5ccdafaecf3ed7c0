//! The elementwise ops: addition and the gated activation.

/// `x[i] += y[i]`.
pub fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// `out[t, f] = silu(x[t, f]) · x[t, F + f]`, silu(v) = v / (1 + e^−v).
pub fn silu_mul(x: &[f32], rows: usize, width: usize, out: &mut [f32]) {
    for t in 0..rows {
        let (gate, up) = x[t * 2 * width..][..2 * width].split_at(width);
        for f in 0..width {
            out[t * width + f] = gate[f] / (1.0 + (-gate[f]).exp()) * up[f];
        }
    }
}

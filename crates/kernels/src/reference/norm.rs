//! Root-mean-square normalisation (Zhang and Sennrich, arXiv 1910.07467).

use crate::device::Heads;

/// `out[t, :] = x[t, :] / sqrt(mean(x[t, :]²) + eps) · weight`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, rows: usize, out: &mut [f32]) {
    let width = weight.len();
    for t in 0..rows {
        out[t * width..][..width].copy_from_slice(&x[t * width..][..width]);
        norm_row(&mut out[t * width..][..width], weight, eps);
    }
}

/// The same in place on each q and k head of fused rows, weights of one head's length.
pub fn head_norm(qkv: &mut [f32], heads: Heads, q: &[f32], k: &[f32], eps: f32, rows: usize) {
    for row in qkv.chunks_exact_mut(heads.row()).take(rows) {
        for (h, head) in row.chunks_exact_mut(heads.size).take(heads.q + heads.kv).enumerate() {
            norm_row(head, if h < heads.q { q } else { k }, eps);
        }
    }
}

fn norm_row(x: &mut [f32], weight: &[f32], eps: f32) {
    let mean = x.iter().map(|v| v * v).sum::<f32>() / x.len() as f32;
    let factor = 1.0 / (mean + eps).sqrt();
    x.iter_mut().zip(weight).for_each(|(v, w)| *v = *v * factor * w);
}

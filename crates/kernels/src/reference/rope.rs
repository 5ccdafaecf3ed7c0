//! Rotary position embedding (Su et al., arXiv 2104.09864) in the layout that rotates halves.

use crate::device::Heads;

/// `out[t, 0..S/2] = cos(p·f)`, `out[t, S/2..S] = sin(p·f)`; the product in f32.
pub fn table(positions: &[u32], inv_freq: &[f32], out: &mut [f32]) {
    let half = inv_freq.len();
    for (t, &position) in positions.iter().enumerate() {
        for (i, &f) in inv_freq.iter().enumerate() {
            let (sin, cos) = (position as f32 * f).sin_cos();
            out[t * 2 * half + i] = cos;
            out[t * 2 * half + half + i] = sin;
        }
    }
}

/// Rotates the pairs (i, i + S/2) of each q and k head of fused rows.
pub fn rope(qkv: &mut [f32], heads: Heads, table: &[f32], rows: usize) {
    for (row, angles) in qkv.chunks_exact_mut(heads.row()).zip(table.chunks_exact(heads.size)).take(rows) {
        let (cos, sin) = angles.split_at(heads.size / 2);
        for head in row.chunks_exact_mut(heads.size).take(heads.q + heads.kv) {
            let (a, b) = head.split_at_mut(heads.size / 2);
            for i in 0..a.len() {
                (a[i], b[i]) = (a[i] * cos[i] - b[i] * sin[i], b[i] * cos[i] + a[i] * sin[i]);
            }
        }
    }
}

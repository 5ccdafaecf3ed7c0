//! Looking up rows: of a table by token, of a step by index.

/// `out[t, :] = table[tokens[t], :]`, rows of `cols` values.
pub fn embed(table: &[f32], cols: usize, tokens: &[u32], out: &mut [f32]) {
    for (t, &token) in tokens.iter().enumerate() {
        out[t * cols..][..cols].copy_from_slice(&table[token as usize * cols..][..cols]);
    }
}

/// `out[r, :] = x[rows[r], :]`, rows of `width` values.
pub fn gather(x: &[f32], rows: &[usize], width: usize, out: &mut [f32]) {
    for (r, &row) in rows.iter().enumerate() {
        out[r * width..][..width].copy_from_slice(&x[row * width..][..width]);
    }
}

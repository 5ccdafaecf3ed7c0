//! The ops of vision towers. Law: each row, each value depends on its own operands only, so any cut is right. They are a
//! few hundredths of a tower's time, so the plain loops do, on all threads.

use super::pool::Pool;
use crate::device::Gelu;
use crate::reference;

/// `out[t, :] = (x[t, :] − mean) / sqrt(variance + eps) · weight + bias`.
pub fn layer_norm(pool: &mut Pool, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    pool.rows(out, weight.len(), |first, out| {
        reference::vision::layer_norm(&x[first..first + out.len()], weight, bias, eps, out);
    });
}

/// The activation of each value.
pub fn gelu(pool: &mut Pool, x: &mut [f32], kind: Gelu) {
    pool.rows(x, 1, |_, x| reference::vision::gelu(x, kind));
}

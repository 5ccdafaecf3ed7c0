//! The ops of vision towers: layer normalisation (Ba et al., arXiv 1607.06450) and their activations.

use crate::device::Gelu;

/// `out[t, :] = (x[t, :] − mean) / sqrt(variance + eps) · weight + bias`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len().max(1);
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        let mean = x.iter().sum::<f32>() / width as f32;
        let variance = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / width as f32;
        let factor = 1.0 / (variance + eps).sqrt();
        for (i, out) in out.iter_mut().enumerate() {
            *out = (x[i] - mean) * factor * weight[i] + bias[i];
        }
    }
}

/// The activation of each value.
pub fn gelu(x: &mut [f32], kind: Gelu) {
    for v in x {
        *v *= match kind {
            Gelu::Exact => 0.5 * (1.0 + erf(f64::from(*v) / std::f64::consts::SQRT_2)) as f32,
            Gelu::Quick => 1.0 / (1.0 + (-1.702 * *v).exp()),
        };
    }
}

/// The error function by its series near 0 and its continued fraction beyond (Abramowitz and Stegun, 7.1.6 and 7.1.14).
fn erf(x: f64) -> f64 {
    let (a, scale) = (x.abs(), (-x * x).exp() / std::f64::consts::PI.sqrt());
    let value = if a < 2.5 {
        let terms =
            (0..60).scan(a, |term, n| Some(std::mem::replace(term, *term * 2.0 * a * a / f64::from(2 * n + 3))));
        2.0 * scale * terms.sum::<f64>()
    } else {
        1.0 - scale / (1..60).rev().fold(a, |below, n| a + f64::from(n) / 2.0 / below)
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::erf;

    /// Values of Abramowitz and Stegun, table 7.1.
    #[test]
    fn erf_has_the_values_of_the_table() {
        let table =
            [(0.0, 0.0), (0.1, 0.112_462_916), (0.5, 0.520_499_878), (1.0, 0.842_700_793), (2.0, 0.995_322_265)];
        for (x, expected) in table {
            assert!((erf(x) - expected).abs() < 1e-9 && (erf(-x) + expected).abs() < 1e-9, "erf({x}) = {}", erf(x));
        }
        assert!((erf(2.499_999) - erf(2.500_001)).abs() < 1e-7);
    }
}

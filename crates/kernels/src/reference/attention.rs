//! Scaled dot-product attention, causal, over pages.

use super::kv::Kv;
use super::matmul::dot;
use crate::device::{Heads, Span};

/// Each row attends to positions `[max(0, p + 1 − window), p]` of its sequence; `out[T, H·S]`.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    qkv: &[f32],
    heads: Heads,
    kv: &Kv,
    layer: usize,
    spans: &[Span],
    window: usize,
    scale: f32,
    out: &mut [f32],
) {
    for span in spans {
        for (i, t) in span.rows.clone().enumerate() {
            let end = span.position + i + 1;
            let seen = if window == 0 { 0 } else { end.saturating_sub(window) }..end;
            for h in 0..heads.q {
                let q = &qkv[t * heads.row() + h * heads.size..][..heads.size];
                let kv_head = h / (heads.q / heads.kv) * heads.size;
                let rows = seen.clone().map(|p| {
                    let (k, v) = kv.row(layer, &span.pages, p);
                    (dot(q, &k[kv_head..][..heads.size]) * scale, &v[kv_head..][..heads.size])
                });
                weighted_mean(rows.collect(), &mut out[(t * heads.q + h) * heads.size..][..heads.size]);
            }
        }
    }
}

/// `out = Σ softmax(score) · value`.
fn weighted_mean(rows: Vec<(f32, &[f32])>, out: &mut [f32]) {
    let max = rows.iter().fold(f32::NEG_INFINITY, |max, r| max.max(r.0));
    let total: f32 = rows.iter().map(|r| (r.0 - max).exp()).sum();
    out.fill(0.0);
    for (score, value) in rows {
        let weight = (score - max).exp() / total;
        out.iter_mut().zip(value).for_each(|(o, v)| *o += weight * v);
    }
}

//! Mixtures of experts (Shazeer et al., arXiv 1701.06538): which experts a row goes to, and their sum.

use crate::device::Route;

/// The `top` experts with the largest logits of each row, ascending by expert; of equal logits the first. Weights are the
/// softmax over all experts, divided by their sum where `normalise`.
pub fn route(logits: &[f32], experts: usize, top: usize, normalise: bool, rows: usize) -> Vec<Route> {
    logits.chunks_exact(experts).take(rows).map(|logits| one(logits, top, normalise)).collect()
}

fn one(logits: &[f32], top: usize, normalise: bool) -> Route {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let max = logits[order[0]];
    let total = |chosen: &[usize]| chosen.iter().map(|&e| (logits[e] - max).exp()).sum::<f32>();
    let (all, chosen) = (total(&order), &mut order[..top]);
    let divisor = if normalise { total(chosen) } else { all };
    chosen.sort_unstable();
    chosen.iter().map(|&e| (e, (logits[e] - max).exp() / divisor)).collect()
}

/// `out[rows[i], :] += weights[i] · x[i, :]`.
pub fn scatter_add(x: &[f32], rows: &[usize], weights: &[f32], width: usize, out: &mut [f32]) {
    for (i, (&row, weight)) in rows.iter().zip(weights).enumerate() {
        let out = &mut out[row * width..][..width];
        out.iter_mut().zip(&x[i * width..]).for_each(|(o, v)| *o += weight * v);
    }
}

//! Choosing a token: the whole vocabulary sorted, then cut.
//!
//! The law: candidates are ordered by descending probability, ties by ascending token. Top-k keeps a prefix; top-p
//! keeps the shortest prefix of what is left that has at least the wanted share of its mass; min-p keeps those with
//! at least that fraction of the largest probability. The draw walks the kept tokens in ascending order and takes the
//! first whose cumulative mass exceeds `uniform` times the total. NaN logits count as −∞, +∞ as the largest float.

use crate::device::{OutputRow, Pick, Picked, SampleParams, NO_TOKEN};

/// Token and its probability, not necessarily of total 1.
pub type Candidate = (u32, f32);

/// The answer for one row of logits, which is edited in place.
pub fn pick(logits: &mut [f32], row: &OutputRow) -> Picked {
    logits.iter_mut().for_each(|x| *x = tame(*x));
    let raw = logits.to_vec();
    let token = match &row.pick {
        Pick::Given(token) => *token,
        Pick::Sample(params) => {
            edit(logits, params);
            choose(logits, params)
        }
    };
    report(&raw, row, token)
}

/// NaN becomes −∞, +∞ the largest float and −0 plain 0, so that comparisons and differences mean something.
pub fn tame(x: f32) -> f32 {
    match x.is_nan() {
        true => f32::NEG_INFINITY,
        false => x.min(f32::MAX) + 0.0,
    }
}

/// Applies mask, edits and repetition penalty, in this order.
pub fn edit(logits: &mut [f32], params: &SampleParams) {
    if let Some(allowed) = &params.allowed {
        logits.chunks_mut(32).zip(allowed.iter()).for_each(|(logits, &allowed)| forbid(logits, !allowed));
    }
    for &(token, delta) in &params.edits {
        logits[token as usize] = tame(logits[token as usize] + delta);
    }
    let penalty = params.repetition_penalty;
    for &token in &params.seen {
        let x = &mut logits[token as usize];
        *x = tame(if *x > 0.0 { *x / penalty } else { *x * penalty });
    }
}

/// Of 32 tokens those whose bits are set. Most words of a mask are all of one kind.
fn forbid(logits: &mut [f32], mut bits: u32) {
    if bits == u32::MAX {
        return logits.fill(f32::NEG_INFINITY);
    }
    while bits != 0 {
        if let Some(x) = logits.get_mut(bits.trailing_zeros() as usize) {
            *x = f32::NEG_INFINITY;
        }
        bits &= bits - 1;
    }
}

fn choose(logits: &[f32], params: &SampleParams) -> u32 {
    let mut order: Vec<Candidate> = (0..).zip(logits.iter().copied()).filter(|c| c.1 > f32::NEG_INFINITY).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let Some(&(first, max)) = order.first() else { return NO_TOKEN };
    if params.temperature <= 0.0 {
        return first;
    }
    order.iter_mut().for_each(|c| c.1 = ((c.1 - max) / params.temperature).exp());
    truncate(&mut order, params);
    order.sort_by_key(|c| c.0);
    draw(&order, params.uniform)
}

fn truncate(order: &mut Vec<Candidate>, params: &SampleParams) {
    if params.top_k > 0 {
        order.truncate(params.top_k as usize);
    }
    if params.top_p < 1.0 {
        let target = f64::from(params.top_p) * mass(order);
        let mut sum = 0.0;
        let short = order.iter().take_while(|c| {
            sum += f64::from(c.1);
            sum < target
        });
        order.truncate(short.count() + 1);
    }
    let least = params.min_p * order[0].1;
    order.retain(|c| c.1 >= least);
}

fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.1)).sum()
}

/// Inverse CDF over candidates in ascending token order.
pub fn draw(candidates: &[Candidate], uniform: f32) -> u32 {
    let target = f64::from(uniform) * mass(candidates);
    let mut sum = 0.0;
    let found = candidates.iter().find(|c| {
        sum += f64::from(c.1);
        sum > target
    });
    found.or(candidates.last()).map_or(0, |c| c.0)
}

/// Log-probabilities of the raw logits, as far as `row` asks for them.
fn report(raw: &[f32], row: &OutputRow, token: u32) -> Picked {
    if !row.logprob {
        return Picked { token, ..Picked::default() };
    }
    let max = raw.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = raw.iter().map(|x| f64::from(x - max).exp()).sum();
    // Where nothing has any probability, every logarithm is −∞.
    let log_total = (max + sum.ln() as f32).max(f32::MIN);
    let logprob = |token: u32| raw.get(token as usize).map_or(f32::NEG_INFINITY, |x| x - log_total);
    let mut order: Vec<u32> = (0..raw.len() as u32).collect();
    order.sort_by(|&a, &b| raw[b as usize].total_cmp(&raw[a as usize]).then(a.cmp(&b)));
    Picked {
        token,
        logprob: logprob(token),
        top: order.iter().take(row.top).map(|&t| (t, logprob(t))).collect(),
        of_tokens: row.of_tokens.iter().map(|&t| (t, logprob(t))).collect(),
    }
}

//! Choosing tokens without sorting the vocabulary.
//!
//! The law: the same choice as `reference::sample` makes. What is cut off (top-k, top-p, min-p) is the end of one
//! order, descending by logit with ties by ascending token; so it is enough to gather the tokens above a threshold
//! that holds them all, and to select among those. Rows are independent; each runs on one thread.

use super::pool::Pool;
use super::simd::{fold, Isa, Kernel, Simd};
use crate::device::{OutputRow, Pick, Picked, SampleParams, NO_TOKEN};
use crate::reference::sample::{edit, tame};
use std::cmp::Ordering;
use std::f32::consts::LOG2_E;

/// Thresholds on probability / largest probability, tried in turn until enough tokens are above.
const THRESHOLDS: [f32; 3] = [1.0 / 256.0, 1.0 / 65_536.0, 0.0];
/// Tokens whose masses are added up before the draw looks into them one by one.
const STRETCH: usize = 256;

/// A token, its logit, and its probability relative to the largest.
#[derive(Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    weight: f32,
}

/// The answers for `rows` rows of `vocab` logits, which are edited in place.
pub fn sample(isa: Isa, pool: &mut Pool, logits: &mut [f32], vocab: usize, rows: &[OutputRow]) -> Vec<Picked> {
    let mut answers: Vec<_> = logits.chunks_exact_mut(vocab.max(1)).zip(rows).map(|(l, r)| (l, r, None)).collect();
    pool.each(&mut answers, |_, (logits, row, answer)| *answer = Some(pick(isa, logits, row)));
    answers.into_iter().filter_map(|a| a.2).collect()
}

fn pick(isa: Isa, logits: &mut [f32], row: &OutputRow) -> Picked {
    let max = isa.run(Tame(logits));
    let mut picked = Picked::default();
    let log_total = if row.logprob { isa.run(LogTotal { logits, max }) } else { 0.0 };
    if row.logprob {
        picked.top = top(logits, row.top).iter().map(|c| (c.token, c.logit - log_total)).collect();
        picked.of_tokens = row.of_tokens.iter().map(|&t| (t, logits[t as usize] - log_total)).collect();
    }
    let (token, logit) = match &row.pick {
        Pick::Given(token) => (*token, logits[*token as usize]),
        Pick::Sample(params) => sampled(isa, logits, params),
    };
    picked.token = token;
    if row.logprob {
        picked.logprob = logit - log_total;
    }
    picked
}

/// The sampled token and its raw logit.
fn sampled(isa: Isa, logits: &mut [f32], params: &SampleParams) -> (u32, f32) {
    let edited = params.edits.iter().map(|e| e.0).chain(params.seen.iter().copied());
    let raw: Vec<(u32, f32)> = edited.map(|t| (t, logits[t as usize])).collect();
    edit(logits, params);
    let token = choose(isa, logits, params);
    let before = raw.iter().find(|r| r.0 == token).map(|r| r.1);
    (token, before.or(logits.get(token as usize).copied()).unwrap_or(f32::NEG_INFINITY))
}

fn choose(isa: Isa, logits: &[f32], params: &SampleParams) -> u32 {
    let max = isa.run(Max(logits));
    if max == f32::NEG_INFINITY {
        return NO_TOKEN;
    }
    if params.temperature <= 0.0 {
        return logits.iter().position(|&x| x == max).unwrap_or(0) as u32;
    }
    if params.top_k == 0 && params.top_p >= 1.0 && params.min_p <= 0.0 {
        return draw_from_all(isa, logits, max, params);
    }
    let mut kept = kept(isa, logits, max, params);
    kept.sort_unstable_by_key(|c| c.token);
    draw(&kept, params.uniform)
}

/// What top-k, top-p and min-p leave.
fn kept(isa: Isa, logits: &[f32], max: f32, params: &SampleParams) -> Vec<Candidate> {
    let k = if params.top_k == 0 { usize::MAX } else { params.top_k as usize };
    let total = match params.top_k == 0 && params.top_p < 1.0 {
        true => isa.run(Total { logits, max, temperature: params.temperature }),
        false => 0.0,
    };
    let is_enough = |threshold: f32, c: &[Candidate]| match params.top_k {
        0 => threshold <= params.min_p || params.top_p < 1.0 && mass(c) >= f64::from(params.top_p) * total,
        _ => c.len() >= k,
    };
    let mut candidates = Vec::new();
    for threshold in THRESHOLDS {
        candidates = above(logits, max, params.temperature, threshold);
        if is_enough(threshold, &candidates) {
            break;
        }
    }
    if candidates.len() > k {
        candidates.select_nth_unstable_by(k - 1, descending);
        candidates.truncate(k);
    }
    if params.top_p < 1.0 {
        let total = if params.top_k == 0 { total } else { mass(&candidates) };
        let len = nucleus(&mut candidates, f64::from(params.top_p) * total);
        candidates.truncate(len);
    }
    candidates.retain(|c| c.weight >= params.min_p);
    candidates
}

fn descending(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

fn mass(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|c| f64::from(c.weight)).sum()
}

/// Tokens whose probability is at least `threshold` times the largest, in ascending order.
fn above(logits: &[f32], max: f32, temperature: f32, threshold: f32) -> Vec<Candidate> {
    let weight = |logit: f32| ((logit - max) / temperature).exp();
    let least = max + temperature * threshold.ln();
    let found = (0..).zip(logits).filter(|(_, &x)| x >= least && x > f32::NEG_INFINITY);
    found.map(|(token, &logit)| Candidate { token, logit, weight: weight(logit) }).collect()
}

/// Length of the shortest prefix (in descending order) that has at least `target` mass; moves that prefix to the
/// front. Each round looks at half of what the round before did.
fn nucleus(candidates: &mut [Candidate], target: f64) -> usize {
    let (mut start, mut end, mut before) = (0, candidates.len(), 0.0);
    while end - start > 1 {
        let middle = (start + end) / 2;
        candidates[start..end].select_nth_unstable_by(middle - start, descending);
        let with_half = before + mass(&candidates[start..middle]);
        if with_half >= target {
            end = middle;
        } else {
            (start, before) = (middle, with_half);
        }
    }
    end
}

/// Inverse CDF over candidates in ascending token order.
fn draw(candidates: &[Candidate], uniform: f32) -> u32 {
    let target = f64::from(uniform) * mass(candidates);
    let mut sum = 0.0;
    let found = candidates.iter().find(|c| {
        sum += f64::from(c.weight);
        sum > target
    });
    found.or(candidates.last()).map_or(0, |c| c.token)
}

/// The same over the whole vocabulary: first the stretch, then the token in it.
fn draw_from_all(isa: Isa, logits: &[f32], max: f32, params: &SampleParams) -> u32 {
    let temperature = params.temperature;
    let masses = isa.run(Masses { logits, max, temperature });
    let target = f64::from(params.uniform) * masses.iter().sum::<f64>();
    let mut sum = 0.0;
    let found = masses.iter().position(|mass| {
        sum += mass;
        sum > target
    });
    let stretch = found.or(masses.iter().rposition(|&mass| mass > 0.0)).unwrap_or(0);
    let rest = target - masses[..stretch].iter().sum::<f64>();
    let tokens = &logits[stretch * STRETCH..logits.len().min((stretch + 1) * STRETCH)];
    let mut sum = 0.0;
    let found = tokens.iter().position(|&x| {
        sum += f64::from(((x - max) / temperature).exp());
        sum > rest
    });
    let last = || tokens.iter().rposition(|&x| x > f32::NEG_INFINITY).unwrap_or(0);
    (stretch * STRETCH + found.unwrap_or_else(last)) as u32
}

/// The `count` largest logits, in descending order.
fn top(logits: &[f32], count: usize) -> Vec<Candidate> {
    let mut best: Vec<Candidate> = Vec::with_capacity(count + 1);
    for (token, &logit) in (0..).zip(logits) {
        let is_full = best.len() == count;
        if is_full && best.last().is_none_or(|last| last.logit >= logit) {
            continue;
        }
        let at = best.partition_point(|c| c.logit >= logit);
        best.insert(at, Candidate { token, logit, weight: 0.0 });
        best.truncate(count);
    }
    best
}

/// Makes logits comparable (see [`tame`]) and finds the largest.
struct Tame<'a>(&'a mut [f32]);

impl Kernel for Tame<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        self.0.iter_mut().for_each(|x| *x = tame(*x));
        Max(self.0).run(s)
    }
}

struct Max<'a>(&'a [f32]);

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let lowest = f32::NEG_INFINITY;
        s.largest(fold!(s, self.0, s.splat(lowest), lowest, |max, x| s.max(x, max)))
    }
}

/// `ln Σ e^logit`; the lowest number where no logit has any mass.
struct LogTotal<'a> {
    logits: &'a [f32],
    max: f32,
}

impl Kernel for LogTotal<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let LogTotal { logits, max } = self;
        let total = Total { logits, max, temperature: 1.0 }.run(s);
        (max + total.ln() as f32).max(f32::MIN)
    }
}

/// `Σ e^((logit − max) / temperature)`.
struct Total<'a> {
    logits: &'a [f32],
    max: f32,
    temperature: f32,
}

impl Kernel for Total<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        let Total { logits, max, temperature } = self;
        Masses { logits, max, temperature }.run(s).iter().sum()
    }
}

/// The same of each stretch of tokens.
struct Masses<'a> {
    logits: &'a [f32],
    max: f32,
    temperature: f32,
}

impl Kernel for Masses<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<f64> {
        let (max, temperature) = (s.splat(self.max), s.splat(self.temperature));
        // No power is smaller; what is masked must count nothing at all.
        let least = s.pow2(s.splat(f32::NEG_INFINITY));
        let stretches = self.logits.chunks(STRETCH);
        let mut masses = Vec::with_capacity(stretches.len());
        for stretch in stretches {
            let sum = fold!(s, stretch, s.zero(), f32::NEG_INFINITY, |sum, x| {
                let weight = s.pow2(s.mul(s.div(s.sub(x, max), temperature), s.splat(LOG2_E)));
                s.add(sum, s.max(s.sub(weight, least), s.zero()))
            });
            masses.push(f64::from(s.sum(sum)));
        }
        masses
    }
}

//! Attention over pages of integers.
//!
//! The law: scores are exact sums of products of integers, multiplied by the scales of key and query. Weights, multiplied
//! by the scales of the values, are rounded to 16 bits with a step of each query and split, so that the weighted sum of
//! the integers fits 32 bits and is exact as well.

use super::tile::{Pages, Split, Tile};
use super::PAGES;
use crate::cpu::kv::quant::{Block, Quant, Quants};
use crate::cpu::simd::{Simd, LANES};
use crate::cpu::steps::Steps;
use crate::device::PAGE;

/// Weights of one query, in pairs.
type Weights = [[i32; PAGE / 2]; PAGES];

impl<E: Quant> Pages for Quants<E> {
    type Block<'a>
        = Block<'a, E>
    where
        E: 'a;
    type Word = i32;
    type Weights = Weights;
    const NONE: Weights = [[0; PAGE / 2]; PAGES];

    #[inline(always)]
    fn block(&self, number: usize) -> Block<'_, E> {
        Quants::block(self, number)
    }

    fn words(size: usize) -> usize {
        size.div_ceil(2)
    }

    #[inline(always)]
    fn ready<S: Simd, const Q: usize>(&self, s: S, query: &[f32], scale: f32, i: usize, words: &mut [[i32; Q]]) -> f32 {
        let steps = Steps::of(s, query, i16::range(query.len()));
        for (x, words) in query.chunks(LANES).zip(words.chunks_mut(LANES / 2)) {
            for (word, pair) in words.iter_mut().zip(steps.pairs(s, x)) {
                word[i] = pair;
            }
        }
        steps.step * scale
    }

    /// `Σ_d q[d] · key[d]`, in steps of the query.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        queries: &[[i32; Q]],
        blocks: &[Block<E>; P],
    ) -> [[S::F; Q]; P] {
        let mut pages = [&[][..]; P];
        for p in 0..P {
            pages[p] = &blocks[p].keys[..queries.len()];
        }
        let mut dots = [[s.splat_i(0); Q]; P];
        for (d, words) in queries.iter().enumerate() {
            let mut keys = [E::load(s, &pages[0][d]); P];
            for p in 1..P {
                keys[p] = E::load(s, &pages[p][d]);
            }
            for i in 0..Q {
                for p in 0..P {
                    dots[p][i] = s.dot_pairs(dots[p][i], keys[p], words[i]);
                }
            }
        }
        let mut scores = [[s.zero(); Q]; P];
        for p in 0..P {
            let steps = s.load(&blocks[p].scales[0]);
            for i in 0..Q {
                scores[p][i] = s.mul(s.float(dots[p][i]), steps);
            }
        }
        scores
    }

    #[inline(always)]
    fn soften<S: Simd, const Q: usize>(
        &self,
        s: S,
        tile: &Tile<i32, Q>,
        split: &mut Split<Self, Q>,
        max: [f32; Q],
    ) -> [f32; Q] {
        let (mut total, mut sum, mut most) = ([s.zero(); Q], [s.zero(); Q], [s.zero(); Q]);
        for i in 0..Q {
            let view = tile.view(i, split.start);
            let (factor, offset, whole) = (s.splat(view.factor), s.splat(-max[i] * view.factor), view.whole());
            for (page, (scores, block)) in split.scores[i].iter_mut().zip(split.blocks).enumerate() {
                let mut weight = s.pow2(s.mul_add(s.load(scores), factor, offset));
                let mut steps = s.load(&block.scales[1]);
                if !whole.contains(&page) {
                    let seen = view.lanes(page);
                    weight = s.within(seen.clone(), weight, s.zero());
                    steps = s.within(seen, steps, s.zero());
                }
                let scaled = s.mul(weight, steps);
                (total[i], sum[i], most[i]) = (s.add(total[i], weight), s.add(sum[i], scaled), s.max(scaled, most[i]));
                s.store(scaled, scores);
            }
        }
        let mut totals = [0.0; Q];
        for i in 0..Q {
            let (sum, most) = (s.sum(sum[i]), s.largest(most[i]));
            // Rounding adds at most a half for each position of the split.
            let room = (i32::MAX as f32 / self.range() - 256.0) / sum;
            let inverse = if most > 0.0 { room.min(f32::from(i16::MAX) / most) } else { 0.0 };
            for (scores, pairs) in split.scores[i].iter().zip(&mut split.weights[i]).take(split.blocks.len()) {
                *pairs = s.narrow_pairs(s.mul(s.load(scores), s.splat(inverse)));
            }
            split.steps[i] = if most > 0.0 { 1.0 / inverse } else { 0.0 };
            totals[i] = s.sum(total[i]);
        }
        totals
    }

    #[inline(always)]
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        tile: &Tile<i32, Q>,
        split: &Split<Self, Q>,
        partial: &mut [f32],
    ) {
        let mut sums = [[s.splat_i(0); C]; Q];
        // A split has no more; said again, weights are not checked for their number at each page (5 % of a shared prefix).
        for (page, block) in split.blocks.iter().enumerate().take(PAGES) {
            let values: &[_; C] = block.values[c..].first_chunk().expect("C vectors from c");
            for (pair, first) in values[0].iter().enumerate() {
                let mut loaded = [E::load(s, first); C];
                for j in 1..C {
                    loaded[j] = E::load(s, &values[j][pair]);
                }
                for (sums, weights) in sums.iter_mut().zip(&*split.weights) {
                    for j in 0..C {
                        sums[j] = s.dot_pairs(sums[j], loaded[j], weights[page][pair]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let out = partial[i * tile.stride + c * LANES..].as_chunks_mut().0;
            for (out, &sum) in out.iter_mut().zip(sums) {
                s.store(s.mul(s.float(sum), s.splat(split.steps[i])), out);
            }
        }
    }
}

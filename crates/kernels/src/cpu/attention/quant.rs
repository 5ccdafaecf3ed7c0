//! Attention over pages of integers.
//!
//! The law: scores are exact sums of products of integers, multiplied by the scales of key and query. Weights, multiplied
//! by the scales of the values, are rounded to 16 bits with a step of each query and split, so that the weighted sum of
//! the integers fits 32 bits and is exact as well.

use super::tile::{Pages, Scores, Split, Tile, View};
use super::PAGES;
use crate::cpu::kv::quant::{Quant, Quants};
use crate::cpu::simd::{Simd, LANES};
use crate::cpu::steps::Steps;
use crate::device::PAGE;

/// Weights of one query.
#[derive(Clone, Copy)]
pub struct Weights {
    /// By page, in pairs.
    pairs: [[i32; PAGE / 2]; PAGES],
    /// What they count.
    step: f32,
}

impl<E: Quant> Pages for Quants<E> {
    type Word = i32;
    type Weights = Weights;
    const NONE: Weights = Weights { pairs: [[0; PAGE / 2]; PAGES], step: 0.0 };

    fn words(size: usize) -> usize {
        size.div_ceil(2)
    }

    #[inline(always)]
    fn ready<S: Simd>(&self, s: S, query: &[f32], scale: f32, words: &mut [i32]) -> f32 {
        let steps = Steps::of(s, query, i16::range(query.len()));
        for (x, words) in query.chunks(LANES).zip(words.chunks_mut(LANES / 2)) {
            words.copy_from_slice(&steps.pairs(s, x)[..words.len()]);
        }
        steps.step * scale
    }

    /// `Σ_d q[d] · key[d]`, in steps of the query.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        queries: [&[i32]; Q],
        blocks: &[usize; P],
    ) -> [[S::F; Q]; P] {
        let len = queries[0].len();
        let (mut pages, mut words) = ([&[][..]; P], [&[][..]; Q]);
        for p in 0..P {
            pages[p] = &self.block(blocks[p]).keys[..len];
        }
        for i in 0..Q {
            words[i] = &queries[i][..len];
        }
        let mut dots = [[s.splat_i(0); Q]; P];
        for d in 0..len {
            let mut keys = [E::load(s, &pages[0][d]); P];
            for p in 1..P {
                keys[p] = E::load(s, &pages[p][d]);
            }
            for i in 0..Q {
                for p in 0..P {
                    dots[p][i] = s.dot_pairs(dots[p][i], keys[p], words[i][d]);
                }
            }
        }
        let mut scores = [[s.zero(); Q]; P];
        for p in 0..P {
            let steps = s.load(&self.block(blocks[p]).scales[0]);
            for i in 0..Q {
                scores[p][i] = s.mul(s.float(dots[p][i]), steps);
            }
        }
        scores
    }

    #[inline(always)]
    fn soften<S: Simd>(&self, s: S, view: View, max: f32, scores: &mut Scores, weights: &mut Weights) -> f32 {
        let (factor, offset) = (s.splat(view.factor), s.splat(-max * view.factor));
        let (mut total, mut sum, mut most) = (s.zero(), s.zero(), s.zero());
        for (page, (scores, &block)) in scores.iter_mut().zip(view.blocks).enumerate() {
            let mut weight = s.pow2(s.mul_add(s.load(scores), factor, offset));
            let mut scaled = s.mul(weight, s.load(&self.block(block).scales[1]));
            if !view.is_whole(page) {
                let seen = view.lanes(page);
                weight = s.within(seen.clone(), weight, s.zero());
                scaled = s.within(seen, scaled, s.zero());
            }
            total = s.add(total, weight);
            (sum, most) = (s.add(sum, scaled), s.max(scaled, most));
            s.store(scaled, scores);
        }
        let (sum, most) = (s.sum(sum), s.largest(most));
        // Rounding adds at most a half for each position of the split.
        let room = (i32::MAX as f32 / self.range() - 256.0) / sum;
        let inverse = if most > 0.0 { room.min(f32::from(i16::MAX) / most) } else { 0.0 };
        for (scores, pairs) in scores.iter().zip(&mut weights.pairs).take(view.blocks.len()) {
            *pairs = s.narrow_pairs(s.mul(s.load(scores), s.splat(inverse)));
        }
        weights.step = if most > 0.0 { 1.0 / inverse } else { 0.0 };
        s.sum(total)
    }

    #[inline(always)]
    fn value_vectors(&self) -> usize {
        Quants::value_vectors(self)
    }

    #[inline(always)]
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        tile: &Tile<i32, Q>,
        split: &Split<Weights, Q>,
        partial: &mut [f32],
    ) {
        let count = Quants::value_vectors(self);
        let (mut sums, weights) = ([[s.splat_i(0); C]; Q], &*split.weights);
        for (page, &block) in split.blocks.iter().enumerate() {
            let values = self.block(block).values;
            for pair in 0..PAGE / 2 {
                let values: &[_; C] = values[pair * count + c..].first_chunk().expect("C vectors from c");
                let mut loaded = [E::load(s, &values[0]); C];
                for j in 1..C {
                    loaded[j] = E::load(s, &values[j]);
                }
                for i in 0..Q {
                    for j in 0..C {
                        sums[i][j] = s.dot_pairs(sums[i][j], loaded[j], weights[i].pairs[page][pair]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let out = partial[i * tile.stride + c * LANES..].as_chunks_mut().0;
            for (out, &sum) in out.iter_mut().zip(sums) {
                s.store(s.mul(s.float(sum), s.splat(split.weights[i].step)), out);
            }
        }
    }
}

//! Attention over pages of integers.
//!
//! The law: scores are exact sums of products of integers, multiplied by the scales of key and query. Weights, multiplied
//! by the scales of the values, are rounded to 16 bits with a step of each query and split, so that the weighted sum of
//! the integers fits 32 bits and is exact as well.

use super::{Pages, Tile, PAGES, TAIL};
use crate::cpu::kv::quant::{Quant, Quants, Steps};
use crate::cpu::simd::{Simd, LANES};
use crate::device::PAGE;

/// Weights of one page as pairs, as the values are multiplied with them.
type Pairs = [i32; PAGE / 2];

impl<E: Quant> Pages for Quants<E> {
    type Word = i32;

    #[inline(always)]
    fn ready<S: Simd, const Q: usize>(&self, s: S, query: &[f32], scale: f32, i: usize, tile: &mut Tile<i32, Q>) {
        let steps = Steps::of(s, query, i16::range(query.len()));
        tile.words.resize(self.key_vectors(), [0; Q]);
        for (x, words) in query.chunks(LANES).zip(tile.words.chunks_mut(LANES / 2)) {
            words.iter_mut().zip(steps.pairs(s, x)).for_each(|(words, pair)| words[i] = pair);
        }
        tile.factors[i] = steps.step * scale;
    }

    #[inline(always)]
    fn partial<S: Simd, const Q: usize, const P: usize, const C: usize>(
        &self,
        s: S,
        tile: &Tile<i32, Q>,
        start: usize,
        blocks: &[usize],
        partial: &mut [f32],
    ) {
        let mut scores = [[[0.0; LANES]; PAGES]; Q];
        let largest = self.scores::<S, Q, P>(s, tile, start, blocks, &mut scores);
        let (mut weights, mut steps) = ([[[0; PAGE / 2]; PAGES]; Q], [0.0; Q]);
        for i in 0..Q {
            let max = s.largest(largest[i]);
            let (total, step) = self.soften(s, tile, i, start, blocks, max, &mut scores[i], &mut weights[i]);
            steps[i] = step;
            let tail = (i + 1) * tile.stride - TAIL;
            partial[tail..tail + 2].copy_from_slice(&[max, total]);
        }
        let count = self.value_vectors();
        let wide = count / C * C;
        for c in (0..wide).step_by(C) {
            self.values::<S, Q, C>(s, c, blocks, &weights, &steps, tile.stride, partial);
        }
        for c in wide..count {
            self.values::<S, Q, 1>(s, c, blocks, &weights, &steps, tile.stride, partial);
        }
    }
}

impl<E: Quant> Quants<E> {
    /// Scores of the pages, −∞ where a row does not see, and the largest of each lane.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        tile: &Tile<i32, Q>,
        start: usize,
        blocks: &[usize],
        scores: &mut [[[f32; LANES]; PAGES]; Q],
    ) -> [S::F; Q] {
        let mut largest = [s.splat(f32::NEG_INFINITY); Q];
        let mut page = 0;
        while page < blocks.len() {
            let mut dots = [[s.splat_i(0); Q]; P];
            let several = blocks[page..].first_chunk::<P>();
            match several {
                Some(blocks) => dots = self.dots::<S, Q, P>(s, &tile.words, blocks),
                None => dots[0] = self.dots::<S, Q, 1>(s, &tile.words, &[blocks[page]])[0],
            }
            for dots in &dots[..several.map_or(1, |n| n.len())] {
                let steps = s.load(&self.block(blocks[page]).scales[0]);
                for i in 0..Q {
                    let score = s.mul(s.float(dots[i]), s.mul(steps, s.splat(tile.factors[i])));
                    let score = s.within(tile.lanes(i, start + page), score, s.splat(f32::NEG_INFINITY));
                    largest[i] = s.max(score, largest[i]);
                    s.store(score, &mut scores[i][page]);
                }
                page += 1;
            }
        }
        largest
    }

    /// `Σ_d q[d] · key[d]` of `P` pages.
    #[inline(always)]
    fn dots<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        queries: &[[i32; Q]],
        blocks: &[usize; P],
    ) -> [[S::I; Q]; P] {
        let mut pages = [&[][..]; P];
        for p in 0..P {
            pages[p] = &self.block(blocks[p]).keys[..queries.len()];
        }
        let mut dots = [[s.splat_i(0); Q]; P];
        for (d, q) in queries.iter().enumerate() {
            let mut keys = [E::load(s, &pages[0][d]); P];
            for p in 1..P {
                keys[p] = E::load(s, &pages[p][d]);
            }
            for i in 0..Q {
                for p in 0..P {
                    dots[p][i] = s.dot_pairs(dots[p][i], keys[p], q[i]);
                }
            }
        }
        dots
    }

    /// Turns the scores of query `i` into weights; returns their total and the step of the weights.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn soften<S: Simd, const Q: usize>(
        &self,
        s: S,
        tile: &Tile<i32, Q>,
        i: usize,
        start: usize,
        blocks: &[usize],
        max: f32,
        scores: &mut [[f32; LANES]; PAGES],
        weights: &mut [Pairs; PAGES],
    ) -> (f32, f32) {
        let (mut total, mut sum, mut most) = (s.zero(), s.zero(), s.zero());
        for (page, (scores, &block)) in scores.iter_mut().zip(blocks).enumerate() {
            let seen = tile.lanes(i, start + page);
            let weight = s.within(seen.clone(), s.pow2(s.sub(s.load(scores), s.splat(max))), s.zero());
            total = s.add(total, weight);
            let scaled = s.mul(weight, s.load(&self.block(block).scales[1]));
            let scaled = s.within(seen, scaled, s.zero());
            (sum, most) = (s.add(sum, scaled), s.max(scaled, most));
            s.store(scaled, scores);
        }
        let (sum, most) = (s.sum(sum), s.largest(most));
        // Rounding adds at most a half for each position of the split.
        let room = (i32::MAX as f32 / self.range() - 256.0) / sum;
        let inverse = if most > 0.0 { room.min(f32::from(i16::MAX) / most) } else { 0.0 };
        for (scores, weights) in scores.iter().zip(weights).take(blocks.len()) {
            *weights = s.narrow_pairs(s.mul(s.load(scores), s.splat(inverse)));
        }
        (s.sum(total), if most > 0.0 { 1.0 / inverse } else { 0.0 })
    }

    /// `C` vectors of the weighted sum of values, from vector `c` on.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        blocks: &[usize],
        weights: &[[Pairs; PAGES]; Q],
        steps: &[f32; Q],
        stride: usize,
        partial: &mut [f32],
    ) {
        let count = self.value_vectors();
        let mut sums = [[s.splat_i(0); C]; Q];
        for (page, &block) in blocks.iter().enumerate() {
            for (pair, values) in self.block(block).values.chunks_exact(count).enumerate() {
                let values: &[_; C] = values[c..].first_chunk().expect("C vectors from c");
                let mut loaded = [E::load(s, &values[0]); C];
                for j in 1..C {
                    loaded[j] = E::load(s, &values[j]);
                }
                for i in 0..Q {
                    for j in 0..C {
                        sums[i][j] = s.dot_pairs(sums[i][j], loaded[j], weights[i][page][pair]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let out = partial[i * stride + c * LANES..].as_chunks_mut().0;
            for (out, &sum) in out.iter_mut().zip(sums) {
                s.store(s.mul(s.float(sum), s.splat(steps[i])), out);
            }
        }
    }
}

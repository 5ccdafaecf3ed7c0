//! Attention over pages of floats.

use super::{Pages, Tile, PAGES, TAIL};
use crate::cpu::kv::float::Floats;
use crate::cpu::simd::{Element, Simd, LANES};
use crate::cpu::slab::Plain;
use crate::device::PAGE;

impl<E: Element + Plain> Pages for Floats<E> {
    type Word = f32;

    #[inline(always)]
    fn ready<S: Simd, const Q: usize>(&self, _: S, query: &[f32], scale: f32, i: usize, tile: &mut Tile<f32, Q>) {
        tile.words.resize(query.len(), [0.0; Q]);
        tile.words.iter_mut().zip(query).for_each(|(words, q)| words[i] = q * scale);
    }

    #[inline(always)]
    fn partial<S: Simd, const Q: usize, const P: usize, const C: usize>(
        &self,
        s: S,
        tile: &Tile<f32, Q>,
        start: usize,
        blocks: &[usize],
        partial: &mut [f32],
    ) {
        let mut weights = [[[0.0; LANES]; PAGES]; Q];
        let largest = self.scores::<S, Q, P>(s, tile, start, blocks, &mut weights);
        for i in 0..Q {
            let (max, mut total) = (s.largest(largest[i]), s.zero());
            for (page, scores) in weights[i][..blocks.len()].iter_mut().enumerate() {
                let weight = s.pow2(s.sub(s.load(scores), s.splat(max)));
                let weight = s.within(tile.lanes(i, start + page), weight, s.zero());
                total = s.add(total, weight);
                s.store(weight, scores);
            }
            let tail = (i + 1) * tile.stride - TAIL;
            partial[tail..tail + 2].copy_from_slice(&[max, s.sum(total)]);
        }
        let count = self.value_vectors();
        let wide = count / C * C;
        for c in (0..wide).step_by(C) {
            self.values::<S, Q, C>(s, c, tile, start, blocks, &weights, partial);
        }
        for c in wide..count {
            self.values::<S, Q, 1>(s, c, tile, start, blocks, &weights, partial);
        }
    }
}

impl<E: Element + Plain> Floats<E> {
    /// Scores of the pages, −∞ where a row does not see, and the largest of each lane.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        tile: &Tile<f32, Q>,
        start: usize,
        blocks: &[usize],
        scores: &mut [[[f32; LANES]; PAGES]; Q],
    ) -> [S::F; Q] {
        let mut largest = [s.splat(f32::NEG_INFINITY); Q];
        let mut page = 0;
        while page < blocks.len() {
            let mut dots = [[s.zero(); Q]; P];
            let several = blocks[page..].first_chunk::<P>();
            match several {
                Some(blocks) => dots = self.dots::<S, Q, P>(s, &tile.words, blocks),
                None => dots[0] = self.dots::<S, Q, 1>(s, &tile.words, &[blocks[page]])[0],
            }
            for dots in &dots[..several.map_or(1, |n| n.len())] {
                for i in 0..Q {
                    let score = s.within(tile.lanes(i, start + page), dots[i], s.splat(f32::NEG_INFINITY));
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
        queries: &[[f32; Q]],
        blocks: &[usize; P],
    ) -> [[S::F; Q]; P] {
        let mut pages = [&[][..]; P];
        for p in 0..P {
            pages[p] = &self.block(blocks[p]).0[..queries.len()];
        }
        let mut dots = [[s.zero(); Q]; P];
        for (d, q) in queries.iter().enumerate() {
            let mut keys = [s.zero(); P];
            for p in 0..P {
                keys[p] = E::load(s, &pages[p][d]);
            }
            for i in 0..Q {
                let q = s.splat(q[i]);
                for p in 0..P {
                    dots[p][i] = s.mul_add(keys[p], q, dots[p][i]);
                }
            }
        }
        dots
    }

    /// `C` vectors of the weighted sum of values, from vector `c` on. Rows that are not seen are left out, not multiplied.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        tile: &Tile<f32, Q>,
        start: usize,
        blocks: &[usize],
        weights: &[[[f32; LANES]; PAGES]; Q],
        partial: &mut [f32],
    ) {
        let count = self.value_vectors();
        let mut sums = [[s.zero(); C]; Q];
        for (page, &block) in blocks.iter().enumerate() {
            let values = self.block(block).1;
            let rows: [_; Q] = std::array::from_fn(|i| tile.lanes(i, start + page));
            let all = rows.iter().all(|lanes| lanes.len() == PAGE);
            for (t, values) in values.chunks_exact(count).enumerate() {
                let values: &[[E; LANES]; C] = values[c..].first_chunk().expect("C vectors from c");
                for i in 0..Q {
                    if all || rows[i].contains(&t) {
                        let weight = s.splat(weights[i][page][t]);
                        for j in 0..C {
                            sums[i][j] = s.mul_add(E::load(s, &values[j]), weight, sums[i][j]);
                        }
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let out = partial[i * tile.stride + c * LANES..].as_chunks_mut().0;
            for (out, &sum) in out.iter_mut().zip(sums) {
                s.store(sum, out);
            }
        }
    }
}

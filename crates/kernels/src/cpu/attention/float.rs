//! Attention over pages of floats.

use super::tile::{Pages, Split, Tile};
use crate::cpu::kv::float::{Block, Floats};
use crate::cpu::simd::{Element, Simd, LANES};
use crate::cpu::slab::Plain;
use crate::device::PAGE;

impl<E: Element + Plain> Pages for Floats<E> {
    type Block<'a>
        = Block<'a, E>
    where
        E: 'a;
    type Word = f32;
    /// The scores become the weights.
    type Weights = ();
    const NONE: () = ();

    #[inline(always)]
    fn block(&self, number: usize) -> Block<'_, E> {
        Floats::block(self, number)
    }

    fn words(size: usize) -> usize {
        size
    }

    #[inline(always)]
    fn ready<S: Simd, const Q: usize>(&self, _: S, query: &[f32], scale: f32, i: usize, words: &mut [[f32; Q]]) -> f32 {
        for (word, &q) in words.iter_mut().zip(query) {
            word[i] = q;
        }
        scale
    }

    /// `Σ_d q[d] · key[d]`.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        queries: &[[f32; Q]],
        blocks: &[Block<E>; P],
    ) -> [[S::F; Q]; P] {
        let mut pages = [&[][..]; P];
        for p in 0..P {
            pages[p] = &blocks[p].keys[..queries.len()];
        }
        let mut dots = [[s.zero(); Q]; P];
        for (d, words) in queries.iter().enumerate() {
            let mut keys = [s.zero(); P];
            for p in 0..P {
                keys[p] = E::load(s, &pages[p][d]);
            }
            for i in 0..Q {
                let q = s.splat(words[i]);
                for p in 0..P {
                    dots[p][i] = s.mul_add(keys[p], q, dots[p][i]);
                }
            }
        }
        dots
    }

    #[inline(always)]
    fn soften<S: Simd, const Q: usize>(
        &self,
        s: S,
        tile: &Tile<f32, Q>,
        split: &mut Split<Self, Q>,
        max: [f32; Q],
    ) -> [f32; Q] {
        let mut totals = [0.0; Q];
        for i in 0..Q {
            let view = tile.view(i, split.start);
            let (factor, offset, whole) = (s.splat(view.factor), s.splat(-max[i] * view.factor), view.whole());
            let mut total = s.zero();
            for (page, scores) in split.scores[i][..split.blocks.len()].iter_mut().enumerate() {
                let mut weight = s.pow2(s.mul_add(s.load(scores), factor, offset));
                if !whole.contains(&page) {
                    weight = s.within(view.lanes(page), weight, s.zero());
                }
                total = s.add(total, weight);
                s.store(weight, scores);
            }
            totals[i] = s.sum(total);
        }
        totals
    }

    /// Rows that are not seen are left out, not multiplied.
    #[inline(always)]
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        tile: &Tile<f32, Q>,
        split: &Split<Self, Q>,
        partial: &mut [f32],
    ) {
        let count = self.value_vectors();
        let mut sums = [[s.zero(); C]; Q];
        for (page, block) in split.blocks.iter().enumerate() {
            let rows: [_; Q] = std::array::from_fn(|i| tile.view(i, split.start).lanes(page));
            let all = rows.iter().all(|lanes| lanes.len() == PAGE);
            for t in 0..PAGE {
                let values: &[[E; LANES]; C] = block.values[t * count + c..].first_chunk().expect("C vectors from c");
                for i in 0..Q {
                    if all || rows[i].contains(&t) {
                        let weight = s.splat(split.scores[i][page][t]);
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

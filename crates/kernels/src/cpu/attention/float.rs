//! Attention over pages of floats.

use super::tile::{Pages, Scores, Split, Tile, View};
use crate::cpu::kv::float::Floats;
use crate::cpu::simd::{Element, Simd, LANES};
use crate::cpu::slab::Plain;
use crate::device::PAGE;

impl<E: Element + Plain> Pages for Floats<E> {
    type Word = f32;
    /// The scores become the weights.
    type Weights = ();
    const NONE: () = ();

    fn words(size: usize) -> usize {
        size
    }

    #[inline(always)]
    fn ready<S: Simd>(&self, _: S, query: &[f32], scale: f32, words: &mut [f32]) -> f32 {
        words.copy_from_slice(query);
        scale
    }

    /// `Σ_d q[d] · key[d]`.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        queries: [&[f32]; Q],
        blocks: &[usize; P],
    ) -> [[S::F; Q]; P] {
        let len = queries[0].len();
        let (mut pages, mut words) = ([&[][..]; P], [&[][..]; Q]);
        for p in 0..P {
            pages[p] = &self.block(blocks[p]).0[..len];
        }
        for i in 0..Q {
            words[i] = &queries[i][..len];
        }
        let mut dots = [[s.zero(); Q]; P];
        for d in 0..len {
            let mut keys = [s.zero(); P];
            for p in 0..P {
                keys[p] = E::load(s, &pages[p][d]);
            }
            for i in 0..Q {
                let q = s.splat(words[i][d]);
                for p in 0..P {
                    dots[p][i] = s.mul_add(keys[p], q, dots[p][i]);
                }
            }
        }
        dots
    }

    #[inline(always)]
    fn soften<S: Simd>(&self, s: S, view: View, max: f32, scores: &mut Scores, _: &mut ()) -> f32 {
        let (factor, most) = (s.splat(view.factor), s.splat(-max * view.factor));
        let mut total = s.zero();
        for (page, scores) in scores[..view.blocks.len()].iter_mut().enumerate() {
            let mut weight = s.pow2(s.mul_add(s.load(scores), factor, most));
            if !view.is_whole(page) {
                weight = s.within(view.lanes(page), weight, s.zero());
            }
            total = s.add(total, weight);
            s.store(weight, scores);
        }
        s.sum(total)
    }

    #[inline(always)]
    fn value_vectors(&self) -> usize {
        Floats::value_vectors(self)
    }

    /// Rows that are not seen are left out, not multiplied.
    #[inline(always)]
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        tile: &Tile<f32, Q>,
        split: &Split<(), Q>,
        partial: &mut [f32],
    ) {
        let count = Floats::value_vectors(self);
        let mut sums = [[s.zero(); C]; Q];
        for (page, &block) in split.blocks.iter().enumerate() {
            let values = self.block(block).1;
            let rows: [_; Q] = std::array::from_fn(|i| tile.view(i, split.start, split.blocks).lanes(page));
            let all = rows.iter().all(|lanes| lanes.len() == PAGE);
            for t in 0..PAGE {
                let values: &[[E; LANES]; C] = values[t * count + c..].first_chunk().expect("C vectors from c");
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

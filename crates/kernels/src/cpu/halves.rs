//! Products with BF16 weights, for levels that multiply whole tiles of such.
//!
//! The law: an input is the sum of two numbers of BF16, 16 bits of it. Both are multiplied with 32 columns of a weight row at a
//! time, the higher ones first: even columns are one sum of f32, odd ones another, and their sum is added to that of the columns
//! before; numbers below 2⁻¹²⁶ count as 0. Nothing of this depends on how many tokens are multiplied at once, so that one kernel
//! serves all numbers of rows.

use super::ahead;
use super::input::{Inputs, Word};
use super::matmul::{lines, Chunk, Soon, AHEAD};
use super::simd::{HalfTiles, Isa, Kernel, Simd, TileSums, LANES, TILE};
use super::slab::Plain;
use super::tile::{FromValues, Record};
use half::bf16;

/// Columns of a record.
const COLUMNS: usize = 2 * TILE;

/// `[2][k]`, higher and lower parts, for each token.
impl Word for bf16 {
    fn kept(inputs: &mut Inputs) -> &mut Vec<bf16> {
        &mut inputs.halves
    }

    /// Two tiles of 16 share what is loaded of the weights.
    fn width(rows: usize, _: usize) -> usize {
        rows.next_power_of_two().min(2 * TILE)
    }

    fn together(_: usize) -> usize {
        1
    }

    /// An odd number of cache lines, so that the tokens of a tile lie in different places of the cache.
    fn tile(k: usize, _: usize) -> usize {
        (2 * k).next_multiple_of(2 * COLUMNS) + COLUMNS
    }

    #[inline(always)]
    fn feed<S: Simd>(s: S, row: &[f32], k: usize, _: usize, tile: &mut [bf16]) {
        let (high, low) = tile.split_at_mut(k);
        for ((x, high), low) in row.as_chunks().0.iter().zip(high.as_chunks_mut().0).zip(low.as_chunks_mut().0) {
            let x = s.load(x);
            *high = s.to_bf16(x);
            *low = s.to_bf16(s.sub(x, s.load_bf16(high)));
        }
    }
}

/// 32 columns of 16 rows: numbers 2r and 2r + 1 of line p are row r, columns 2p and 2p + 1.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Halves(pub [[bf16; COLUMNS]; TILE]);

// SAFETY: arrays of numbers.
unsafe impl Plain for Halves {}

impl FromValues for Halves {
    fn set(&mut self, row: usize, values: &[f32]) {
        for (k, &v) in values.iter().enumerate() {
            self.0[k / 2][2 * row + k % 2] = bf16::from_f32(v);
        }
    }
}

impl Record for Halves {
    type Word = bf16;
    const STEPS: usize = COLUMNS;

    fn row(&self, row: usize, out: &mut [f32]) {
        for (k, y) in out.iter_mut().enumerate() {
            *y = self.0[k / 2][2 * row + k % 2].to_f32();
        }
    }

    fn multiply_chunk(isa: Isa, chunk: Chunk<Self>, width: usize) {
        isa.run(ByTiles { chunk, few: width < ahead::TOKENS });
    }
}

/// By one or two tiles of tokens and two groups of weights.
struct ByTiles<'a> {
    chunk: Chunk<'a, Halves>,
    /// Whether there are so few tokens that reading the weights is all the work.
    few: bool,
}

impl Kernel for ByTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ByTiles { mut chunk, few } = self;
        let rows = chunk.out.rows.clone();
        let Some(tiles) = s.half_tiles(rows.len().min(TILE)) else { unreachable!("a level of such tiles") };
        let (groups, pairs) = (chunk.out.cols.len().div_ceil(LANES), rows.len().div_ceil(2 * TILE));
        let mut sums = [TileSums::ZERO; 4];
        for group in (0..groups).step_by(2) {
            let (first, next) = chunk.group(group);
            let (second, next) = if group + 1 < groups { chunk.group(group + 1) } else { (first, next) };
            for (index, token) in rows.clone().step_by(2 * TILE).enumerate() {
                let x = &chunk.x[(token - rows.start) * chunk.tile..];
                let places = chunk.places(group, token, 2 * TILE);
                let mut soon = Soon { records: next, asked: index, tiles: pairs, places, ahead: &mut chunk.ahead };
                tiles.clear();
                for (block, (w1, w2)) in first.iter().zip(second).enumerate() {
                    if few {
                        // Into the first-level cache, since the instruction waits for 16 lines: 0.9 of the time of one row.
                        for w in [w1, w2] {
                            for address in lines(w, 0, AHEAD) {
                                s.prefetch_near(address);
                            }
                        }
                    } else {
                        soon.ask(s, 2 * block);
                        soon.ask(s, 2 * block + 1);
                    }
                    let parts = [&x[block * COLUMNS..], &x[(chunk.depth + block) * COLUMNS..]];
                    if token + TILE < rows.end {
                        tiles.multiply::<2>(parts, chunk.tile, [w1, w2]);
                    } else {
                        tiles.multiply::<1>(parts, chunk.tile, [w1, w2]);
                    }
                }
                tiles.store(&mut sums);
                for (i, sums) in sums.iter().enumerate() {
                    let (group, token) = (group + i % 2, token + i / 2 * TILE);
                    if group < groups && token < rows.end {
                        let mut f = [s.zero(); TILE];
                        for (f, sums) in f.iter_mut().zip(&sums.0) {
                            *f = s.load(sums);
                        }
                        chunk.store(s, group, token, &f);
                    }
                }
            }
        }
    }
}

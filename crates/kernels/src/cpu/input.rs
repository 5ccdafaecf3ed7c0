//! Inputs of a product, brought into tiles of tokens.
//!
//! The law: beside quantized weights an input is rounded to int8 per block of 32 (scale = largest / 127). Where the largest
//! value of a block is an outlier of its row, rounding would cost the other 31 too much: such a block is fed in two parts,
//! the second one being what rounding the first has left. Whether a row needs that depends on this row only; a tile has
//! two parts where any of its rows does, and the second part of the others is zero, which changes no sum.

use super::simd::{Simd, LANES, TILE, WHOLE};
use super::steps::Steps;
use super::tile::{Fed, Pair};
use crate::block::BLOCK;
use half::bf16;

/// A block is fed in two parts if its largest value is more than this share of the length (root of the sum of squares) of its
/// row: what rounding it would add to the error of a product. On the default model that is 4.1 % of the blocks, and the
/// most likely token agrees with float32 at 98.2 % of the positions, in place of 96.3 % without.
const OUTLIER: f32 = 1.0 / 3.0;

/// Inputs as the tiles read them, kept for reuse.
#[derive(Default)]
pub struct Inputs {
    quants: Vec<i32>,
    pairs: Vec<Pair>,
    floats: Vec<f32>,
    pub(super) halves: Vec<bf16>,
}

/// A word of the input: knows how rows are brought into tiles of tokens.
pub trait Word: Copy + Default + Send + Sync {
    /// Most tokens of a tile.
    const TOKENS: usize = 8;

    /// Where inputs of this kind are kept.
    fn kept(inputs: &mut Inputs) -> &mut Vec<Self>;
    /// Tokens of a tile where there are `rows`, of which a level holds `most` in registers.
    fn width(rows: usize, most: usize) -> usize {
        rows.next_power_of_two().min(most)
    }
    /// Tokens that are fed together.
    fn together(width: usize) -> usize {
        width
    }
    /// Words of `width` tokens of `k` values that are fed together, at most.
    fn tile(k: usize, width: usize) -> usize;
    /// Brings up to `width` rows of `k` values into a tile; the places of absent rows become zeros.
    fn feed<S: Simd>(s: S, rows: &[f32], k: usize, width: usize, tile: &mut [Self]);
    /// What says which block each part of a tile is of, and the parts.
    #[inline(always)]
    fn split(tile: &[Self], _k: usize) -> (&[Self], &[Self]) {
        (&[], tile)
    }
    /// Number of parts, of `k / steps` blocks.
    #[inline(always)]
    fn count(_head: &[Self], blocks: usize) -> usize {
        blocks
    }
    /// The block that a part is of.
    #[inline(always)]
    fn block(_head: &[Self], part: usize) -> usize {
        part
    }
}

/// `[k][width]`.
impl Word for f32 {
    fn kept(inputs: &mut Inputs) -> &mut Vec<f32> {
        &mut inputs.floats
    }

    fn tile(k: usize, width: usize) -> usize {
        k * width
    }

    #[inline(always)]
    fn feed<S: Simd>(_: S, rows: &[f32], k: usize, width: usize, tile: &mut [f32]) {
        if rows.len() < k * width {
            tile.fill(0.0);
        }
        for (t, row) in rows.chunks_exact(k).enumerate() {
            tile[t..].iter_mut().step_by(width).zip(row).for_each(|(to, &from)| *to = from);
        }
    }
}

/// `[blocks][Pair::WORDS][width]`.
impl Word for Pair {
    fn kept(inputs: &mut Inputs) -> &mut Vec<Pair> {
        &mut inputs.pairs
    }

    fn tile(k: usize, width: usize) -> usize {
        k / BLOCK * Pair::WORDS * width
    }

    #[inline(always)]
    fn feed<S: Simd>(s: S, rows: &[f32], k: usize, width: usize, tile: &mut [Pair]) {
        if rows.len() < k * width {
            tile.fill(Pair(0));
        }
        for (t, row) in rows.chunks_exact(k).enumerate() {
            for (block, place) in row.chunks_exact(BLOCK).zip(tile.chunks_exact_mut(Pair::WORDS * width)) {
                let steps = Steps::of(s, block, Pair::RANGE);
                for (half, x) in block.chunks_exact(LANES).enumerate() {
                    for (i, pair) in steps.pairs(s, x).into_iter().enumerate() {
                        place[(half * LANES / 2 + i) * width + t] = Pair(pair);
                    }
                }
                place[LANES * width + t] = Pair(steps.step.to_bits() as i32);
            }
        }
    }
}

/// A head of `1 + 2 · blocks` words (the number of parts, then the block that each is of), then `[parts][Fed::WORDS][width]`.
impl Word for i32 {
    const TOKENS: usize = TILE;

    fn kept(inputs: &mut Inputs) -> &mut Vec<i32> {
        &mut inputs.quants
    }

    fn tile(k: usize, width: usize) -> usize {
        head(k) + 2 * (k / BLOCK) * Fed::WORDS * width
    }

    #[inline(always)]
    fn feed<S: Simd>(s: S, rows: &[f32], k: usize, width: usize, tile: &mut [i32]) {
        match width {
            1 => feed::<S, 1>(s, rows, k, tile),
            2 => feed::<S, 2>(s, rows, k, tile),
            4 => feed::<S, 4>(s, rows, k, tile),
            8 => feed::<S, 8>(s, rows, k, tile),
            16 => feed::<S, 16>(s, rows, k, tile),
            _ => unreachable!("tiles of {width} tokens"),
        }
    }

    #[inline(always)]
    fn split(tile: &[i32], k: usize) -> (&[i32], &[i32]) {
        tile.split_at(head(k))
    }

    #[inline(always)]
    fn count(head: &[i32], _: usize) -> usize {
        head[0] as usize
    }

    #[inline(always)]
    fn block(head: &[i32], part: usize) -> usize {
        head[1 + part] as usize
    }
}

/// Words of the head of a tile, in whole cache lines.
fn head(k: usize) -> usize {
    (1 + 2 * (k / BLOCK)).next_multiple_of(LANES)
}

/// The largest value that a block of each row may have, if it is fed in one part; NaN where the row has a NaN.
#[inline(always)]
fn limits<S: Simd, const T: usize>(s: S, rows: [&[[f32; BLOCK]]; T]) -> [f32; T] {
    let mut sums = [s.zero(); T];
    for index in 0..rows[0].len() {
        for t in 0..T {
            if let Some(x) = rows[t].get(index) {
                for x in x.as_chunks().0 {
                    let x = s.load(x);
                    sums[t] = s.mul_add(x, x, sums[t]);
                }
            }
        }
    }
    let mut limits = [0.0; T];
    for t in 0..T {
        limits[t] = OUTLIER * s.sum(sums[t]).sqrt();
    }
    limits
}

/// Lanes whose largest is the largest |x| of the block.
#[inline(always)]
fn largest<S: Simd>(s: S, block: &[f32; BLOCK]) -> S::F {
    let (halves, _) = block.as_chunks::<LANES>();
    s.max(s.abs(s.load(&halves[0])), s.abs(s.load(&halves[1])))
}

/// Brings up to `T` rows into a tile.
#[inline(always)]
fn feed<S: Simd, const T: usize>(s: S, rows: &[f32], k: usize, tile: &mut [i32]) {
    let (head, words) = tile.split_at_mut(head(k));
    let (count, blocks) = head.split_first_mut().expect("a head");
    let mut places = words.as_chunks_mut().0.as_chunks_mut().0.iter_mut().zip(blocks);
    let mut present = [&[][..]; T];
    for (blocks, row) in present.iter_mut().zip(rows.chunks_exact(k)) {
        *blocks = row.as_chunks().0;
    }
    let limits = limits(s, present);
    *count = 0;
    for index in 0..k / BLOCK {
        let mut next = || {
            let (place, block) = places.next().expect("two parts a block");
            *block = index as i32;
            *count += 1;
            place
        };
        let place = next();
        let mut x = [&[0.0; BLOCK]; T];
        for (x, blocks) in x.iter_mut().zip(present) {
            *x = blocks.get(index).unwrap_or(&[0.0; BLOCK]);
        }
        let most = quantize(s, x, &limits, place);
        if (0..T).any(|t| most[t] > limits[t]) {
            let mut left = [[0.0; BLOCK]; T];
            for t in 0..T {
                if most[t] > limits[t] {
                    left[t] = rest(s, x[t], most[t]);
                }
            }
            quantize(s, left.each_ref(), &limits, next());
        }
    }
}

/// What a quant of a block counts whose largest |x| is `most`: a number of 22 bits, so that [`WHOLE`] times it is exact.
#[inline(always)]
fn scale_of(most: f32) -> f32 {
    f32::from_bits((most * (1.0 / 127.0)).to_bits() & !0b11)
}

/// Quants per unit of such a block; of one that is next to nothing, a number that makes zeros of it. Without a branch, so that
/// those of a tile are one division.
#[inline(always)]
fn inverse_of(most: f32) -> f32 {
    127.0 / most.max(1e-36)
}

/// Writes the words of a block of each token; returns the largest |x| of each. Loops over the tokens inside those over the
/// words become vectors: a token at a time, this takes twice as long. A token whose limit is NaN becomes NaN.
#[inline(always)]
fn quantize<S: Simd, const T: usize>(
    s: S,
    x: [&[f32; BLOCK]; T],
    limits: &[f32; T],
    words: &mut [[i32; T]; Fed::WORDS],
) -> [f32; T] {
    let (mut most, mut inverse) = ([0.0; T], [0.0; T]);
    for t in 0..T {
        most[t] = if limits[t].is_nan() { f32::NAN } else { s.largest(largest(s, x[t])) };
    }
    for t in 0..T {
        inverse[t] = inverse_of(most[t]);
    }
    let mut rows = [[0; T]; Fed::SCALE];
    let fed = &mut words[..Fed::SCALE];
    for t in 0..T {
        for (half, x) in x[t].as_chunks().0.iter().enumerate() {
            let quants = s.narrow(s.mul(s.load(x), s.splat(inverse[t])));
            for (i, q) in quants.as_chunks::<4>().0.iter().enumerate() {
                rows[4 * half + i][t] = i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8]);
            }
            if T == TILE {
                let by_token = fed.as_flattened_mut().as_chunks_mut::<4>().0;
                for (i, word) in by_token[2 * t + half].iter_mut().enumerate() {
                    *word = rows[4 * half + i][t];
                }
            }
        }
    }
    if T != TILE {
        fed.copy_from_slice(&rows);
    }
    let mut sums = [[0; T]; 2];
    for (i, words) in rows.iter().enumerate() {
        for (sum, word) in sums[i / 4].iter_mut().zip(words) {
            *sum += (word << 24 >> 24) + (word << 16 >> 24) + (word << 8 >> 24) + (word >> 24);
        }
    }
    for t in 0..T {
        let (scale, sum) = (scale_of(most[t]), sums[0][t] + sums[1][t]);
        words[Fed::SCALE][t] = scale.to_bits() as i32;
        words[Fed::OFFSET][t] = (scale * sum as f32).to_bits() as i32;
        words[Fed::FIRST][t] = (scale * sums[0][t] as f32).to_bits() as i32;
        words[Fed::BIAS][t] = -S::BIAS * sum;
        words[Fed::LESS][t] = (-WHOLE * scale).to_bits() as i32;
    }
    most
}

/// What rounding a block leaves of it.
#[inline(always)]
fn rest<S: Simd>(s: S, x: &[f32; BLOCK], most: f32) -> [f32; BLOCK] {
    let (step, inverse) = (s.splat(-scale_of(most)), s.splat(inverse_of(most)));
    let mut rest = [0.0; BLOCK];
    for (x, rest) in x.as_chunks().0.iter().zip(rest.as_chunks_mut().0) {
        let x = s.load(x);
        s.store(s.mul_add(s.round(s.mul(x, inverse)), step, x), rest);
    }
    rest
}

//! Inputs of a product, brought into tiles of tokens.
//!
//! The law: beside quantized weights an input is rounded to int8 per block of 32 (scale = largest / 127). Where the largest
//! value of a block is an outlier of its row, rounding would cost the other 31 too much: such a block is fed in two parts,
//! the second one being what rounding the first has left. Whether a row needs that depends on this row only; a tile has
//! two parts where any of its rows does, and the second part of the others is zero, which changes no sum.

use super::simd::{fold, Simd, LANES};
use super::steps::Steps;
use super::tile::{Fed, Pair};

/// Values of a block.
const BLOCK: usize = 32;
/// A block is fed in two parts if its largest value is more than this many times the root mean square of its row. On
/// the default model that is 4.6 % of the blocks: the most likely token then agrees with float32 at 98.0 % of the
/// positions, in place of 96.5 %; all blocks in two parts reach 100 % and cost twice the time, 12 in place of 8 97.2 %.
const OUTLIER: f32 = 8.0;

/// Inputs as the tiles read them, kept for reuse.
#[derive(Default)]
pub struct Inputs {
    quants: Vec<i32>,
    pairs: Vec<Pair>,
    floats: Vec<f32>,
}

/// A word of the input: knows how rows are brought into tiles of tokens.
pub trait Word: Copy + Default + Send + Sync {
    /// Where inputs of this kind are kept.
    fn kept(inputs: &mut Inputs) -> &mut Vec<Self>;
    /// Words of a tile of `width` tokens of `k` values, at most.
    fn tile(k: usize, width: usize) -> usize;
    /// Brings up to `width` rows of `k` values into a tile; the places of absent rows become zeros.
    fn feed<S: Simd>(s: S, rows: &[f32], k: usize, width: usize, tile: &mut [Self]);
    /// What says which block each part of a tile is of, and the parts.
    fn split(tile: &[Self], k: usize) -> (&[Self], &[Self]);
    /// Number of parts, of `k / steps` blocks.
    fn count(head: &[Self], blocks: usize) -> usize;
    /// The block that a part is of.
    fn block(head: &[Self], part: usize) -> usize;
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

    #[inline(always)]
    fn split(tile: &[f32], _: usize) -> (&[f32], &[f32]) {
        (&[], tile)
    }

    #[inline(always)]
    fn count(_: &[f32], blocks: usize) -> usize {
        blocks
    }

    #[inline(always)]
    fn block(_: &[f32], part: usize) -> usize {
        part
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

    #[inline(always)]
    fn split(tile: &[Pair], _: usize) -> (&[Pair], &[Pair]) {
        (&[], tile)
    }

    #[inline(always)]
    fn count(_: &[Pair], blocks: usize) -> usize {
        blocks
    }

    #[inline(always)]
    fn block(_: &[Pair], part: usize) -> usize {
        part
    }
}

/// A head of `1 + 2 · blocks` words (the number of parts, then the block that each is of), then `[parts][Fed::WORDS][width]`.
impl Word for i32 {
    fn kept(inputs: &mut Inputs) -> &mut Vec<i32> {
        &mut inputs.quants
    }

    fn tile(k: usize, width: usize) -> usize {
        head(k) + 2 * (k / BLOCK) * Fed::WORDS * width
    }

    #[inline(always)]
    fn feed<S: Simd>(s: S, rows: &[f32], k: usize, width: usize, tile: &mut [i32]) {
        let (head, words) = tile.split_at_mut(head(k));
        let (count, blocks) = head.split_first_mut().expect("a head");
        *count = list_parts(s, rows, k, blocks);
        let parts = &blocks[..*count as usize];
        if rows.len() < k * width {
            words[..parts.len() * Fed::WORDS * width].fill(0);
        }
        for (t, row) in rows.chunks_exact(k).enumerate() {
            feed_row(s, row, parts, width, &mut words[t..]);
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

/// The largest value that a block of this row may have, if it is fed in one part.
#[inline(always)]
fn limit<S: Simd>(s: S, row: &[f32]) -> f32 {
    let squares = fold!(s, row, s.zero(), 0.0, |sum, v| s.mul_add(v, v, sum));
    OUTLIER * (s.sum(squares) / row.len() as f32).sqrt()
}

/// Writes the block of each part to `parts`, and returns their number.
#[inline(always)]
fn list_parts<S: Simd>(s: S, rows: &[f32], k: usize, parts: &mut [i32]) -> i32 {
    let blocks = k / BLOCK;
    let extra = &mut parts[..blocks];
    extra.fill(0);
    for row in rows.chunks_exact(k) {
        let limit = s.splat(limit(s, row));
        for (block, extra) in row.as_chunks::<BLOCK>().0.iter().zip(extra.iter_mut()) {
            *extra |= i32::from(s.any_above(largest(s, block), limit));
        }
    }
    let count = blocks + extra.iter().sum::<i32>() as usize;
    // From the last on: a part is never written before the mark of its block is read.
    let mut end = count;
    for block in (0..blocks).rev() {
        let start = end - 1 - parts[block] as usize;
        parts[start..end].fill(block as i32);
        end = start;
    }
    count as i32
}

/// Lanes whose largest is the largest |x| of the block.
#[inline(always)]
fn largest<S: Simd>(s: S, block: &[f32; BLOCK]) -> S::F {
    let (halves, _) = block.as_chunks::<LANES>();
    s.max(s.abs(s.load(&halves[0])), s.abs(s.load(&halves[1])))
}

/// Puts the parts of one row into its places of a tile.
#[inline(always)]
fn feed_row<S: Simd>(s: S, row: &[f32], parts: &[i32], width: usize, tile: &mut [i32]) {
    let limit = limit(s, row);
    let mut part = 0;
    for (index, block) in row.as_chunks().0.iter().enumerate() {
        let most = s.largest(largest(s, block));
        let (words, rest) = quantize(s, block, most);
        put(words, width, &mut tile[part * width * Fed::WORDS..]);
        part += 1;
        if parts.get(part) == Some(&(index as i32)) {
            let words = if most > limit { quantize(s, &rest, s.largest(largest(s, &rest))).0 } else { [0; Fed::WORDS] };
            put(words, width, &mut tile[part * width * Fed::WORDS..]);
            part += 1;
        }
    }
}

/// Puts the words of one part into their places, `width` apart.
#[inline(always)]
fn put(words: [i32; Fed::WORDS], width: usize, place: &mut [i32]) {
    let place = &mut place[..(Fed::WORDS - 1) * width + 1];
    for (i, word) in words.into_iter().enumerate() {
        place[i * width] = word;
    }
}

/// The words of one block of one token, and what rounding has left of it.
#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[f32; BLOCK], largest: f32) -> ([i32; Fed::WORDS], [f32; BLOCK]) {
    let scale = largest * (1.0 / 127.0);
    let (step, inverse) = (s.splat(-scale), s.splat(if largest > 0.0 { 127.0 / largest } else { 0.0 }));
    let (mut words, mut rest, mut sums) = ([0; Fed::WORDS], [0.0; BLOCK], [0.0; 2]);
    for (half, (x, rest)) in x.as_chunks().0.iter().zip(rest.as_chunks_mut().0).enumerate() {
        let x = s.load(x);
        let rounded = s.round(s.mul(x, inverse));
        s.store(s.mul_add(rounded, step, x), rest);
        // Whole numbers of at most 16 · 127: exact.
        sums[half] = s.sum(rounded);
        let quants = s.narrow(rounded);
        for (i, q) in quants.as_chunks::<4>().0.iter().enumerate() {
            words[4 * half + i] = i32::from_le_bytes([q[0] as u8, q[1] as u8, q[2] as u8, q[3] as u8]);
        }
    }
    let sum = sums[0] + sums[1];
    words[Fed::SCALE] = scale.to_bits() as i32;
    words[Fed::OFFSET] = (scale * sum).to_bits() as i32;
    words[Fed::FIRST] = (scale * sums[0]).to_bits() as i32;
    words[Fed::SUM] = sum as i32;
    (words, rest)
}

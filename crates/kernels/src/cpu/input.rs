//! Inputs of a product, brought into tiles of tokens.
//!
//! The law: beside quantized weights an input is rounded to int8 per block of 32 (scale = largest / 127). Where the largest
//! value of a block is an outlier of its row, rounding would cost the other 31 too much: such a block is fed in two parts,
//! the second one being what rounding the first has left. Whether a row needs that depends on this row only; a tile has
//! two parts where any of its rows does, and the second part of the others is zero, which changes no sum.

use super::simd::{lanes, Simd, LANES, START, TILE, WHOLE};
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

/// What is known of some rows before they are rounded.
struct Measured<const T: usize> {
    /// The largest |x| of each block; NaN where the row has a NaN.
    most: Vec<[f32; T]>,
    /// Quants per unit of each: one by one beside the rounding, divisions took 1.07 of the time.
    inverse: Vec<[f32; T]>,
    /// The largest that a block of each row may have, if it is fed in one part.
    limits: [f32; T],
}

impl<const T: usize> Measured<T> {
    /// Measures rows of `blocks` blocks, all of them before any is rounded: what rounding one block waits for would hold up the
    /// others.
    #[inline(always)]
    fn of<S: Simd>(s: S, rows: &[&[[f32; BLOCK]]; T], blocks: usize) -> Measured<T> {
        let (mut most, mut sums, mut limits) = (vec![[0.0; T]; blocks], [s.zero(); T], [0.0; T]);
        for (index, most) in most.iter_mut().enumerate() {
            let x = at(rows, index);
            for t in 0..T {
                for x in x[t].as_chunks().0 {
                    let x = s.load(x);
                    sums[t] = s.mul_add(x, x, sums[t]);
                }
            }
            *most = largest(s, x);
        }
        for t in 0..T {
            limits[t] = OUTLIER * s.sum(sums[t]).sqrt();
            if limits[t].is_nan() {
                most.iter_mut().for_each(|most| most[t] = f32::NAN);
            }
        }
        let mut inverse = vec![[0.0; T]; blocks];
        for (inverse, &most) in inverse.as_flattened_mut().iter_mut().zip(most.as_flattened()) {
            *inverse = inverse_of(most);
        }
        Measured { most, inverse, limits }
    }
}

/// A block of each row; zeros of absent rows.
#[inline(always)]
fn at<'a, const T: usize>(rows: &[&'a [[f32; BLOCK]]; T], index: usize) -> [&'a [f32; BLOCK]; T] {
    let mut x = [&[0.0; BLOCK]; T];
    for (x, blocks) in x.iter_mut().zip(rows) {
        *x = blocks.get(index).unwrap_or(&[0.0; BLOCK]);
    }
    x
}

/// The largest |x| of each block.
#[inline(always)]
fn largest<S: Simd, const T: usize>(s: S, x: [&[f32; BLOCK]; T]) -> [f32; T] {
    let mut most = [0.0; T];
    for first in (0..T).step_by(4) {
        let mut four = [s.zero(); 4];
        for (t, most) in four.iter_mut().enumerate() {
            let (halves, _) = x[(first + t).min(T - 1)].as_chunks();
            *most = s.max(s.abs(s.load(&halves[0])), s.abs(s.load(&halves[1])));
        }
        let four = s.largest_of_four(four);
        most[first..].iter_mut().zip(four).for_each(|(most, x)| *most = x);
    }
    most
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
    let Measured { most, inverse, limits } = Measured::of(s, &present, k / BLOCK);
    *count = 0;
    for (index, (most, inverse)) in most.iter().zip(&inverse).enumerate() {
        let mut next = || {
            let (place, block) = places.next().expect("two parts a block");
            *block = index as i32;
            *count += 1;
            place
        };
        let (x, place) = (at(&present, index), next());
        quantize(s, x, most, inverse, place);
        if (0..T).any(|t| most[t] > limits[t]) {
            let mut left = [[0.0; BLOCK]; T];
            for t in 0..T {
                if most[t] > limits[t] {
                    left[t] = rest(s, x[t], most[t]);
                }
            }
            let left = left.each_ref();
            let most = largest(s, left);
            quantize(s, left, &most, &most.map(inverse_of), next());
        }
    }
}

/// What a quant of a block counts whose largest |x| is `most`: a number of 22 bits, so that [`WHOLE`] times it is exact.
#[inline(always)]
fn scale_of(most: f32) -> f32 {
    f32::from_bits((most * (1.0 / 127.0)).to_bits() & !0b11)
}

/// Quants per unit of such a block; of one that is next to nothing, a number that makes zeros of it.
#[inline(always)]
fn inverse_of(most: f32) -> f32 {
    127.0 / if most > 1e-36 { most } else { 1e-36 }
}

/// Writes the words of a block of each token, the largest |x| of which are `most`, with so many quants per unit.
#[inline(always)]
fn quantize<S: Simd, const T: usize>(
    s: S,
    x: [&[f32; BLOCK]; T],
    most: &[f32; T],
    inverse: &[f32; T],
    words: &mut [[i32; T]; Fed::WORDS],
) {
    let mut sums = [[0.0; T]; 2];
    for (half, sums) in sums.iter_mut().enumerate() {
        for first in (0..T).step_by(4) {
            let mut four = [s.zero(); 4];
            for (t, scaled) in four.iter_mut().enumerate() {
                let token = (first + t).min(T - 1);
                *scaled = s.mul(s.load(&x[token].as_chunks().0[half]), s.splat(inverse[token]));
            }
            let (bytes, mut quants) = (s.narrow_four(four), [0; 4 * LANES]);
            s.store_bytes(bytes, &mut quants);
            let (quants, of_words) = (quants.as_chunks().0, lanes(s, s.float(s.sum_bytes(bytes))));
            for (t, sum) in sums[first..].iter_mut().take(4).enumerate() {
                for i in 0..4 {
                    let (word, token, lane) = (4 * half + i, first + t, 4 * i + t);
                    let place = if T == TILE { token * Fed::SCALE + word } else { word * T + token };
                    words.as_flattened_mut()[place] = i32::from_le_bytes(quants[lane]);
                    *sum += of_words[lane];
                }
            }
        }
    }
    for t in 0..T {
        let (scale, sum) = (scale_of(most[t]), sums[0][t] + sums[1][t]);
        words[Fed::SCALE][t] = scale.to_bits() as i32;
        words[Fed::OFFSET][t] = (scale * sum).to_bits() as i32;
        words[Fed::FIRST][t] = (scale * sums[0][t]).to_bits() as i32;
        // `as i32` would be eight instructions for each token, this is one vector.
        words[Fed::BIAS][t] = S::BIAS * (START - (WHOLE + sum).to_bits() as i32);
        words[Fed::LESS][t] = (-WHOLE * scale).to_bits() as i32;
    }
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

#[cfg(test)]
mod tests {
    use super::super::level::Level;
    use super::super::simd::{Isa, Kernel};
    use super::*;

    /// The words of each part of some rows in one tile, beside the block that it is of.
    struct Parts<'a> {
        rows: &'a [f32],
        k: usize,
        width: usize,
    }

    impl Kernel for Parts<'_> {
        type Output = Vec<(usize, Vec<i32>)>;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let mut tile = vec![0; <i32 as Word>::tile(self.k, self.width)];
            i32::feed(s, self.rows, self.k, self.width, &mut tile);
            let (head, parts) = i32::split(&tile, self.k);
            let parts = parts.chunks(Fed::WORDS * self.width).take(i32::count(head, 0));
            parts.enumerate().map(|(i, part)| (i32::block(head, i), part.to_vec())).collect()
        }
    }

    /// Only levels that multiply whole tiles of 16 are asked for them.
    #[test]
    fn a_tile_of_sixteen_has_the_words_of_each_token_alone() {
        let k = 3 * BLOCK;
        let mut rows: Vec<f32> = (0..TILE * k).map(|i| (i as f32 * 0.37).sin()).collect();
        rows[5 * k + 40] = 90.0;
        for level in Level::available() {
            let isa = Isa::detect(level).unwrap();
            let whole = isa.run(Parts { rows: &rows, k, width: TILE });
            assert_eq!(whole.iter().map(|part| part.0).collect::<Vec<_>>(), [0, 1, 1, 2], "{level}");
            for (t, row) in rows.chunks(k).enumerate() {
                let alone = isa.run(Parts { rows: row, k, width: 1 });
                assert_eq!(alone.len(), if t == 5 { 4 } else { 3 }, "{level}, token {t}");
                for (i, (block, words)) in whole.iter().enumerate() {
                    let quants = &words[Fed::SCALE * t..][..Fed::SCALE];
                    let rest: Vec<i32> = (Fed::SCALE..Fed::WORDS).map(|word| words[TILE * word + t]).collect();
                    let before = whole[..i].iter().filter(|part| part.0 == *block).count();
                    match alone.iter().filter(|part| part.0 == *block).nth(before) {
                        Some((_, words)) => {
                            assert_eq!([quants, &rest].concat(), *words, "{level}, token {t}, part {i}")
                        }
                        None => assert_eq!([quants, &rest[..1]].concat(), [0; Fed::SCALE + 1], "{level}, token {t}"),
                    }
                }
            }
        }
    }
}

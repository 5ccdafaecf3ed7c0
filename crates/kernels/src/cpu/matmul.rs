//! y = x · Wᵀ over tiles of 16 weight rows × 1, 2, 4 or 8 tokens.
//!
//! The law: one output value is the sum over the records of its row, in order, from zero: the same whatever the tile,
//! the chunk or the thread. Inputs of quantized weights are rounded to int8 per block of 32 (scale = largest / 127).

use super::matrix::{with_records, Matrix};
use super::pool::{Pool, TileMut};
use super::simd::{Isa, Kernel, Simd, LANES};
use super::tile::{Fed, Record};
use std::ops::Range;

/// Chunks per thread that a product is cut into, so that a late thread leaves little behind.
const CHUNKS: usize = 6;
/// Most tokens of one chunk: their input stays in the second-level cache.
const BAND: usize = 128;

/// Tiles of tokens that one chunk brings into place.
const FEED: usize = 2;

/// Inputs as the tiles read them, kept for reuse.
#[derive(Default)]
pub struct Inputs {
    quants: Vec<i32>,
    floats: Vec<f32>,
}

/// A word of the input: knows how rows are brought into tiles of tokens.
pub trait Word: Copy + Default + Send + Sync {
    /// Where inputs of this kind are kept.
    fn kept(inputs: &mut Inputs) -> &mut Vec<Self>;
    /// Writes row `x` as token `t` of a tile of `width`.
    fn feed<S: Simd>(s: S, x: &[f32], t: usize, width: usize, tile: &mut [Self]);
}

impl Word for f32 {
    fn kept(inputs: &mut Inputs) -> &mut Vec<f32> {
        &mut inputs.floats
    }

    #[inline(always)]
    fn feed<S: Simd>(_: S, x: &[f32], t: usize, width: usize, tile: &mut [f32]) {
        tile[t..].iter_mut().step_by(width).zip(x).for_each(|(to, &from)| *to = from);
    }
}

impl Word for i32 {
    fn kept(inputs: &mut Inputs) -> &mut Vec<i32> {
        &mut inputs.quants
    }

    #[inline(always)]
    fn feed<S: Simd>(s: S, x: &[f32], t: usize, width: usize, tile: &mut [i32]) {
        let blocks = x.as_chunks::<32>().0;
        for (block, tile) in blocks.iter().zip(tile.chunks_exact_mut(width * Fed::WORDS)) {
            let words = quantize(s, block);
            tile[t..].iter_mut().step_by(width).zip(words).for_each(|(to, from)| *to = from);
        }
    }
}

/// The words of one block of one token.
#[inline(always)]
fn quantize<S: Simd>(s: S, x: &[f32; 32]) -> [i32; Fed::WORDS] {
    let (halves, _) = x.as_chunks::<LANES>();
    let (a, b) = (s.load(&halves[0]), s.load(&halves[1]));
    let largest = s.largest(s.max(s.abs(a), s.abs(b)));
    let scale = largest / 127.0;
    let inverse = s.splat(if largest > 0.0 { 127.0 / largest } else { 0.0 });
    let quants = [s.narrow(s.mul(a, inverse)), s.narrow(s.mul(b, inverse))];
    let sum: i32 = quants.as_flattened().iter().map(|&q| i32::from(q)).sum();
    let mut words = [0; Fed::WORDS];
    for (word, four) in words.iter_mut().zip(quants.as_flattened().as_chunks::<4>().0) {
        *word = i32::from_le_bytes(four.map(|q| q as u8));
    }
    words[Fed::SCALE] = scale.to_bits() as i32;
    words[Fed::OFFSET] = (scale * sum as f32).to_bits() as i32;
    words[Fed::SUM] = sum;
    words
}

/// `out[rows, N] = x[rows, K] · wᵀ`.
pub fn matmul(isa: Isa, pool: &mut Pool, inputs: &mut Inputs, x: &[f32], w: &Matrix, rows: usize, out: &mut [f32]) {
    if rows > 0 && w.rows > 0 {
        let width = rows.next_power_of_two().min(isa.tokens());
        let product = Product { isa, x, rows, n: w.rows, k: w.cols, width };
        with_records!(&w.tiles, records => product.run(pool, inputs, records, out));
    }
}

/// The sizes of one product.
struct Product<'a> {
    isa: Isa,
    /// `[rows, k]`.
    x: &'a [f32],
    rows: usize,
    n: usize,
    k: usize,
    /// Tokens per tile.
    width: usize,
}

impl Product<'_> {
    fn run<R: Record>(&self, pool: &mut Pool, inputs: &mut Inputs, records: &[R], out: &mut [f32])
    where
        R::Word: Word,
    {
        let depth = self.k / R::STEPS;
        let tile = self.width * depth * R::WORDS;
        let (kept, wanted) = (R::Word::kept(inputs), self.rows.div_ceil(self.width) * tile);
        if kept.len() < wanted {
            kept.resize(wanted, R::Word::default());
        }
        self.feed(pool, &mut kept[..wanted], tile);
        let fed = &kept[..wanted];
        let stripe = self.n.div_ceil(LANES).div_ceil(CHUNKS * pool.threads()) * LANES;
        pool.tiles(&mut out[..self.rows * self.n], self.n, &self.bands(), stripe, |_, out| {
            let records = &records[out.cols.start / LANES * depth..out.cols.end.div_ceil(LANES) * depth];
            let x = &fed[out.rows.start / self.width * tile..out.rows.end.div_ceil(self.width) * tile];
            multiply(self.isa, Multiply::<R, 1> { records, depth, x, out }, self.width);
        });
    }

    /// The tokens, cut into bands.
    fn bands(&self) -> Vec<Range<usize>> {
        (0..self.rows).step_by(BAND).map(|first| first..self.rows.min(first + BAND)).collect()
    }

    /// Brings all rows into tiles of `tile` words, in parallel where there are many.
    fn feed<W: Word>(&self, pool: &mut Pool, fed: &mut [W], tile: usize) {
        let (k, width) = (self.k, self.width);
        pool.pieces(fed, FEED * tile, |first, fed| {
            let rows = first / tile.max(1) * width..self.rows.min((first + fed.len()) / tile.max(1) * width);
            self.isa.run(Feed { x: &self.x[rows.start * k..rows.end * k], k, width, tile, fed });
        });
    }
}

struct Feed<'a, W> {
    x: &'a [f32],
    k: usize,
    width: usize,
    tile: usize,
    fed: &'a mut [W],
}

impl<W: Word> Kernel for Feed<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (rows, tile) in self.x.chunks(self.width * self.k).zip(self.fed.chunks_exact_mut(self.tile)) {
            if rows.len() < self.width * self.k {
                // The places of absent tokens would hold leftovers of another product.
                tile.fill(W::default());
            }
            for (t, row) in rows.chunks_exact(self.k).enumerate() {
                W::feed(s, row, t, self.width, tile);
            }
        }
    }
}

/// Some groups of weight rows times some tiles of `T` tokens.
struct Multiply<'a, R: Record, const T: usize> {
    /// `[groups][depth]`.
    records: &'a [R],
    depth: usize,
    /// `[tiles][depth][WORDS][T]`.
    x: &'a [R::Word],
    out: TileMut<'a>,
}

fn multiply<R: Record>(isa: Isa, work: Multiply<R, 1>, width: usize) {
    let Multiply { records, depth, x, out } = work;
    match width {
        1 => isa.run(Multiply::<R, 1> { records, depth, x, out }),
        2 => isa.run(Multiply::<R, 2> { records, depth, x, out }),
        4 => isa.run(Multiply::<R, 4> { records, depth, x, out }),
        8 => isa.run(Multiply::<R, 8> { records, depth, x, out }),
        _ => unreachable!("tiles of {width} tokens"),
    }
}

impl<R: Record, const T: usize> Kernel for Multiply<'_, R, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let tile = self.depth * R::WORDS * T;
        for group in 0..self.out.cols.len().div_ceil(LANES) {
            let records = &self.records[group * self.depth..][..self.depth];
            for first in self.out.rows.clone().step_by(T) {
                let x = &self.x[(first - self.out.rows.start) / T * tile..][..tile];
                let sums = sums(s, records, x.as_chunks::<T>().0);
                self.store(s, group, first, sums);
            }
        }
    }
}

/// The products of one group with one tile of tokens.
#[inline(always)]
fn sums<S: Simd, R: Record, const T: usize>(s: S, records: &[R], x: &[[R::Word; T]]) -> [S::F; T] {
    let mut f = [s.zero(); T];
    for (record, x) in records.iter().zip(x.chunks_exact(R::WORDS)) {
        record.accumulate(s, x, &mut f);
    }
    f
}

impl<R: Record, const T: usize> Multiply<'_, R, T> {
    #[inline(always)]
    fn store<S: Simd>(&mut self, s: S, group: usize, first: usize, sums: [S::F; T]) {
        for (t, &sum) in sums.iter().enumerate().take(self.out.rows.end - first) {
            let row = &mut self.out.row(first + t)[group * LANES..];
            match row.first_chunk_mut() {
                Some(whole) => s.store(sum, whole),
                None => s.store_part(sum, row),
            }
        }
    }
}

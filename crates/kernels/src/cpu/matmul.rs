//! y = x · Wᵀ over tiles of 16 weight rows × 1, 2, 4 or 8 tokens.
//!
//! The law: one output value is the sum over the parts of its input and the records of its row, in order, from zero: the
//! same whatever the tile, the chunk or the thread.

use super::ahead::{self, Ahead, Walk};
use super::elementwise::silu_mul;
use super::input::{Inputs, Word};
use super::matrix::Matrix;
use super::pool::{Pool, TileMut};
use super::simd::{Isa, Kernel, Simd, LANES};
use super::tile::Record;
use std::ops::Range;

/// Most chunks per thread that a product is cut into, so that a late thread leaves little behind.
const CHUNKS: usize = 6;
/// Bytes of weights that are worth a chunk: with each one reading starts anew. Half of it, or six chunks whatever they
/// hold, cost a tenth of the products of one row.
const CHUNK: usize = 1 << 17;
/// Most tokens of one chunk: their input stays in the second-level cache.
const BAND: usize = 128;

/// Most lines that others will read for each part of the input: about as many as memory has time for.
const LINES: usize = 4;

/// What the input is made of.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// `[T, K]`, the input.
    Plain(&'a [f32]),
    /// `[T, 2K]`: gates and what they let through.
    Gated(&'a [f32]),
}

impl<'a> Source<'a> {
    /// What some rows are made of, of `k` inputs each.
    fn rows(self, rows: Range<usize>, k: usize) -> Source<'a> {
        match self {
            Source::Plain(x) => Source::Plain(&x[rows.start * k..rows.end * k]),
            Source::Gated(x) => Source::Gated(&x[rows.start * 2 * k..rows.end * 2 * k]),
        }
    }
}

/// What products keep.
#[derive(Default)]
pub struct Kept {
    /// Memory for inputs.
    pub inputs: Inputs,
    /// What will be read after them.
    pub ahead: Ahead,
}

/// `out[T, N] = x[T, K] · wᵀ`.
pub fn matmul(isa: Isa, pool: &mut Pool, kept: &mut Kept, x: Source, w: &Matrix, rows: usize, out: &mut [f32]) {
    if rows == 0 {
        return;
    }
    let width = rows.next_power_of_two().min(isa.tokens());
    let mut first = 0;
    for part in &w.parts {
        let product = Product { isa, x, rows, n: w.rows, k: w.cols, columns: first..first + part.rows, width };
        part.tiles.multiply(&product, pool, kept, out);
        first += part.rows;
    }
}

/// The sizes of one product.
pub struct Product<'a> {
    isa: Isa,
    x: Source<'a>,
    rows: usize,
    n: usize,
    k: usize,
    /// Which of the N are computed.
    columns: Range<usize>,
    /// Tokens per tile.
    width: usize,
}

impl Product<'_> {
    /// Multiplies with `records`, the weights of the columns.
    pub fn run<R: Record>(&self, pool: &mut Pool, kept: &mut Kept, records: &[R], out: &mut [f32]) {
        let (depth, tile) = (self.k / (R::BLOCKS * R::STEPS), R::Word::tile(self.k, self.width));
        let (fed, wanted) = (R::Word::kept(&mut kept.inputs), self.rows.div_ceil(self.width) * tile);
        if fed.len() < wanted {
            fed.resize(wanted, R::Word::default());
        }
        self.feed(pool, &mut fed[..wanted], tile);
        let fed = &fed[..wanted];
        let (first, count) = (self.columns.start, self.columns.len());
        let chunks = (size_of_val(records) / pool.threads() / CHUNK).clamp(1, CHUNKS) * pool.threads();
        let stripe = count.div_ceil(LANES).div_ceil(chunks) * LANES;
        let (out, bands) = (&mut out[..self.rows * self.n], self.bands());
        let most =
            if self.width >= ahead::TOKENS && asks::<R>() { LINES * self.parts::<R>(0..self.rows, count) } else { 0 };
        let lines = kept.ahead.take(most);
        let shares = bands.len() * count.div_ceil(stripe);
        pool.tiles(out, self.n, &bands, self.columns.clone(), stripe, |band, out| {
            let (start, end) = (out.cols.start - first, out.cols.end - first);
            let records = &records[start / LANES * depth..end.div_ceil(LANES) * depth];
            let x = &fed[out.rows.start / self.width * tile..out.rows.end.div_ceil(self.width) * tile];
            let lines = cut(&lines, start / stripe * bands.len() + band, shares);
            let ahead = kept.ahead.walk(lines, self.parts::<R>(out.rows.clone(), out.cols.len()));
            multiply(self.isa, Multiply::<R, 1> { records, depth, x, tile, out, ahead }, self.width);
        });
    }

    /// Parts of the input that a tile of the output multiplies, if none is fed twice.
    fn parts<R: Record>(&self, rows: Range<usize>, columns: usize) -> usize {
        rows.len().div_ceil(self.width) * columns.div_ceil(LANES) * (self.k / R::STEPS)
    }

    /// The tokens, cut into bands.
    fn bands(&self) -> Vec<Range<usize>> {
        (0..self.rows).step_by(BAND).map(|first| first..self.rows.min(first + BAND)).collect()
    }

    /// Brings all rows into tiles of `tile` words, in parallel where there are many.
    fn feed<W: Word>(&self, pool: &mut Pool, fed: &mut [W], tile: usize) {
        let (k, width) = (self.k, self.width);
        pool.pieces(fed, tile, |first, fed| {
            let rows = first / tile.max(1) * width..self.rows.min((first + fed.len()) / tile.max(1) * width);
            self.isa.run(Feed { x: self.x.rows(rows, k), k, width, tile, fed });
        });
    }
}

/// Whether products with such records ask for what others will read: beside one column of floats there is no time for it
/// (8 rows took 1.28 of the time).
const fn asks<R: Record>() -> bool {
    R::STEPS > 1
}

/// Part `index` of `parts` equal parts.
fn cut(range: &Range<usize>, index: usize, parts: usize) -> Range<usize> {
    let at = |index: usize| range.start + range.len() * index / parts;
    at(index)..at(index + 1)
}

struct Feed<'a, W> {
    x: Source<'a>,
    k: usize,
    width: usize,
    tile: usize,
    fed: &'a mut [W],
}

impl<W: Word> Kernel for Feed<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (tiles, most) = (self.fed.chunks_exact_mut(self.tile), self.width * self.k);
        match self.x {
            Source::Plain(x) => {
                for (rows, tile) in x.chunks(most).zip(tiles) {
                    W::feed(s, rows, self.k, self.width, tile);
                }
            }
            Source::Gated(x) => {
                let mut gated = vec![0.0; most.min(x.len() / 2)];
                for (rows, tile) in x.chunks(2 * most).zip(tiles) {
                    let gated = &mut gated[..rows.len() / 2];
                    silu_mul(s, rows, self.k, gated);
                    W::feed(s, gated, self.k, self.width, tile);
                }
            }
        }
    }
}

/// Some groups of weight rows times some tiles of `T` tokens.
struct Multiply<'a, R: Record, const T: usize> {
    /// `[groups][depth]`.
    records: &'a [R],
    depth: usize,
    /// Tiles of `tile` words.
    x: &'a [R::Word],
    tile: usize,
    out: TileMut<'a>,
    ahead: Walk<'a>,
}

fn multiply<R: Record>(isa: Isa, work: Multiply<R, 1>, width: usize) {
    let Multiply { records, depth, x, tile, out, ahead } = work;
    match width {
        1 => isa.run(Multiply::<R, 1> { records, depth, x, tile, out, ahead }),
        2 => isa.run(Multiply::<R, 2> { records, depth, x, tile, out, ahead }),
        4 => isa.run(Multiply::<R, 4> { records, depth, x, tile, out, ahead }),
        8 => isa.run(Multiply::<R, 8> { records, depth, x, tile, out, ahead }),
        _ => unreachable!("tiles of {width} tokens"),
    }
}

impl<R: Record, const T: usize> Kernel for Multiply<'_, R, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let tiles = self.out.rows.len().div_ceil(T);
        for group in 0..self.out.cols.len().div_ceil(LANES) {
            let (_, records) = self.records.split_at(group * self.depth);
            let (records, next) = records.split_at(self.depth);
            for (index, first) in self.out.rows.clone().step_by(T).enumerate() {
                let (x, next) = (&self.x[index * self.tile..][..self.tile], Next { records: next, index, tiles });
                let sums = sums::<S, R, T>(s, records, next, &mut self.ahead, x);
                self.store(s, group, first, sums);
            }
        }
    }
}

/// The records that will be needed after this group. Each tile asks for an equal share of them: with all of them asked for
/// by the first tile, 16 rows took 1.07 of the time.
struct Next<'a, R> {
    records: &'a [R],
    /// Of the tile.
    index: usize,
    tiles: usize,
}

impl<R: Record> Next<'_, R> {
    /// Asks for the part of a record that a block is in.
    #[inline(always)]
    fn ask<S: Simd>(&self, s: S, block: usize) {
        if let Some(record) = self.records.get(block / R::BLOCKS) {
            let (start, share) = (std::ptr::from_ref(record) as usize, size_of::<R>() / R::BLOCKS);
            let first = start + block % R::BLOCKS * share;
            (first..first + share).step_by(ahead::LINE).for_each(|line| s.prefetch(line));
        }
    }
}

/// The products of one group with one tile of tokens.
#[inline(always)]
fn sums<S: Simd, R: Record, const T: usize>(
    s: S,
    records: &[R],
    next: Next<R>,
    ahead: &mut Walk,
    x: &[R::Word],
) -> [S::F; T] {
    let mut f = [s.zero(); T];
    let blocks = records.len() * R::BLOCKS;
    let (head, parts) = R::Word::split(x, blocks * R::STEPS);
    let parts = parts.as_chunks::<T>().0;
    let mut asked = next.index;
    for part in 0..R::Word::count(head, blocks) {
        if T >= ahead::TOKENS {
            if asks::<R>() {
                ahead.ask(s);
            }
            if part == asked {
                next.ask(s, part);
                asked += next.tiles;
            }
        }
        let block = R::Word::block(head, part);
        let x = &parts[part * R::WORDS..][..R::WORDS];
        s.accumulate(&records[block / R::BLOCKS], block % R::BLOCKS, x, &mut f);
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

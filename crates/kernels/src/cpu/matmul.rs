//! y = x · Wᵀ over tiles of 16 weight rows × 1, 2, 4, 8 or 16 tokens.
//!
//! The law: one output value is the sum over the parts of its input and the records of its row, in order, from zero: the
//! same whatever the tile, the chunk or the thread.

use super::ahead::{self, Ahead, Walk};
use super::elementwise::silu_mul;
use super::input::{Inputs, Word};
use super::matrix::Matrix;
use super::pool::{Pool, TileMut};
use super::simd::{Isa, Kernel, Numbers, Simd, Sums, Tiles, LANES, TILE};
use super::slab::LINE;
use super::tile::{Bytes, Fed, Record, Stored, Sum, WholeTile};
use std::cell::Cell;
use std::iter::StepBy;
use std::ops::{Range, RangeInclusive};

/// Most chunks per thread that a product is cut into, so that a late thread leaves little behind.
const CHUNKS: usize = 6;
/// Bytes of weights, times the tokens, that are worth a chunk: with each one reading starts anew. Half of it, or six chunks
/// whatever they hold, cost a tenth of the products of one row.
const CHUNK: usize = 1 << 17;
/// Tokens of one chunk of many: from so many on, taking weights apart costs little, and more than the others gain nothing.
const BAND: RangeInclusive<usize> = 128..=256;
/// Bytes of input that stay in the second-level cache.
const INPUT: usize = 640 << 10;

/// How many bytes ahead products of few tokens ask for their weights: processors foresee less than memory takes to answer (Intel's
/// stop at the end of a page; there a row took 1.6 times as long without).
pub const AHEAD: usize = 4096;

/// A single whole tile is fed by one thread, while the others wait: worth it from so many outputs for each thread on. With 576
/// outputs for two threads, 16 rows took 1.1 of the time.
const OUTPUTS: usize = 480;
/// From so many tokens of a chunk on, weights are taken apart before their products, once for all tiles.
const MANY: usize = 48;
/// How many unpacked blocks are kept where there is but one tile: the one to be multiplied and those after it.
const RING: usize = 4;

/// Most lines that others will read for each part of the input: about as many as memory has time for.
const LINES: usize = 3;

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
    let mut first = 0;
    for part in &w.parts {
        let product = Product { isa, x, rows, n: w.rows, k: w.cols, columns: first..first + part.rows };
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
}

impl Product<'_> {
    /// Multiplies with `records`, the weights of the columns.
    pub fn run<R: Record>(&self, pool: &mut Pool, kept: &mut Kept, records: &[R], out: &mut [f32]) {
        let width = self.width::<R>(pool.threads());
        let together = R::Word::together(width);
        let (depth, tile) = (self.k / (R::BLOCKS * R::STEPS), R::Word::tile(self.k, together));
        let words = |rows: usize| rows.next_multiple_of(width) / together * tile;
        let (fed, wanted) = (R::Word::kept(&mut kept.inputs), words(self.rows));
        if fed.len() < wanted + LINE {
            fed.resize(wanted + LINE, R::Word::default());
        }
        let start = fed.as_ptr().align_offset(LINE);
        let fed = &mut fed[start..start + wanted];
        self.feed(pool, &mut fed[..self.rows.div_ceil(together) * tile], together, tile);
        let fed = &*fed;
        let (first, count) = (self.columns.start, self.columns.len());
        let chunks = (size_of_val(records) * self.rows / pool.threads() / CHUNK).clamp(1, CHUNKS) * pool.threads();
        let stripe = count.div_ceil(LANES).div_ceil(chunks) * LANES;
        let bands = self.bands(pool.threads(), width, tile * size_of::<R::Word>() / together);
        let most =
            if width >= ahead::TOKENS && asks::<R>() { LINES * self.parts::<R>(width, self.rows, count) } else { 0 };
        kept.ahead.take(most);
        let (out, stripes) = (&mut out[..self.rows * self.n], count.div_ceil(stripe));
        pool.tiles(out, self.n, &bands, self.columns.clone(), stripe, |band, out| {
            let start = out.cols.start - first;
            // What comes after the chunk is asked for: mostly it is the same thread's.
            let records = &records[start / LANES * depth..];
            let x = &fed[words(out.rows.start)..words(out.rows.end)];
            let parts = self.parts::<R>(width, out.rows.len(), out.cols.len());
            let ahead = kept.ahead.walk(band * stripes + start / stripe, bands.len() * stripes, parts);
            R::multiply_chunk(self.isa, Chunk { records, depth, x, tile, out, ahead }, width);
        });
    }

    /// Tokens per tile.
    fn width<R: Record>(&self, threads: usize) -> usize {
        // A whole tile takes 1.5 times as long as half a one.
        let faster = 3 * self.rows.div_ceil(TILE) < 2 * self.rows.div_ceil(TILE / 2);
        let worth = self.rows > TILE || self.n >= OUTPUTS * threads;
        let most = if faster && worth { R::Word::TOKENS } else { TILE / 2 };
        R::Word::width(self.rows, most.min(self.isa.tokens()))
    }

    /// Parts of the input that a part of the output is the product of, by tiles of `width` tokens, if none is fed twice.
    fn parts<R: Record>(&self, width: usize, rows: usize, columns: usize) -> usize {
        rows.div_ceil(width) * columns.div_ceil(LANES) * (self.k / R::STEPS)
    }

    /// The tokens, cut into bands of whole tiles. Of many, each thread has its own, since they are in its cache from the op
    /// before: with stripes of columns for each thread, a prompt of 512 tokens took 1.05 of the time.
    fn bands(&self, threads: usize, width: usize, token_bytes: usize) -> Vec<Range<usize>> {
        let most = (INPUT / token_bytes.max(1)).min(self.rows / threads).clamp(*BAND.start(), *BAND.end());
        let band = self.rows.div_ceil(self.rows.div_ceil(most)).next_multiple_of(width.max(TILE));
        (0..self.rows).step_by(band).map(|first| first..self.rows.min(first + band)).collect()
    }

    /// Brings all rows into tiles of `tile` words, in parallel where there are many.
    fn feed<W: Word>(&self, pool: &mut Pool, fed: &mut [W], width: usize, tile: usize) {
        let k = self.k;
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

/// Some groups of weight rows times some tiles of tokens.
pub struct Chunk<'a, R: Record> {
    /// `[groups][depth]`.
    records: &'a [R],
    /// Records of a group.
    pub depth: usize,
    /// Words of all tokens, `tile` for those that were fed together.
    pub x: &'a [R::Word],
    /// How many.
    pub tile: usize,
    /// Where the sums go.
    pub out: TileMut<'a>,
    /// What others will read.
    pub ahead: Walk<'a>,
}

impl<R: Sum> Chunk<'_, R> {
    /// Multiplies by tiles of up to eight tokens.
    pub fn multiply(self, isa: Isa, width: usize) {
        match width {
            1 => isa.run(ByTokens::<R, 1>(self)),
            2 => isa.run(ByTokens::<R, 2>(self)),
            4 => isa.run(ByTokens::<R, 4>(self)),
            8 => isa.run(ByTokens::<R, 8>(self)),
            _ => unreachable!("tiles of {width} tokens"),
        }
    }
}

impl<'a, R: Record> Chunk<'a, R> {
    /// The records of a group and those after them.
    #[inline(always)]
    pub fn group(&self, group: usize) -> (&'a [R], &'a [R]) {
        self.records.split_at(group * self.depth).1.split_at(self.depth)
    }

    /// The products of a group, whose weights `records` are, with all tiles of `T` tokens.
    #[inline(always)]
    fn multiply_group<S: Simd, Q: Sum<Word = R::Word>, const T: usize>(&mut self, s: S, group: usize, records: &[Q]) {
        let (tiles, (_, next)) = (self.out.rows.len().div_ceil(T), self.group(group));
        for (index, first) in self.out.rows.clone().step_by(T).enumerate() {
            let (places, x) = (self.places(group, first, T), &self.x[index * self.tile..][..self.tile]);
            let soon = Soon { records: next, asked: index, tiles, places, ahead: &mut self.ahead };
            let sums = sums::<S, R, Q, T>(s, records, soon, x);
            self.store(s, group, first, &sums);
        }
    }

    /// Addresses of what the sums of `tokens` tokens will be written to.
    #[inline(always)]
    pub fn places(&self, group: usize, first: usize, tokens: usize) -> StepBy<Range<usize>> {
        let at = |row| self.out.address(row) + group * size_of::<[f32; LANES]>();
        (at(first)..at(self.out.rows.end.min(first + tokens))).step_by(at(first + 1) - at(first))
    }

    /// Writes the sums of a group for the tokens from `first` on, as far as there are some.
    #[inline(always)]
    pub fn store<S: Simd>(&mut self, s: S, group: usize, first: usize, sums: &[S::F]) {
        for (t, &sum) in sums.iter().enumerate().take(self.out.rows.end - first) {
            s.store_part(sum, &mut self.out.row(first + t)[group * LANES..]);
        }
    }
}

impl<R: Bytes> Chunk<'_, R> {
    /// Whether there are many tokens, and the weights are not bytes as they are.
    fn is_worth_taking_apart(&self) -> bool {
        self.out.rows.len() >= MANY
            && !self.records.is_empty()
            && size_of::<R::Apart>() > size_of::<R>() / R::BLOCKS * 5 / 4
    }

    /// Multiplies by tiles of up to 16 tokens.
    pub fn multiply_bytes(self, isa: Isa, width: usize) {
        match width {
            TILE => isa.run(ByTiles(self)),
            4 if self.is_worth_taking_apart() => isa.run(ByTokensApart::<R, 4>(self)),
            8 if self.is_worth_taking_apart() => isa.run(ByTokensApart::<R, 8>(self)),
            _ => self.multiply(isa, width),
        }
    }
}

/// By tiles of `T` tokens.
struct ByTokens<'a, R: Sum, const T: usize>(Chunk<'a, R>);

impl<R: Sum, const T: usize> Kernel for ByTokens<'_, R, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut chunk = self.0;
        for group in 0..chunk.out.cols.len().div_ceil(LANES) {
            let (records, _) = chunk.group(group);
            chunk.multiply_group::<S, R, T>(s, group, records);
        }
    }
}

/// The same, the weights of a group being taken apart once for all its tiles.
struct ByTokensApart<'a, R: Bytes, const T: usize>(Chunk<'a, R>);

impl<R: Bytes, const T: usize> Kernel for ByTokensApart<'_, R, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut chunk = self.0;
        let Some(first) = chunk.records.first() else { unreachable!("weights in chunks of many rows") };
        let mut blocks = vec![first.apart(s, 0); chunk.depth * R::BLOCKS];
        for group in 0..chunk.out.cols.len().div_ceil(LANES) {
            for (record, blocks) in chunk.group(group).0.iter().zip(blocks.chunks_exact_mut(R::BLOCKS)) {
                for (block, place) in blocks.iter_mut().enumerate() {
                    *place = record.apart(s, block);
                }
            }
            chunk.multiply_group::<S, R::Apart, T>(s, group, &blocks);
        }
    }
}

thread_local! {
    /// Memory for unpacked weights.
    static UNPACKED: Cell<Vec<Numbers>> = const { Cell::new(Vec::new()) };
}

/// By whole tiles, for levels that multiply those at once. The first tile of a group unpacks its weights for all: each block a
/// little before it is multiplied, since a unit for tiles that waits falls asleep. The whole numbers of the next part are
/// multiplied while the sums of this one are scaled.
struct ByTiles<'a, R: Record>(Chunk<'a, R>);

impl<R: Bytes> Kernel for ByTiles<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Some(tiles) = s.tiles() else { unreachable!("tiles of {TILE} tokens") };
        let mut chunk = self.0;
        let count = chunk.out.rows.len().div_ceil(TILE);
        let blocks = chunk.depth * R::BLOCKS;
        let slots = if count == 1 { RING } else { blocks.next_power_of_two() };
        let mut kept = UNPACKED.take();
        kept.resize(kept.len().max(slots), Numbers::ZERO);
        let mut sums = [[Sums::ZERO; 2]; 2];
        for group in 0..chunk.out.cols.len().div_ceil(LANES) {
            let (records, next) = chunk.group(group);
            let mut weights = Unpacked { places: &mut kept[..slots], fresh: 0..blocks };
            for (index, first) in chunk.out.rows.clone().step_by(TILE).enumerate() {
                let (places, x) = (chunk.places(group, first, TILE), &chunk.x[index * chunk.tile..][..chunk.tile]);
                let soon = Soon { records: next, asked: index, tiles: count, places, ahead: &mut chunk.ahead };
                let f = tile_sums(s, &tiles, records, &mut weights, soon, x, &mut sums);
                chunk.store(s, group, first, &f);
            }
        }
        UNPACKED.set(kept);
    }
}

/// Weights of a group: block b is in place b modulo the number of places, a power of two.
struct Unpacked<'a> {
    places: &'a mut [Numbers],
    /// The blocks that are not there yet.
    fresh: Range<usize>,
}

impl Unpacked<'_> {
    #[inline(always)]
    fn place(&self, block: usize) -> usize {
        block & (self.places.len() - 1)
    }

    #[inline(always)]
    fn block(&self, block: usize) -> &Numbers {
        &self.places[self.place(block)]
    }

    /// Unpacks the blocks before block `end`.
    #[inline(always)]
    fn unpack<S: Simd, R: Bytes>(&mut self, s: S, records: &[R], end: usize) {
        while self.fresh.start < self.fresh.end.min(end) {
            let block = self.fresh.start;
            let place = self.place(block);
            records[block / R::BLOCKS].unpack(s, block % R::BLOCKS, &mut self.places[place]);
            self.fresh.start += 1;
        }
    }
}

/// The products of one group with one whole tile of tokens.
#[inline(always)]
fn tile_sums<S: Simd, R: Bytes>(
    s: S,
    tiles: &impl Tiles,
    records: &[R],
    weights: &mut Unpacked,
    mut soon: Soon<R>,
    x: &[i32],
    sums: &mut [[Sums; 2]; 2],
) -> [S::F; TILE] {
    let mut f = [s.zero(); TILE];
    let blocks = records.len() * R::BLOCKS;
    let (head, parts) = i32::split(x, blocks * R::STEPS);
    let parts: &[WholeTile] = parts.as_chunks().0.as_chunks().0;
    let count = i32::count(head, blocks);
    let [mut now, mut later] = sums.each_mut();
    weights.unpack(s, records, RING);
    multiply_part(tiles, R::HALVES, &parts[0], weights.block(i32::block(head, 0)), now);
    for part in 0..count {
        if part + 1 < count {
            let block = i32::block(head, part + 1);
            weights.unpack(s, records, block + RING);
            multiply_part(tiles, R::HALVES, &parts[part + 1], weights.block(block), later);
        }
        soon.ask(s, part);
        let (block, x) = (i32::block(head, part), &parts[part]);
        for (half, sums) in now.iter().enumerate().take(R::HALVES) {
            records[block / R::BLOCKS].add_sums(s, (block % R::BLOCKS, half), Stored { sums, x }, &mut f);
        }
        (now, later) = (later, now);
    }
    f
}

/// The sums of products of the whole numbers of a part.
#[inline(always)]
fn multiply_part(tiles: &impl Tiles, halves: usize, x: &WholeTile, w: &Numbers, sums: &mut [Sums; 2]) {
    let quants = x[..Fed::SCALE].as_flattened().as_chunks().0;
    tiles.multiply(halves, quants.try_into().expect("16 tokens"), w, sums);
}

/// What a tile asks for while it is multiplied.
pub struct Soon<'a, 'b, R> {
    /// The records after this group. Each tile asks for an equal share of them: with all of them asked for by the first tile,
    /// 16 rows took 1.07 of the time.
    pub records: &'a [R],
    /// The next one of the share.
    pub asked: usize,
    /// How many tiles share them.
    pub tiles: usize,
    /// Where the sums will go. Stores wait for memory in a queue, and when it is full everything waits: without asking, 512 rows
    /// took 1.25 of the time on an Intel, twice the time with whole tiles, whose sums are stored too.
    pub places: StepBy<Range<usize>>,
    /// What others will read.
    pub ahead: &'b mut Walk<'a>,
}

impl<R: Record> Soon<'_, '_, R> {
    /// Asks for a few lines beside part `part`.
    #[inline(always)]
    pub fn ask<S: Simd>(&mut self, s: S, part: usize) {
        if asks::<R>() {
            self.ahead.ask(s);
        }
        if let Some(place) = self.places.next() {
            s.prefetch_to_write(place);
        }
        if part == self.asked {
            if let Some(record) = self.records.get(part / R::BLOCKS) {
                s.prefetch_all(lines(record, part % R::BLOCKS, 0));
            }
            self.asked += self.tiles;
        }
    }
}

/// Addresses of the lines that lie `after` bytes after a block of a record.
#[inline(always)]
pub fn lines<R: Record>(record: &R, block: usize, after: usize) -> impl Iterator<Item = usize> {
    let share = size_of::<R>() / R::BLOCKS;
    let first = std::ptr::from_ref(record) as usize + block * share + after;
    (0..share.div_ceil(LINE)).map(move |line| first + line * LINE)
}

/// The products of one group with one tile of tokens; `records` are those of the group or the same taken apart.
#[inline(always)]
fn sums<S: Simd, R: Record, Q: Sum<Word = R::Word>, const T: usize>(
    s: S,
    records: &[Q],
    mut soon: Soon<R>,
    x: &[R::Word],
) -> [S::F; T] {
    let mut f = [s.zero(); T];
    let blocks = records.len() * Q::BLOCKS;
    let (head, parts) = Q::Word::split(x, blocks * Q::STEPS);
    let parts = parts.as_chunks::<T>().0;
    let count = Q::Word::count(head, blocks);
    // A walk: addresses with an index would cost Intel's processors two operations for each product (1.15 to 1.3 of the time).
    for (part, x) in parts.chunks_exact(Q::WORDS).take(count).enumerate() {
        let block = Q::Word::block(head, part);
        let record = &records[block / Q::BLOCKS];
        if T < ahead::TOKENS && soon.tiles == 1 {
            s.prefetch_all(lines(record, block % Q::BLOCKS, AHEAD));
        } else {
            soon.ask(s, part);
        }
        s.accumulate(record, block % Q::BLOCKS, x, &mut f);
    }
    f
}

#[cfg(test)]
mod tests {
    use super::super::factors::{Own, Raised, Stepped};
    use super::super::level::Level;
    use super::super::planes::{Bits, Joined, Levels};
    use super::super::simd::lanes;
    use super::super::slab::Slab;
    use super::super::tile::{Affine, FromBlock, Signed};
    use super::*;
    use crate::block::Block;
    use crate::dtype::DType;

    /// What AMX computes, in plain loops.
    struct Plain;

    impl Tiles for Plain {
        fn multiply(&self, halves: usize, x: &[[i32; 8]; TILE], w: &Numbers, sums: &mut [Sums; 2]) {
            *sums = [Sums::ZERO; 2];
            for (t, x) in x.iter().enumerate() {
                for (k, x) in x.iter().flat_map(|word| word.to_le_bytes()).enumerate() {
                    for r in 0..LANES {
                        let w = i32::from(w.0[k / 4][4 * r + k % 4] as i8);
                        sums[k / 16 * halves / 2].0[t][r] += w * i32::from(x as i8);
                    }
                }
            }
        }
    }

    /// Products of a group with 16 tokens: as a whole tile, then of each token alone.
    struct BothWays<'a, R> {
        records: &'a [R],
        rows: &'a [f32],
    }

    fn soon<'a, R>(ahead: &'a mut Walk<'a>) -> Soon<'a, 'a, R> {
        Soon { records: &[], asked: 0, tiles: 1, places: (0..0).step_by(1), ahead }
    }

    impl<R: Bytes> Kernel for BothWays<'_, R> {
        type Output = [Vec<[f32; LANES]>; 2];
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Self::Output {
            let k = self.records.len() * R::BLOCKS * R::STEPS;
            let mut x = vec![0; i32::tile(k, TILE)];
            i32::feed(s, self.rows, k, TILE, &mut x);
            let mut places = [Numbers::ZERO; RING];
            let mut weights = Unpacked { places: &mut places, fresh: 0..k / R::STEPS };
            let (mut sums_of_parts, mut ahead) = ([[Sums::ZERO; 2]; 2], [(); TILE + 1].map(|()| Walk::default()));
            let (of_tile, of_tokens) = ahead.split_first_mut().unwrap();
            let f = tile_sums(s, &Plain, self.records, &mut weights, soon(of_tile), &x, &mut sums_of_parts);
            let mut found = [vec![], vec![]];
            for ((row, ahead), f) in self.rows.chunks(k).zip(of_tokens).zip(f) {
                i32::feed(s, row, k, 1, &mut x);
                let [alone] = sums::<S, R, R, 1>(s, self.records, soon(ahead), &x[..i32::tile(k, 1)]);
                for (found, f) in found.iter_mut().zip([f, alone]) {
                    found.push(lanes(s, f));
                }
            }
            found
        }
    }

    fn check<R: Bytes + FromBlock>(dtype: DType) {
        let k = 1024;
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 16
        };
        let mut records = Slab::<R>::zeros(k / R::STEPS / R::BLOCKS).unwrap();
        for row in 0..LANES {
            let bytes: Vec<u8> = (0..dtype.row_bytes(k)).map(|_| random() as u8 & 0x2f).collect();
            for (i, block) in Block::of_row(dtype, &bytes).enumerate() {
                records[i / R::BLOCKS].set(row, i % R::BLOCKS, &block);
            }
        }
        let mut rows: Vec<f32> = (0..TILE * k).map(|_| random() as f32 / 32_768.0 - 1.0).collect();
        rows[5 * k + 40] = 90.0;
        for level in Level::available() {
            let [whole, alone] = Isa::detect(level).unwrap().run(BothWays { records: &records, rows: &rows });
            let bits = |f: &[[f32; LANES]]| f.as_flattened().iter().map(|f| f.to_bits()).collect::<Vec<_>>();
            assert!(whole.as_flattened().iter().all(|f| f.is_finite() && *f != 0.0), "{dtype} at {level}");
            assert_eq!(bits(&whole), bits(&alone), "{dtype} at {level}");
        }
    }

    /// All that AMX takes part in but its instruction, on machines that lack it too.
    #[test]
    fn whole_tiles_have_the_bits_of_single_tokens() {
        check::<Affine<Own, Own, Bits<4>, 1>>(DType::Q4_1);
        check::<Affine<Stepped<2>, Raised<32>, Joined<Bits<4>, Bits<2>>, 8>>(DType::Q6K);
        check::<Signed<Own, Bits<8>, 1>>(DType::Q8_0);
        check::<Signed<Stepped<1>, Levels, 8>>(DType::IQ4XS);
    }
}

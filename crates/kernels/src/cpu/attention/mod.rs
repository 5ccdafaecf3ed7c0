//! Attention over pages: scores of 16 tokens in one register, then the weighted sum of their values.
//!
//! The law: positions are cut into splits of [`SPLIT`] at fixed places. Within a split a row's softmax runs over its
//! pages in order; splits are merged in order. So a row's result depends on its own positions only: prefill, decode and
//! any chunking between them agree bit for bit. What a row may not see weighs nothing, whatever is in its place. Scores
//! are in base 2.

mod float;
mod quant;

use super::kv::{number, with_pages, Kv};
use super::pool::{Pool, TileMut};
use super::simd::{lanes, update, Isa, Kernel, Simd, LANES};
use crate::device::{Heads, KvShape, Span, PAGE};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Positions of one split.
pub const SPLIT: usize = 256;
/// Pages of one split.
const PAGES: usize = SPLIT / PAGE;
/// Most rows of one chunk.
const BAND: usize = 16;
/// Floats after a partial result's values: its maximum, its total, padding.
const TAIL: usize = LANES;

/// What the rows of a step ask for.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// Fused rows `[T, (H + 2K)·S]`.
    pub qkv: &'a [f32],
    /// Heads.
    pub heads: Heads,
    /// Layer.
    pub layer: usize,
    /// Most positions a row sees; 0: all.
    pub window: usize,
    /// Factor of the scores.
    pub scale: f32,
}

impl Ask<'_> {
    /// Query heads per key/value head.
    fn group(&self) -> usize {
        self.heads.q / self.heads.kv
    }

    /// Positions that the row at `position` sees.
    fn seen(&self, position: usize) -> Range<usize> {
        let end = position + 1;
        let start = if self.window == 0 { 0 } else { end.saturating_sub(self.window) };
        start..end
    }
}

/// Some rows of a span.
struct Band<'a> {
    span: &'a Span,
    rows: Range<usize>,
}

impl<'a> Band<'a> {
    fn of(span: &'a Span) -> impl Iterator<Item = Band<'a>> {
        let end = span.rows.end;
        span.rows.clone().step_by(BAND).map(move |first| Band { span, rows: first..end.min(first + BAND) })
    }

    fn position(&self, row: usize) -> usize {
        self.span.position + (row - self.span.rows.start)
    }

    /// Splits up to the last row's position.
    fn splits(&self) -> usize {
        self.position(self.rows.end).div_ceil(SPLIT)
    }
}

/// `out[T, H·S]`; spans are in order of their rows. `scratch` is kept for reuse.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    isa: Isa,
    pool: &mut Pool,
    scratch: &mut Vec<f32>,
    ask: Ask,
    kv: &Kv,
    spans: &[Span],
    out: &mut [f32],
) {
    let bands: Vec<Band> = spans.iter().flat_map(Band::of).collect();
    let splits = bands.iter().map(Band::splits).max().unwrap_or(0);
    with_pages!(&kv.pages, pages => {
        let step = Step { isa, ask, shape: &kv.shape, pages, bands: &bands };
        if splits > 1 && bands.len() * ask.heads.kv < 3 * pool.threads() {
            step.by_split(pool, scratch, splits, out);
        } else {
            step.by_band(pool, out);
        }
    });
}

/// The work of one call.
struct Step<'a, P> {
    isa: Isa,
    ask: Ask<'a>,
    shape: &'a KvShape,
    pages: &'a P,
    bands: &'a [Band<'a>],
}

impl<P: Pages> Step<'_, P> {
    /// Floats of one row's partial result: values, maximum, total.
    fn stride(&self) -> usize {
        self.ask.heads.size.next_multiple_of(LANES) + TAIL
    }

    /// Adds the splits of one band and head to `states`, one per query.
    fn attend(&self, band: &Band, head: usize, splits: Range<usize>, states: &mut [f32]) {
        let Step { ask, shape, pages, .. } = *self;
        self.isa.run(Attend { ask, shape, pages, band, head, splits, stride: self.stride(), states });
    }

    /// Gives each tile of the output to `f`, with the number of its band and its head.
    fn tiles(&self, pool: &mut Pool, out: &mut [f32], f: impl Fn(usize, usize, TileMut) + Sync) {
        let columns = self.ask.group() * self.ask.heads.size;
        let rows: Vec<Range<usize>> = self.bands.iter().map(|b| b.rows.clone()).collect();
        let width = self.ask.heads.q * self.ask.heads.size;
        pool.tiles(out, width, &rows, 0..width, columns, |band, tile| f(band, tile.cols.start / columns, tile));
    }

    /// One chunk per band and head: for many rows.
    fn by_band(&self, pool: &mut Pool, out: &mut [f32]) {
        self.tiles(pool, out, |band, head, mut tile| {
            let mut states = vec![0.0; tile.rows.len() * self.ask.group() * self.stride()];
            self.attend(&self.bands[band], head, 0..usize::MAX, &mut states);
            self.finish(&states, &mut tile);
        });
    }

    /// One chunk per band, head and split, then the splits merged: for few rows with many positions.
    fn by_split(&self, pool: &mut Pool, scratch: &mut Vec<f32>, splits: usize, out: &mut [f32]) {
        let rows = self.bands.iter().map(|b| b.rows.len()).max().unwrap_or(0);
        let (heads, piece) = (self.ask.heads.kv, rows * self.ask.group() * self.stride());
        scratch.clear();
        scratch.resize(self.bands.len() * heads * splits * piece, 0.0);
        pool.pieces(scratch, piece, |first, states| {
            let (split, of) = (first / piece % splits, first / piece / splits);
            self.attend(&self.bands[of / heads], of % heads, split..split + 1, states);
        });
        let partials = &scratch[..];
        self.tiles(pool, out, |band, head, mut tile| {
            let partials = &partials[(band * heads + head) * splits * piece..][..splits * piece];
            let mut states = vec![0.0; piece];
            partials
                .chunks_exact(piece)
                .for_each(|partial| self.isa.run(Merge { states: &mut states, partial, stride: self.stride() }));
            self.finish(&states, &mut tile);
        });
    }

    /// Writes `values / total` of each query.
    fn finish(&self, states: &[f32], tile: &mut TileMut) {
        let (group, size) = (self.ask.group(), self.ask.heads.size);
        let mut states = states.chunks_exact(self.stride());
        for row in tile.rows.clone() {
            for (out, state) in tile.row(row).chunks_exact_mut(size).zip(states.by_ref().take(group)) {
                let total = state[state.len() - TAIL + 1];
                out.iter_mut().zip(state).for_each(|(o, v)| *o = v / total);
            }
        }
    }
}

struct Merge<'a> {
    states: &'a mut [f32],
    partial: &'a [f32],
    stride: usize,
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (state, partial) in self.states.chunks_exact_mut(self.stride).zip(self.partial.chunks_exact(self.stride)) {
            merge(s, state, partial);
        }
    }
}

/// Adds a later split to the splits before it, by log-sum-exp; a total of 0 stands for no positions.
#[inline(always)]
fn merge<S: Simd>(s: S, state: &mut [f32], partial: &[f32]) {
    let values = state.len() - TAIL;
    let ((m, l), (pm, pl)) = ((state[values], state[values + 1]), (partial[values], partial[values + 1]));
    if pl == 0.0 {
        return;
    }
    if l == 0.0 {
        return state.copy_from_slice(partial);
    }
    let max = if pm > m { pm } else { m };
    let (a, b) = (s.pow2(s.splat(m - max)), s.pow2(s.splat(pm - max)));
    update!(s, state[..values], partial[..values], |x, y| s.mul_add(x, a, s.mul(y, b)));
    let total = s.mul_add(s.splat(l), a, s.mul(s.splat(pl), b));
    state[values..values + 2].copy_from_slice(&[max, lanes(s, total)[0]]);
}

/// How the pages of a format are attended to.
pub trait Pages: Sync {
    /// A word of a query, as it is multiplied with a vector of keys.
    type Word: Copy + Default;

    /// Writes the words of a query as column `i`, and returns what its scores are to be multiplied by besides `scale`.
    fn ready<S: Simd, const Q: usize>(&self, s: S, query: &[f32], scale: f32, i: usize, tile: &mut Tile<Self::Word, Q>);
    /// Values, maximum and total of the pages from `start` on, whose blocks are given, for each query of the tile. `P`
    /// pages are scored and `C` vectors of values summed at a time.
    fn partial<S: Simd, const Q: usize, const P: usize, const C: usize>(
        &self,
        s: S,
        tile: &Tile<Self::Word, Q>,
        start: usize,
        blocks: &[usize],
        partial: &mut [f32],
    );
}

/// Queries that are attended together.
pub struct Tile<W, const Q: usize> {
    /// `[words][Q]`.
    words: Vec<[W; Q]>,
    /// Factors of the scores.
    factors: [f32; Q],
    /// Positions that each sees; later queries see later ones.
    seen: [Range<usize>; Q],
    /// Floats of one partial result.
    stride: usize,
}

impl<W, const Q: usize> Tile<W, Q> {
    /// Lanes of page `page` that query `i` sees.
    #[inline(always)]
    fn lanes(&self, i: usize, page: usize) -> Range<usize> {
        let lane = |position: usize| position.saturating_sub(page * PAGE).min(PAGE);
        lane(self.seen[i].start)..lane(self.seen[i].end)
    }
}

/// One band and key/value head: the rows' queries that share its keys and values.
struct Attend<'a, P> {
    ask: Ask<'a>,
    shape: &'a KvShape,
    pages: &'a P,
    band: &'a Band<'a>,
    head: usize,
    splits: Range<usize>,
    stride: usize,
    /// `[rows · group][stride]`.
    states: &'a mut [f32],
}

impl<P: Pages> Kernel for Attend<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let queries = self.band.rows.len() * self.ask.group();
        let mut first = 0;
        while first < queries {
            first += match (queries - first).min(S::QUERIES) {
                8.. => self.queries::<S, 8, 2, 2>(s, first),
                4.. if S::QUERIES == 4 => self.queries::<S, 4, 1, 1>(s, first),
                4.. => self.queries::<S, 4, 4, 4>(s, first),
                3 => self.queries::<S, 3, 4, 4>(s, first),
                2 => self.queries::<S, 2, 4, 4>(s, first),
                _ => self.queries::<S, 1, 4, 4>(s, first),
            };
        }
    }
}

impl<P: Pages> Attend<'_, P> {
    /// Attends `Q` queries from `first` on; returns `Q`.
    #[inline(always)]
    fn queries<S: Simd, const Q: usize, const A: usize, const C: usize>(&mut self, s: S, first: usize) -> usize {
        let tile = self.tile::<S, Q>(s, first);
        let (start, end) = (tile.seen[0].start, tile.seen[Q - 1].end);
        let mut partial = vec![0.0; Q * self.stride];
        for split in self.splits.start.max(start / SPLIT)..self.splits.end.min(end.div_ceil(SPLIT)) {
            let first_page = (split * PAGES).max(start / PAGE);
            let last_page = ((split + 1) * PAGES).min(end.div_ceil(PAGE));
            let mut blocks = [0; PAGES];
            for (block, &page) in blocks.iter_mut().zip(&self.band.span.pages[first_page..last_page]) {
                *block = number(self.shape, self.ask.layer, page, self.head);
            }
            let blocks = &blocks[..last_page - first_page];
            self.pages.partial::<S, Q, A, C>(s, &tile, first_page, blocks, &mut partial);
            let states = self.states[first * self.stride..].chunks_exact_mut(self.stride);
            for (state, partial) in states.zip(partial.chunks_exact(self.stride)) {
                merge(s, state, partial);
            }
        }
        Q
    }

    #[inline(always)]
    fn tile<S: Simd, const Q: usize>(&self, s: S, first: usize) -> Tile<P::Word, Q> {
        let (Heads { size, .. }, group) = (self.ask.heads, self.ask.group());
        let seen =
            std::array::from_fn(|i| self.ask.seen(self.band.position(self.band.rows.start + (first + i) / group)));
        let mut tile = Tile { words: Vec::new(), factors: [0.0; Q], seen, stride: self.stride };
        for i in 0..Q {
            let (row, head) = (self.band.rows.start + (first + i) / group, self.head * group + (first + i) % group);
            let query = &self.ask.qkv[row * self.ask.heads.row() + head * size..][..size];
            self.pages.ready(s, query, self.ask.scale * LOG2_E, i, &mut tile);
        }
        tile
    }
}

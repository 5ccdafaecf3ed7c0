//! Queries that are attended together, over the pages of any format.

use super::{Ask, Row, PAGES, SPLIT, TAIL};
use crate::cpu::kv::number;
use crate::cpu::simd::{lanes, update, Kernel, Simd, LANES};
use crate::device::{Heads, KvShape, PAGE};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Scores of one query, then its weights, by page of the split.
pub type Scores = [[f32; LANES]; PAGES];

/// What a format of pages contributes: dots and sums.
pub trait Pages: Sync {
    /// Keys and values of a page, in a layer and of a head.
    type Block<'a>: Copy
    where
        Self: 'a;
    /// A word of a query, as it is multiplied with a vector of keys.
    type Word: Copy + Default;
    /// Weights of one query as the values are multiplied with them, besides its [`Scores`].
    type Weights: Copy;
    /// No weights.
    const NONE: Self::Weights;

    /// The block of a number.
    fn block(&self, number: usize) -> Self::Block<'_>;
    /// Words of a query of `size`.
    fn words(size: usize) -> usize;
    /// Writes the words of query `i`; returns what its scores are multiplied by.
    fn ready<S: Simd, const Q: usize>(
        &self,
        s: S,
        query: &[f32],
        scale: f32,
        i: usize,
        words: &mut [[Self::Word; Q]],
    ) -> f32;
    /// Scores of the tokens of `P` pages, before their factors.
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        queries: &[[Self::Word; Q]],
        blocks: &[Self::Block<'_>; P],
    ) -> [[S::F; Q]; P];
    /// Turns the scores of each query, of which `max` is the largest, into weights, 0 where it does not see; returns their
    /// totals.
    fn soften<S: Simd, const Q: usize>(
        &self,
        s: S,
        tile: &Tile<Self::Word, Q>,
        split: &mut Split<Self, Q>,
        max: [f32; Q],
    ) -> [f32; Q];
    /// Writes `C` vectors of the weighted sums of values, from vector `c` on.
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        tile: &Tile<Self::Word, Q>,
        split: &Split<Self, Q>,
        partial: &mut [f32],
    );
}

/// Queries that are attended together.
pub struct Tile<W, const Q: usize> {
    /// Words of the queries, side by side.
    words: Vec<[W; Q]>,
    /// Factors of the scores.
    factors: [f32; Q],
    /// Positions that each sees; later queries see later ones.
    pub seen: [Range<usize>; Q],
    /// Floats of one partial result.
    pub stride: usize,
}

/// The pages of a split that a tile sees, and its weights.
pub struct Split<'a, P: Pages + ?Sized + 'a, const Q: usize> {
    /// Number of the first page.
    pub start: usize,
    /// Their blocks.
    pub blocks: &'a [P::Block<'a>],
    pub scores: &'a mut [Scores; Q],
    pub weights: &'a mut [P::Weights; Q],
    /// What the weights count.
    pub steps: [f32; Q],
}

/// What one query sees of the pages of a split.
#[derive(Clone, Copy)]
pub struct View<'a> {
    seen: &'a Range<usize>,
    start: usize,
    /// What the scores are multiplied by.
    pub factor: f32,
}

impl View<'_> {
    /// Lanes of the page at `index` that it sees.
    #[inline(always)]
    pub fn lanes(&self, index: usize) -> Range<usize> {
        let lane = |position: usize| position.saturating_sub((self.start + index) * PAGE).min(PAGE);
        lane(self.seen.start)..lane(self.seen.end)
    }

    /// Pages that it sees all of, by their index.
    #[inline(always)]
    pub fn whole(&self) -> Range<usize> {
        whole(self.seen.start, self.seen.end, self.start)
    }
}

/// Pages of which all is seen from a position on to another, counted from `start`.
#[inline(always)]
fn whole(from: usize, to: usize, start: usize) -> Range<usize> {
    from.div_ceil(PAGE).saturating_sub(start)..(to / PAGE).saturating_sub(start)
}

impl<W, const Q: usize> Tile<W, Q> {
    /// What query `i` sees.
    #[inline(always)]
    pub fn view(&self, i: usize, start: usize) -> View<'_> {
        View { seen: &self.seen[i], start, factor: self.factors[i] }
    }

    /// Pages that all queries see all of, counted from `start`.
    #[inline(always)]
    fn whole(&self, start: usize) -> Range<usize> {
        whole(self.seen[Q - 1].start, self.seen[0].end, start)
    }
}

/// Rows over the same pages and one key/value head: the queries that share its keys and values.
pub struct Attend<'a, P> {
    pub ask: Ask<'a>,
    pub shape: &'a KvShape,
    pub pages: &'a P,
    pub rows: &'a [Row<'a>],
    pub head: usize,
    pub splits: Range<usize>,
    pub stride: usize,
    /// `[rows · group][stride]`.
    pub states: &'a mut [f32],
}

impl<P: Pages> Kernel for Attend<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let queries = self.rows.len() * self.ask.group();
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
    /// Attends `Q` queries from `first` on, `A` pages and `C` vectors of values at a time; returns `Q`.
    #[inline(always)]
    fn queries<S: Simd, const Q: usize, const A: usize, const C: usize>(&mut self, s: S, first: usize) -> usize {
        let tile = self.tile::<S, Q>(s, first);
        let (start, end) = (tile.seen[0].start, tile.seen[Q - 1].end);
        let table = self.rows[self.rows.len() - 1].pages;
        let mut partial = Vec::new();
        let (mut scores, mut weights) = ([[[0.0; LANES]; PAGES]; Q], [P::NONE; Q]);
        let states = &mut self.states[first * self.stride..][..Q * self.stride];
        states.chunks_exact_mut(self.stride).for_each(|state| state[self.stride - TAIL..][..2].fill(0.0));
        let first_split = self.splits.start.max(start / SPLIT);
        for split in first_split..self.splits.end.min(end.div_ceil(SPLIT)) {
            // The first split needs no merging.
            let is_later = split > first_split;
            let first_page = (split * PAGES).max(start / PAGE);
            let last_page = ((split + 1) * PAGES).min(end.div_ceil(PAGE));
            let table = &table[first_page..last_page];
            let block = |page| self.pages.block(number(self.shape, self.ask.layer, page, self.head));
            let mut blocks = [block(table[0]); PAGES];
            for (place, &page) in blocks.iter_mut().zip(table) {
                *place = block(page);
            }
            let blocks = &blocks[..table.len()];
            let (scores, weights, steps) = (&mut scores, &mut weights, [0.0; Q]);
            let split = Split { start: first_page, blocks, scores, weights, steps };
            partial.resize(if is_later { states.len() } else { 0 }, 0.0);
            let place = if is_later { &mut partial[..] } else { &mut *states };
            partial_result::<S, P, Q, A, C>(s, self.pages, &tile, split, place);
            merge(s, self.stride, states, &partial);
        }
        Q
    }

    #[inline(always)]
    fn tile<S: Simd, const Q: usize>(&self, s: S, first: usize) -> Tile<P::Word, Q> {
        let (Heads { size, .. }, group) = (self.ask.heads, self.ask.group());
        let seen = std::array::from_fn(|i| self.ask.seen(self.rows[(first + i) / group].position));
        let (mut words, mut factors) = (vec![[P::Word::default(); Q]; P::words(size)], [0.0; Q]);
        for (i, factor) in factors.iter_mut().enumerate() {
            let (row, head) = (self.rows[(first + i) / group].row, self.head * group + (first + i) % group);
            let query = &self.ask.qkv[row * self.ask.heads.row() + head * size..][..size];
            *factor = self.pages.ready(s, query, self.ask.scale * LOG2_E, i, &mut words);
        }
        Tile { words, factors, seen, stride: self.stride }
    }
}

/// Values, maximum and total of a split for each query of the tile.
#[inline(always)]
fn partial_result<S: Simd, P: Pages, const Q: usize, const A: usize, const C: usize>(
    s: S,
    pages: &P,
    tile: &Tile<P::Word, Q>,
    mut split: Split<P, Q>,
    partial: &mut [f32],
) {
    let largest = masked_scores::<S, P, Q, A>(s, pages, tile, &mut split);
    let mut max = [0.0; Q];
    for i in 0..Q {
        max[i] = s.largest(largest[i]);
    }
    let totals = pages.soften(s, tile, &mut split, max);
    for i in 0..Q {
        let tail = (i + 1) * tile.stride - TAIL;
        partial[tail..tail + 2].copy_from_slice(&[max[i] * tile.factors[i], totals[i]]);
    }
    let count = (tile.stride - TAIL) / LANES;
    let wide = count / C * C;
    for c in (0..wide).step_by(C) {
        pages.values::<S, Q, C>(s, c, tile, &split, partial);
    }
    for c in wide..count {
        pages.values::<S, Q, 1>(s, c, tile, &split, partial);
    }
}

/// Scores of the pages, −∞ where a query does not see, and the largest of each lane.
#[inline(always)]
fn masked_scores<S: Simd, P: Pages, const Q: usize, const A: usize>(
    s: S,
    pages: &P,
    tile: &Tile<P::Word, Q>,
    split: &mut Split<P, Q>,
) -> [S::F; Q] {
    let mut largest = [s.splat(f32::NEG_INFINITY); Q];
    let (whole, mut page) = (tile.whole(split.start), 0);
    while page < split.blocks.len() {
        let mut scores = [[s.zero(); Q]; A];
        let several = split.blocks[page..].first_chunk::<A>();
        match several {
            Some(blocks) => scores = pages.scores::<S, Q, A>(s, &tile.words, blocks),
            None => scores[0] = pages.scores::<S, Q, 1>(s, &tile.words, &[split.blocks[page]])[0],
        }
        for scores in &mut scores[..several.map_or(1, |n| n.len())] {
            if !whole.contains(&page) {
                for (i, score) in scores.iter_mut().enumerate() {
                    let seen = tile.view(i, split.start).lanes(page);
                    *score = s.within(seen, *score, s.splat(f32::NEG_INFINITY));
                }
            }
            for i in 0..Q {
                largest[i] = s.max(scores[i], largest[i]);
                s.store(scores[i], &mut split.scores[i][page]);
            }
            page += 1;
        }
    }
    largest
}

/// `values / total` of a query.
pub struct Finish<'a> {
    pub state: &'a [f32],
    pub out: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let total = s.splat(self.state[self.state.len() - TAIL + 1]);
        for (out, values) in self.out.chunks_mut(LANES).zip(self.state.as_chunks().0) {
            s.store_part(s.div(s.load(values), total), out);
        }
    }
}

/// Adds later splits to those before them.
pub struct Merge<'a> {
    pub states: &'a mut [f32],
    pub partial: &'a [f32],
    pub stride: usize,
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        merge(s, self.stride, self.states, self.partial);
    }
}

/// Adds a later split to the splits before it, by log-sum-exp; a total of 0 stands for no positions.
#[inline(always)]
fn merge<S: Simd>(s: S, stride: usize, states: &mut [f32], partial: &[f32]) {
    let (values, several) = (stride - TAIL, LANES * stride);
    for (states, partial) in states.chunks_mut(several).zip(partial.chunks(several)) {
        let tails = states.chunks_exact(stride).zip(partial.chunks_exact(stride));
        let [mut most, mut total, mut later_most, mut later_total] = [[0.0; LANES]; 4];
        for (i, (state, later)) in tails.enumerate() {
            [most[i], total[i]] = [state[values], state[values + 1]];
            [later_most[i], later_total[i]] = [later[values], later[values + 1]];
        }
        let max = s.max(s.load(&later_most), s.load(&most));
        let (a, b) = (s.pow2(s.sub(s.load(&most), max)), s.pow2(s.sub(s.load(&later_most), max)));
        let both = s.mul_add(s.load(&total), a, s.mul(s.load(&later_total), b));
        let [max, both, a, b] = [lanes(s, max), lanes(s, both), lanes(s, a), lanes(s, b)];
        for (i, (state, later)) in states.chunks_exact_mut(stride).zip(partial.chunks_exact(stride)).enumerate() {
            if later_total[i] == 0.0 {
                continue;
            }
            if total[i] == 0.0 {
                state.copy_from_slice(later);
                continue;
            }
            update!(s, state[..values], later[..values], |x, y| s.mul_add(x, s.splat(a[i]), s.mul(y, s.splat(b[i]))));
            state[values..values + 2].copy_from_slice(&[max[i], both[i]]);
        }
    }
}

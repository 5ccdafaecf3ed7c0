//! Attention over pages: scores of 16 tokens in one register, values added token by token.
//!
//! The law: positions are cut into splits of [`SPLIT`] at fixed places. Within a split a row's softmax runs over its
//! pages in order; splits are merged in order. So a row's result depends on its own positions only: prefill, decode and
//! any chunking between them agree bit for bit. Tokens that a row may not see are never multiplied, only skipped.

use super::kv::{with_pages, Kv, Pages};
use super::pool::{Pool, TileMut};
use super::simd::{lanes, update, Element, Isa, Kernel, Simd, LANES};
use super::slab::Plain;
use crate::device::{Heads, Span, PAGE};
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
        let step = Step { isa, ask, pages, bands: &bands };
        if splits > 1 && bands.len() * ask.heads.kv < 3 * pool.threads() {
            step.by_split(pool, scratch, splits, out);
        } else {
            step.by_band(pool, out);
        }
    });
}

/// The work of one call.
struct Step<'a, E: Plain> {
    isa: Isa,
    ask: Ask<'a>,
    pages: &'a Pages<E>,
    bands: &'a [Band<'a>],
}

impl<E: Element + Plain> Step<'_, E> {
    /// Floats of one row's partial result: values, maximum, total.
    fn stride(&self) -> usize {
        self.pages.value_vectors() * LANES + TAIL
    }

    /// Adds the splits of one band and head to `states`, one per query.
    fn attend(&self, band: &Band, head: usize, splits: Range<usize>, states: &mut [f32]) {
        let (ask, pages) = (self.ask, self.pages);
        self.isa.run(Attend { ask, pages, band, head, splits, stride: self.stride(), states });
    }

    /// Gives each tile of the output to `f`, with the number of its band and its head.
    fn tiles(&self, pool: &mut Pool, out: &mut [f32], f: impl Fn(usize, usize, TileMut) + Sync) {
        let columns = self.ask.group() * self.ask.heads.size;
        let rows: Vec<Range<usize>> = self.bands.iter().map(|b| b.rows.clone()).collect();
        let width = self.ask.heads.q * self.ask.heads.size;
        pool.tiles(out, width, &rows, columns, |band, tile| f(band, tile.cols.start / columns, tile));
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
    let (a, b) = (s.exp(s.splat(m - max)), s.exp(s.splat(pm - max)));
    update!(s, state[..values], partial[..values], |x, y| s.mul_add(x, a, s.mul(y, b)));
    let total = s.mul_add(s.splat(l), a, s.mul(s.splat(pl), b));
    state[values..values + 2].copy_from_slice(&[max, lanes(s, total)[0]]);
}

/// One band and key/value head: the rows' queries that share its keys and values.
struct Attend<'a, E: Plain> {
    ask: Ask<'a>,
    pages: &'a Pages<E>,
    band: &'a Band<'a>,
    head: usize,
    splits: Range<usize>,
    stride: usize,
    /// `[rows · group][stride]`.
    states: &'a mut [f32],
}

impl<E: Element + Plain> Kernel for Attend<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let queries = self.band.rows.len() * self.ask.group();
        let mut first = 0;
        while first < queries {
            first += match (queries - first).min(S::QUERIES) {
                8.. => self.queries::<S, 8, 1, 2>(s, first),
                4.. if S::QUERIES == 4 => self.queries::<S, 4, 1, 1>(s, first),
                4.. => self.queries::<S, 4, 2, 4>(s, first),
                3 => self.queries::<S, 3, 2, 4>(s, first),
                2 => self.queries::<S, 2, 4, 4>(s, first),
                _ => self.queries::<S, 1, 4, 4>(s, first),
            };
        }
    }
}

impl<E: Element + Plain> Attend<'_, E> {
    /// Attends `Q` queries from `first` on, scores `P` pages and sums `C` vectors of values at a time; returns `Q`.
    #[inline(always)]
    fn queries<S: Simd, const Q: usize, const P: usize, const C: usize>(&mut self, s: S, first: usize) -> usize {
        let q = self.scaled::<Q>(first);
        let seen = std::array::from_fn::<_, Q, _>(|i| {
            self.ask.seen(self.band.position(self.band.rows.start + (first + i) / self.ask.group()))
        });
        let (start, end) = (seen[0].start, seen[Q - 1].end);
        let mut partial = vec![0.0; Q * self.stride];
        for split in self.splits.start.max(start / SPLIT)..self.splits.end.min(end.div_ceil(SPLIT)) {
            self.split::<S, Q, P, C>(s, &q, &seen, split, &mut partial);
            let states = self.states[first * self.stride..].chunks_exact_mut(self.stride);
            for (state, partial) in states.zip(partial.chunks_exact(self.stride)) {
                merge(s, state, partial);
            }
        }
        Q
    }

    /// The queries times the scale, `[S][Q]`.
    #[inline(always)]
    fn scaled<const Q: usize>(&self, first: usize) -> Vec<[f32; Q]> {
        let (Heads { size, .. }, group) = (self.ask.heads, self.ask.group());
        let mut q = vec![[0.0; Q]; size];
        for i in 0..Q {
            let (row, head) = (self.band.rows.start + (first + i) / group, self.head * group + (first + i) % group);
            let values = &self.ask.qkv[row * self.ask.heads.row() + head * size..][..size];
            q.iter_mut().zip(values).for_each(|(q, v)| q[i] = v * self.ask.scale);
        }
        q
    }

    /// Values, maximum and total of one split.
    #[inline(always)]
    fn split<S: Simd, const Q: usize, const P: usize, const C: usize>(
        &self,
        s: S,
        q: &[[f32; Q]],
        seen: &[Range<usize>; Q],
        split: usize,
        partial: &mut [f32],
    ) {
        let start = (split * PAGES).max(seen[0].start / PAGE);
        let end = ((split + 1) * PAGES).min(seen[Q - 1].end.div_ceil(PAGE));
        let numbers = &self.band.span.pages[start..end];
        let mut weights = [[[0.0; LANES]; PAGES]; Q];
        let largest = self.scores::<S, Q, P>(s, q, seen, start, numbers, &mut weights);
        for i in 0..Q {
            let max = s.largest(largest[i]);
            let total = soften(s, &seen[i], start, max, &mut weights[i][..numbers.len()]);
            let tail = (i + 1) * self.stride - TAIL;
            partial[tail..tail + 2].copy_from_slice(&[max, total]);
        }
        let count = self.pages.value_vectors();
        let wide = count / C * C;
        for c in (0..wide).step_by(C) {
            self.values::<S, Q, C>(s, c, seen, start, numbers, &weights, partial);
        }
        for c in wide..count {
            self.values::<S, Q, 1>(s, c, seen, start, numbers, &weights, partial);
        }
    }

    /// Scores of the pages, −∞ where a row does not see, and the largest of each lane.
    #[inline(always)]
    fn scores<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        q: &[[f32; Q]],
        seen: &[Range<usize>; Q],
        start: usize,
        numbers: &[u32],
        weights: &mut [[[f32; LANES]; PAGES]; Q],
    ) -> [S::F; Q] {
        let mut largest = [s.splat(f32::NEG_INFINITY); Q];
        let mut page = 0;
        while page < numbers.len() {
            let mut dots = [[s.zero(); Q]; P];
            let several = numbers[page..].first_chunk::<P>();
            match several {
                Some(numbers) => dots = self.dots::<S, Q, P>(s, q, numbers),
                None => dots[0] = self.dots::<S, Q, 1>(s, q, &[numbers[page]])[0],
            }
            for dots in &dots[..several.map_or(1, |n| n.len())] {
                for i in 0..Q {
                    let lanes = lanes_seen(&seen[i], start + page);
                    let score = s.within(lanes, dots[i], s.splat(f32::NEG_INFINITY));
                    largest[i] = s.max(score, largest[i]);
                    s.store(score, &mut weights[i][page]);
                }
                page += 1;
            }
        }
        largest
    }

    /// `Σ_d q[d] · key[d]` of `P` pages.
    #[inline(always)]
    fn dots<S: Simd, const Q: usize, const P: usize>(
        &self,
        s: S,
        q: &[[f32; Q]],
        numbers: &[u32; P],
    ) -> [[S::F; Q]; P] {
        let mut pages = [&[][..]; P];
        for p in 0..P {
            pages[p] = &self.pages.block(self.ask.layer, numbers[p], self.head).0[..q.len()];
        }
        let mut dots = [[s.zero(); Q]; P];
        for (d, q) in q.iter().enumerate() {
            let mut keys = [s.zero(); P];
            for p in 0..P {
                keys[p] = E::load(s, &pages[p][d]);
            }
            for i in 0..Q {
                let q = s.splat(q[i]);
                for p in 0..P {
                    dots[p][i] = s.mul_add(keys[p], q, dots[p][i]);
                }
            }
        }
        dots
    }

    /// `C` vectors of the weighted sum of values, from vector `c` on.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn values<S: Simd, const Q: usize, const C: usize>(
        &self,
        s: S,
        c: usize,
        seen: &[Range<usize>; Q],
        start: usize,
        numbers: &[u32],
        weights: &[[[f32; LANES]; PAGES]; Q],
        partial: &mut [f32],
    ) {
        let count = self.pages.value_vectors();
        let mut sums = [[s.zero(); C]; Q];
        for (page, &number) in numbers.iter().enumerate() {
            let values = self.pages.block(self.ask.layer, number, self.head).1;
            let rows = seen.each_ref().map(|seen| lanes_seen(seen, start + page));
            let all = rows.iter().all(|lanes| lanes.len() == PAGE);
            for (t, values) in values.chunks_exact(count).enumerate() {
                let values: &[[E; LANES]; C] = values[c..].first_chunk().expect("C vectors from c");
                for i in 0..Q {
                    if all || rows[i].contains(&t) {
                        let weight = s.splat(weights[i][page][t]);
                        for j in 0..C {
                            sums[i][j] = s.mul_add(E::load(s, &values[j]), weight, sums[i][j]);
                        }
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let out = partial[i * self.stride + c * LANES..].as_chunks_mut().0;
            for (out, &sum) in out.iter_mut().zip(sums) {
                s.store(sum, out);
            }
        }
    }
}

/// Lanes of page `page` that are within `seen`.
#[inline(always)]
fn lanes_seen(seen: &Range<usize>, page: usize) -> Range<usize> {
    let lane = |position: usize| position.saturating_sub(page * PAGE).min(PAGE);
    lane(seen.start)..lane(seen.end)
}

/// Turns scores into `e^(score − max)` and returns their sum; 0 where a row does not see.
#[inline(always)]
fn soften<S: Simd>(s: S, seen: &Range<usize>, start: usize, max: f32, pages: &mut [[f32; LANES]]) -> f32 {
    let (max, mut total) = (s.splat(max), s.zero());
    for (page, scores) in pages.iter_mut().enumerate() {
        let weight = s.within(lanes_seen(seen, start + page), s.exp(s.sub(s.load(scores), max)), s.zero());
        total = s.add(total, weight);
        s.store(weight, scores);
    }
    s.sum(total)
}

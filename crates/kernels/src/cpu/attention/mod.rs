//! Attention over pages: scores of 16 tokens in one register, then the weighted sum of their values.
//!
//! The law: positions are cut into splits of [`SPLIT`] at fixed places. Within a split a row's softmax runs over its
//! pages in order; splits are merged in order. So a row's result depends on its own positions only: prefill, decode and
//! any chunking between them agree bit for bit, and so do rows that read a common split together (tree attention). What a
//! row may not see weighs nothing, whatever is in its place. Scores are in base 2.

mod float;
mod quant;
mod share;
mod tile;

use super::kv::{with_pages, Kv};
use super::pool::{Pool, TileMut};
use super::simd::{Isa, LANES};
use crate::device::{Heads, KvShape, Span, PAGE};
use share::Piece;
use std::ops::Range;
use tile::{Attend, Finish, Merge, Pages};

/// Positions of one split.
pub const SPLIT: usize = 256;
/// Pages of one split.
const PAGES: usize = SPLIT / PAGE;
/// Most rows of one chunk.
pub const BAND: usize = 16;
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

/// A row of the step with the pages of its sequence.
#[derive(Clone, Copy)]
struct Row<'a> {
    row: usize,
    position: usize,
    pages: &'a [u32],
}

impl<'a> Row<'a> {
    fn of(span: &'a Span) -> impl Iterator<Item = Row<'a>> {
        let position = |row| span.position + (row - span.rows.start);
        span.rows.clone().map(move |row| Row { row, position: position(row), pages: &span.pages })
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
    let chunks: usize = spans.iter().map(|span| span.rows.len().div_ceil(BAND) * ask.heads.kv).sum();
    let many = chunks >= 3 * pool.threads();
    let (single, several): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|span| span.rows.len() == 1 || !many);
    let mut single: Vec<Row> = single.into_iter().flat_map(Row::of).collect();
    let mut several: Vec<Row> = several.into_iter().flat_map(Row::of).collect();
    let enough = (3 * pool.threads()).div_ceil(ask.heads.kv);
    let mut pieces = share::pieces(&ask, &single, enough);
    if many && pieces.iter().all(|piece| piece.rows.len() == 1) {
        several.append(&mut single);
        several.sort_unstable_by_key(|row| row.row);
        pieces.clear();
    }
    with_pages!(&kv.pages, pages => {
        let step = Step { isa, ask, shape: &kv.shape, pages };
        step.by_split(pool, scratch, &single, &pieces, out);
        step.by_band(pool, &several, out);
    });
}

/// The work of one call.
struct Step<'a, P> {
    isa: Isa,
    ask: Ask<'a>,
    shape: &'a KvShape,
    pages: &'a P,
}

impl<P: Pages> Step<'_, P> {
    /// Floats of one query's state or partial result: values, maximum, total.
    fn stride(&self) -> usize {
        self.ask.heads.size.next_multiple_of(LANES) + TAIL
    }

    /// Floats of the states of one row below one key/value head.
    fn states(&self) -> usize {
        self.ask.group() * self.stride()
    }

    /// Sets `states`, those of the rows, to what they see of these splits; the rows have the pages of the last.
    fn attend(&self, rows: &[Row], head: usize, splits: Range<usize>, states: &mut [f32]) {
        let Step { ask, shape, pages, .. } = *self;
        self.isa.run(Attend { ask, shape, pages, rows, head, splits, stride: self.stride(), states });
    }

    /// One chunk per head and 16 rows of a sequence: for many rows.
    fn by_band(&self, pool: &mut Pool, rows: &[Row], out: &mut [f32]) {
        let same = |a: &Row, b: &Row| std::ptr::eq(a.pages, b.pages) && a.row + 1 == b.row;
        let bands: Vec<&[Row]> = rows.chunk_by(same).flat_map(|span| span.chunks(BAND)).collect();
        let ranges: Vec<_> = bands.iter().map(|band| band[0].row..band[band.len() - 1].row + 1).collect();
        let (columns, width) = (self.ask.group() * self.ask.heads.size, self.ask.heads.q * self.ask.heads.size);
        pool.tiles(out, width, &ranges, 0..width, columns, |band, mut tile| {
            let mut states = vec![0.0; tile.rows.len() * self.states()];
            self.attend(bands[band], tile.cols.start / columns, 0..usize::MAX, &mut states);
            for (row, states) in tile.rows.clone().zip(states.chunks_exact(self.states())) {
                self.finish(states, tile.row(row));
            }
        });
    }

    /// One chunk per head and piece, then the splits of each row merged: for rows that share pages, and for few rows with
    /// many positions.
    fn by_split(&self, pool: &mut Pool, scratch: &mut Vec<f32>, rows: &[Row], pieces: &[Piece], out: &mut [f32]) {
        let (heads, states) = (self.ask.heads.kv, self.states());
        let len = pieces.iter().map(|piece| piece.rows.len()).sum::<usize>() * heads * states;
        scratch.resize(len.max(scratch.len()), 0.0);
        let mut rest = &mut scratch[..len];
        let mut chunks = Vec::with_capacity(pieces.len() * heads);
        for piece in pieces {
            for head in 0..heads {
                chunks.push((piece, head, rest.split_off_mut(..piece.rows.len() * states).expect("as long as all")));
            }
        }
        pool.each(&mut chunks, |_, (piece, head, partials)| {
            self.attend(&piece.rows, *head, piece.splits.clone(), partials);
        });
        let partials = &scratch[..len];
        let parts = share::parts(rows, pieces, heads);
        let ranges: Vec<_> = rows.iter().map(|row| row.row..row.row + 1).collect();
        let width = self.ask.heads.q * self.ask.heads.size;
        pool.tiles(out, width, &ranges, 0..width, width, |row, tile| {
            self.join(partials, &parts[row], tile);
        });
    }

    /// Merges the partial results of one row.
    fn join(&self, partials: &[f32], parts: &[share::Part], mut tile: TileMut) {
        let (heads, len) = (self.ask.heads.kv, self.states());
        let row = tile.rows.start;
        let out = tile.row(row);
        let columns = out.len() / heads;
        let mut states = vec![0.0; len];
        for (head, out) in out.chunks_exact_mut(columns).enumerate() {
            states.fill(0.0);
            for part in parts {
                let partial = &partials[part.place(head) * len..][..len];
                self.isa.run(Merge { states: &mut states, partial, stride: self.stride() });
            }
            self.finish(&states, out);
        }
    }

    /// Writes `values / total` of each query of a row and head.
    fn finish(&self, states: &[f32], out: &mut [f32]) {
        for (out, state) in out.chunks_exact_mut(self.ask.heads.size).zip(states.chunks_exact(self.stride())) {
            self.isa.run(Finish { state, out });
        }
    }
}

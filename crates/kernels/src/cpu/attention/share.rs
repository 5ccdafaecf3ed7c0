//! Which rows read which splits together.
//!
//! The law: rows whose sequences have the same pages up to the end of a split form a piece of it, so that its keys and
//! values are read once for all of them. As pages name prefixes, this is a walk down the tree of prefixes.

use super::{Ask, Row, BAND, PAGES, SPLIT};
use crate::device::PAGE;
use std::ops::Range;

/// Up to [`BAND`] rows that see some splits of the same pages: one split, or the first few.
pub struct Piece<'a> {
    pub splits: Range<usize>,
    /// Ascending by position.
    pub rows: Vec<Row<'a>>,
}

impl<'a> Row<'a> {
    /// Its pages in a split; none where it does not reach it.
    fn of_split(&self, split: usize) -> &'a [u32] {
        let end = (self.position / PAGE + 1).min((split + 1) * PAGES);
        &self.pages[(split * PAGES).min(end)..end]
    }
}

/// All splits that the rows see, in the order of each row. The first splits of rows that have them in common are one piece,
/// where that leaves `enough` pieces; later splits are pieces of their own, so that all are merged in order.
pub fn pieces<'a>(ask: &Ask, rows: &[Row<'a>], enough: usize) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    let mut open = together(rows.to_vec(), 0);
    let whole = open.iter().map(|(_, rows)| rows.len().div_ceil(BAND)).sum::<usize>() >= enough;
    while let Some((split, rows)) = open.pop() {
        let splits = split..if split == 0 && whole { common(&rows) } else { split + 1 };
        let seeing = rows.iter().filter(|row| ask.seen(row.position).start < splits.end * SPLIT);
        let seeing: Vec<_> = seeing.copied().collect();
        pieces.extend(seeing.chunks(BAND).map(|rows| Piece { splits: splits.clone(), rows: rows.to_vec() }));
        open.extend(together(rows, splits.end));
    }
    pieces
}

/// The rows that reach a split, by its pages: sorted by them, rows stand together of which each has the pages of the one
/// before it, the last most of them.
fn together(mut rows: Vec<Row>, split: usize) -> Vec<(usize, Vec<Row>)> {
    rows.retain(|row| row.position >= split * SPLIT);
    rows.sort_by_key(|row| (row.of_split(split), row.position));
    let classes = rows.chunk_by(|a, b| b.of_split(split).starts_with(a.of_split(split)));
    classes.map(|rows| (split, rows.to_vec())).collect()
}

/// How many splits the rows have in common, at least the first.
fn common(rows: &[Row]) -> usize {
    let same = |split: usize| {
        let pages = rows[0].of_split(split);
        !pages.is_empty() && rows.iter().all(|row| row.of_split(split) == pages)
    };
    (1..).find(|&split| !same(split)).expect("rows end")
}

/// Where the partial result of one row and piece is, in results of a row and head: those of a piece stand together, head
/// by head.
pub struct Part {
    /// Of the piece.
    first: usize,
    /// Rows of the piece.
    rows: usize,
    /// Of the row among them.
    index: usize,
}

impl Part {
    /// The place of the result for `head`.
    pub fn place(&self, head: usize) -> usize {
        self.first + head * self.rows + self.index
    }
}

/// The parts of each row, in order.
pub fn parts(rows: &[Row], pieces: &[Piece], heads: usize) -> Vec<Vec<Part>> {
    let mut parts: Vec<Vec<Part>> = rows.iter().map(|_| Vec::new()).collect();
    let mut first = 0;
    for piece in pieces {
        for (index, row) in piece.rows.iter().enumerate() {
            let of = rows.binary_search_by_key(&row.row, |row| row.row).expect("pieces are made of these rows");
            parts[of].push(Part { first, rows: piece.rows.len(), index });
        }
        first += piece.rows.len() * heads;
    }
    parts
}

//! Memory that is read soon, asked for while products compute.
//!
//! The law: asking changes no result and reads nothing, so that addresses are plain numbers here. A few lines at a time go
//! between other work: many at once would have to wait for each other.

use super::kv::Kv;
use super::simd::Simd;
use super::slab::LINE;
use crate::device::{Span, PAGE};
use std::ops::Range;

/// Products with tiles of at least so many tokens ask for what others will read. With fewer, memory is busy with their weights;
/// with many it idles.
pub const TOKENS: usize = 8;
/// About how many lines are asked for before they are read: 1.5 MiB, what second-level caches can hold beside the products.
const MOST: usize = 24 << 10;

/// Some memory.
struct Stretch {
    address: usize,
    lines: usize,
    /// Lines of the stretches before it.
    before: usize,
}

/// Memory to ask for.
#[derive(Default)]
pub struct Ahead {
    stretches: Vec<Stretch>,
    /// Of all stretches.
    lines: usize,
    /// Lines that a product has taken to ask for.
    taken: usize,
}

impl Ahead {
    /// What the rows of a layer will attend to, in place of what was left: the last page of each sequence, the one before it,
    /// and so on.
    pub fn attention(&mut self, kv: &Kv, layer: usize, spans: &[Span]) {
        self.stretches.clear();
        (self.lines, self.taken) = (0, 0);
        if spans.iter().map(|span| span.rows.len()).sum::<usize>() < TOKENS {
            return;
        }
        let seen = |span: &Span| (span.position + span.rows.len()).div_ceil(PAGE);
        for back in 1..=spans.iter().map(seen).max().unwrap_or(0) {
            if self.lines >= MOST {
                return;
            }
            for span in spans.iter().filter(|span| back <= seen(span)) {
                kv.memory(layer, span.pages[seen(span) - back]).into_iter().for_each(|memory| self.push(memory));
            }
        }
    }

    fn push(&mut self, memory: Range<usize>) {
        let lines = memory.len().div_ceil(LINE);
        if lines > 0 {
            self.stretches.push(Stretch { address: memory.start, lines, before: self.lines });
            self.lines += lines;
        }
    }

    /// Takes the next lines, at most so many.
    pub fn take(&mut self, most: usize) -> Range<usize> {
        let first = self.taken;
        self.taken += most.min(self.lines - first);
        first..self.taken
    }

    /// Some lines, to be asked for in `times` goes.
    pub fn walk(&self, lines: Range<usize>, times: usize) -> Walk<'_> {
        let Range { start: first, end } = lines;
        let index = self.stretches.partition_point(|stretch| stretch.before + stretch.lines <= first);
        let stretches = &self.stretches[index..];
        let passed = stretches.first().map_or(0, |stretch| first - stretch.before);
        Walk { stretches, passed, left: end - first, each: (end - first).div_ceil(times.max(1)) }
    }
}

/// A walk through lines to ask for.
pub struct Walk<'a> {
    stretches: &'a [Stretch],
    /// Lines of the first stretch that were asked for.
    passed: usize,
    left: usize,
    /// Lines of one go.
    each: usize,
}

impl Walk<'_> {
    /// Asks for the next few lines.
    #[inline(always)]
    pub fn ask<S: Simd>(&mut self, s: S) {
        for _ in 0..self.each {
            match self.next() {
                Some(address) => s.prefetch(address),
                None => return,
            }
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let [stretch, later @ ..] = self.stretches else { return None };
        self.left = self.left.checked_sub(1)?;
        let address = stretch.address + self.passed * LINE;
        self.passed += 1;
        if self.passed == stretch.lines {
            (self.stretches, self.passed) = (later, 0);
        }
        Some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_asked_for_once_in_order() {
        let stretches = [4096..8192, 0..0, 640..704, 1 << 20..(1 << 20) + 100];
        let lines = (64..128).chain([10, 16384, 16385]).map(|line| line * LINE);
        let mut ahead = Ahead::default();
        stretches.into_iter().for_each(|stretch| ahead.push(stretch));
        let taken = [ahead.take(0), ahead.take(60), ahead.take(5), ahead.take(9), ahead.take(9)];
        assert_eq!(taken, [0..0, 0..60, 60..65, 65..67, 67..67]);
        let walked = taken.into_iter().flat_map(|lines| ahead.walk(lines, 3));
        assert!(walked.eq(lines));
    }
}

//! Memory that is read soon, asked for while products compute.
//!
//! The law: asking changes no result and reads nothing, so that addresses are plain numbers here. A few lines at a time go
//! between other work: many at once would have to wait for each other. A thread asks for what it will read itself, since
//! that is where they go: half of them lay in the cache of the other one before, and a step of 16 rows took 1.05 of the time.

use super::attention::BAND;
use super::kv::Kv;
use super::pool::dealt;
use super::simd::Simd;
use super::slab::LINE;
use crate::device::{Span, PAGE};
use std::ops::Range;

/// Products with tiles of at least so many tokens ask for what others will read. With fewer, memory is busy with their weights;
/// with many it idles.
pub const TOKENS: usize = 8;
/// About how many lines a thread asks for before they are read: 768 KiB, what second-level caches can hold beside the products.
const MOST: usize = 12 << 10;

/// Some memory.
struct Stretch {
    address: usize,
    lines: usize,
    /// Lines of the stretches before it.
    before: usize,
}

/// What one thread will read.
#[derive(Default)]
struct Share {
    stretches: Vec<Stretch>,
    /// Of all stretches.
    lines: usize,
    /// Those that the present product asks for; former ones have asked for those before.
    taken: Range<usize>,
}

impl Share {
    fn clear(&mut self) {
        self.stretches.clear();
        (self.lines, self.taken) = (0, 0..0);
    }

    fn push(&mut self, memory: Range<usize>) {
        let lines = memory.len().div_ceil(LINE);
        if lines > 0 {
            self.stretches.push(Stretch { address: memory.start, lines, before: self.lines });
            self.lines += lines;
        }
    }

    /// Takes the next lines, at most so many.
    fn take(&mut self, most: usize) {
        self.taken = self.taken.end..self.lines.min(self.taken.end + most);
    }

    /// Part `index` of `parts` of the lines taken, to be asked for in `times` goes.
    fn walk(&self, index: usize, parts: usize, times: usize) -> Walk<'_> {
        let at = |index: usize| self.taken.start + self.taken.len() * index / parts;
        let (first, end) = (at(index), at(index + 1));
        let index = self.stretches.partition_point(|stretch| stretch.before + stretch.lines <= first);
        let stretches = &self.stretches[index..];
        let passed = stretches.first().map_or(0, |stretch| first - stretch.before);
        Walk { stretches, passed, left: end - first, each: (end - first).div_ceil(times.max(1)) }
    }
}

/// Memory to ask for, by thread.
#[derive(Default)]
pub struct Ahead {
    shares: Vec<Share>,
}

impl Ahead {
    /// What the rows of a layer will attend to, in place of what was left: the last pages of each sequence.
    pub fn attention(&mut self, kv: &Kv, layer: usize, spans: &[Span], threads: usize) {
        self.shares.resize_with(threads, Share::default);
        self.shares.iter_mut().for_each(Share::clear);
        if spans.iter().map(|span| span.rows.len()).sum::<usize>() < TOKENS {
            return;
        }
        let page: usize = kv.memory(layer, 0).map(|memory| memory.len().div_ceil(LINE)).iter().sum();
        let depth = (MOST * threads / page.max(1) / spans.len()).max(1);
        // Attention deals out bands in the order of their rows.
        let bands = |span: &Span| span.rows.len().div_ceil(BAND);
        let (mut band, all) = (0, spans.iter().map(bands).sum::<usize>());
        for span in spans {
            let share = &mut self.shares[band * threads / all];
            let seen = (span.position + span.rows.len()).div_ceil(PAGE);
            for &page in span.pages[..seen].iter().rev().take(depth) {
                kv.memory(layer, page).into_iter().for_each(|memory| share.push(memory));
            }
            band += bands(span);
        }
    }

    /// Lets a product ask for the next lines, at most so many.
    pub fn take(&mut self, most: usize) {
        let each = most.div_ceil(self.shares.len().max(1));
        self.shares.iter_mut().for_each(|share| share.take(each));
    }

    /// What chunk `index` of the `chunks` of this product asks for, in `times` goes.
    pub fn walk(&self, index: usize, chunks: usize, times: usize) -> Walk<'_> {
        let threads = self.shares.len();
        let mut parts = self.shares.iter().enumerate().map(|(thread, share)| (share, dealt(chunks, threads, thread)));
        let own = parts.find(|(_, part)| part.contains(&index));
        own.map_or_else(Walk::default, |(share, part)| share.walk(index - part.start, part.len(), times))
    }
}

/// A walk through lines to ask for.
#[derive(Default)]
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
        let lines: Vec<usize> = (64..128).chain([10, 16384, 16385]).map(|line| line * LINE).collect();
        for (threads, chunks) in [(1, 1), (1, 4), (2, 2), (3, 8), (2, 1)] {
            let mut ahead = Ahead::default();
            ahead.shares.resize_with(threads, Share::default);
            for share in &mut ahead.shares {
                stretches.clone().into_iter().for_each(|stretch| share.push(stretch));
            }
            let mut asked = vec![Vec::new(); threads];
            for most in [0, 60, 5, 9, 999, 9] {
                ahead.take(most);
                for (thread, asked) in asked.iter_mut().enumerate() {
                    asked.extend(dealt(chunks, threads, thread).flat_map(|chunk| ahead.walk(chunk, chunks, 3)));
                }
            }
            for (thread, asked) in asked.into_iter().enumerate() {
                let idle = dealt(chunks, threads, thread).is_empty();
                assert_eq!(asked, if idle { Vec::new() } else { lines.clone() }, "{thread} of {threads}");
            }
        }
        assert_eq!(Ahead::default().walk(0, 1, 1).count(), 0);
    }
}

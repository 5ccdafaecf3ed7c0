//! Admission: which waiting sequences get pages and start to run.

use super::{Policy, Scheduler};
use crate::batch::CopyRows;
use crate::sequence::Sequence;
use sglang_radix::{Lease, PageId, PAGE};
use std::cmp::Reverse;

/// A sequence that was passed over this often goes before all matches.
const PATIENCE: u32 = 64;
/// Most waiting sequences that are looked up in the tree, and may be admitted, in one step.
const LOOKED_UP: usize = 256;

impl Scheduler {
    /// Starts waiting sequences, best first, until rows or pages run out.
    pub fn admit(&mut self) {
        if self.waiting.is_empty() || self.is_full() {
            return;
        }
        let (mut left, mut i) = (self.sort_waiting(), 0);
        while left > 0 && !self.is_full() {
            left -= 1;
            if self.is_prefix_under_way(&self.waiting[i]) {
                i += 1;
                continue;
            }
            let sequence = self.waiting.remove(i);
            if let Err(sequence) = self.start(sequence) {
                self.waiting.insert(i, *sequence);
                return;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.running.len() >= self.limits.max_running
    }

    /// Priority first; then those who waited too long; then what the policy prefers; then arrival. The policy knows the
    /// first [`LOOKED_UP`] only; returns how many these are.
    fn sort_waiting(&mut self) -> usize {
        self.waiting.sort_by_key(|s| (Reverse(s.priority()), s.passed_over < PATIENCE, s.arrival));
        let n = self.waiting.len().min(LOOKED_UP);
        let candidates = &mut self.waiting[..n];
        if self.limits.reuse {
            candidates.iter_mut().for_each(|s| s.found = self.cache.find(s.namespace(), s.reusable()));
        }
        match self.limits.policy {
            Policy::Fcfs => {}
            Policy::Lpm => candidates.iter_mut().for_each(|s| s.rank = u64::MAX - s.found.len as u64),
            Policy::Random => candidates.iter_mut().for_each(|s| s.rank = s.lot(self.totals.steps)),
            Policy::DfsWeight => {
                let found: Vec<_> = candidates.iter().map(|s| s.found).collect();
                let ranks = self.cache.depth_first(&found);
                // Of those that end in the same node, the longest first.
                candidates
                    .iter_mut()
                    .zip(ranks)
                    .for_each(|(s, rank)| s.rank = ((rank as u64) << 32) - s.found.len as u64);
            }
        }
        candidates.sort_by_key(|s| {
            let patient = s.passed_over < PATIENCE;
            (Reverse(s.priority()), patient, if patient { s.rank } else { 0 }, s.arrival)
        });
        n
    }

    /// A running sequence is just computing a prefix that this one could take from the cache soon: waiting for it is
    /// cheaper than computing it twice.
    fn is_prefix_under_way(&self, sequence: &Sequence) -> bool {
        let (reusable, known) = (sequence.reusable(), sequence.found.len);
        if !self.limits.reuse || reusable.len() < known + PAGE {
            return false;
        }
        let enough = known + PAGE;
        let mut prefilling = self.running.iter().filter(|r| r.is_prefilling() && r.namespace() == sequence.namespace());
        prefilling.any(|running| {
            running.tokens.get(known..enough).is_some_and(|t| t == &reusable[known..enough])
                && running.tokens[..known] == reusable[..known]
        })
    }

    /// The longest cached prefix, and pages for `n_tokens` in all, or as many as a window and a step need; `None` if there
    /// are too few, or if a copy would go where another copy of this step still reads.
    fn lease(&mut self, namespace: u64, reusable: &[u32], n_tokens: usize) -> Option<Lease> {
        let mut lease = self.cache.acquire(namespace, reusable);
        let held = lease.matched().max(self.limits.reach()).saturating_add(self.limits.chunk);
        let read = |to: PageId| self.copies.iter().any(|pending| pending.from == to.0);
        let clear = !lease.copy().is_some_and(|copy| read(copy.to));
        if clear && self.cache.extend(&mut lease, n_tokens.min(held)).is_ok() {
            return Some(lease);
        }
        self.cache.release(lease);
        None
    }

    /// Gives a sequence pages for its prompt and the start of its output, or hands it back. One that is alone always starts:
    /// it pins as many pages as its tokens fill.
    fn start(&mut self, mut sequence: Sequence) -> Result<(), Box<Sequence>> {
        let alone = self.running.is_empty();
        let ahead = if alone { 0 } else { sequence.n_remaining().min(self.limits.ahead) };
        let n_tokens = sequence.tokens.len() + ahead;
        let reusable = if self.limits.reuse { sequence.reusable() } else { &[] };
        let Some(lease) = self.lease(sequence.namespace(), reusable, n_tokens) else {
            return Err(Box::new(sequence));
        };
        self.copies.extend(lease.copy().map(|copy| CopyRows { from: copy.from.0, to: copy.to.0, rows: copy.rows }));
        let is_new = sequence.is_new();
        sequence.start(lease);
        if is_new {
            self.totals.prompt_tokens += sequence.n_prompt() as u64;
            self.totals.cached_tokens += sequence.n_cached() as u64;
        }
        let earlier = self.waiting.iter_mut().filter(|s| s.arrival < sequence.arrival);
        earlier.for_each(|s| s.passed_over += 1);
        self.running.push(sequence);
        Ok(())
    }
}

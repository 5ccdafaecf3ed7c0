//! Admission: which waiting sequences get pages and start to run.

use super::{Policy, Scheduler};
use crate::batch::CopyRows;
use crate::sequence::Sequence;
use sglang_radix::PAGE;

/// A sequence that was passed over this often goes before all matches.
const PATIENCE: u32 = 64;
/// Output tokens for which a sequence beside others takes pages at once, so that few are retracted later.
const AHEAD: usize = 256;
/// Beyond this many waiting sequences, matching each against the tree costs more than a good order brings.
const MATCHED: usize = 256;

impl Scheduler {
    /// Starts waiting sequences, best first, until rows or pages run out.
    pub fn admit(&mut self) {
        if self.waiting.is_empty() || self.running.len() >= self.limits.max_running {
            return;
        }
        self.sort_waiting();
        let mut i = 0;
        while i < self.waiting.len() && self.running.len() < self.limits.max_running {
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

    /// Priority first; then those who waited too long; then the longest match; then arrival.
    fn sort_waiting(&mut self) {
        let by_match = self.limits.policy == Policy::Lpm && self.waiting.len() <= MATCHED;
        let cache = &self.cache;
        self.waiting.sort_by_cached_key(|s| {
            let hurry = s.passed_over >= PATIENCE;
            let matched = if by_match && !hurry { cache.match_len(s.namespace(), s.reusable()) } else { 0 };
            (-i64::from(s.priority()), !hurry, std::cmp::Reverse(matched), s.arrival)
        });
    }

    /// A running sequence is just computing a prefix that this one could take from the cache soon: waiting for it is
    /// cheaper than computing it twice.
    fn is_prefix_under_way(&self, sequence: &Sequence) -> bool {
        let reusable = sequence.reusable();
        let mut prefilling = self.running.iter().filter(|r| r.is_prefilling() && r.namespace() == sequence.namespace());
        if !self.limits.reuse || reusable.len() < PAGE {
            return false;
        }
        let matched = self.cache.match_len(sequence.namespace(), reusable);
        prefilling.any(|running| {
            let common = running.tokens.iter().zip(reusable).take_while(|(a, b)| a == b).count();
            common >= matched + PAGE
        })
    }

    /// Gives a sequence pages for its prompt and the start of its output, or hands it back.
    fn start(&mut self, mut sequence: Sequence) -> Result<(), Box<Sequence>> {
        let reusable = if self.limits.reuse { sequence.reusable() } else { &[] };
        let mut lease = self.cache.acquire(sequence.namespace(), reusable);
        let ahead = if self.running.is_empty() { 0 } else { sequence.n_remaining().min(AHEAD) };
        if self.cache.extend(&mut lease, sequence.tokens.len() + ahead).is_err() {
            self.cache.release(lease);
            return Err(Box::new(sequence));
        }
        self.copies.extend(lease.copy().map(|copy| CopyRows { from: copy.from.0, to: copy.to.0, rows: copy.rows }));
        let is_new = sequence.n_output() == 0;
        sequence.start(lease);
        if is_new {
            self.totals.prompt_tokens += sequence.tokens.len() as u64;
            self.totals.cached_tokens += sequence.n_cached() as u64;
        }
        let earlier = self.waiting.iter_mut().filter(|s| s.arrival < sequence.arrival);
        earlier.for_each(|s| s.passed_over += 1);
        self.running.push(sequence);
        Ok(())
    }
}

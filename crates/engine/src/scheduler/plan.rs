//! Rows of a step: one for each sequence that decodes, then prompt chunks in the order of admission while the budget
//! lasts: a chunk, or half of one where sequences wait for it that decode. So a prompt of any length delays those by at
//! most half a chunk per token, and it always moves on, however many they are. When pages run out, the sequence of the
//! lowest priority, among equals the one admitted last, is retracted: it gives back its pages, waits, and is computed
//! again later, with the same text.

use super::Scheduler;
use std::cmp::Reverse;

impl Scheduler {
    /// Rows per running sequence, with pages for them at hand.
    pub(super) fn reserve_rows(&mut self) -> Vec<usize> {
        loop {
            let rows = self.plan_rows();
            if self.extend_leases(&rows) {
                return rows;
            }
            self.retract_one();
        }
    }

    fn plan_rows(&self) -> Vec<usize> {
        let decode = self.running.iter().any(|s| s.n_pending() == 1);
        let mut budget = if decode { self.limits.chunk.div_ceil(2) } else { self.limits.chunk };
        let mut rows_of = |pending: usize| {
            if pending == 1 {
                return 1;
            }
            let rows = pending.min(budget);
            budget -= rows;
            rows
        };
        self.running.iter().map(|s| rows_of(s.n_pending())).collect()
    }

    fn extend_leases(&mut self, rows: &[usize]) -> bool {
        let cache = &mut self.cache;
        self.running.iter_mut().zip(rows).all(|(sequence, &n_rows)| {
            let lease = sequence.lease.as_mut().expect("a running sequence has a lease");
            cache.extend(lease, sequence.computed + n_rows).is_ok()
        })
    }

    fn retract_one(&mut self) {
        let order = |&i: &usize| (self.running[i].priority(), Reverse(i));
        let i = (0..self.running.len()).min_by_key(order);
        let i = i.expect("without a sequence no page is wanted");
        debug_assert!(self.running.len() > 1, "pages for a lone sequence were promised when it was accepted");
        let mut sequence = self.running.remove(i);
        self.release(&mut sequence);
        sequence.computed = 0;
        self.totals.retracted += 1;
        self.waiting.insert(0, sequence);
    }
}

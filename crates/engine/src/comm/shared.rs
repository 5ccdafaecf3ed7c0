//! Ranks that are threads of one process, over devices whose buffers are in its memory.
//!
//! The law: each rank writes to its own slots only, and reads the others' after all have written. There are two slots of
//! each, used in turn: who writes to one again knows from the meeting between that all have read it.

use super::meeting::Meeting;
use super::Communicator;
use sglang_kernels::device::{Device, DeviceError, Result};
use std::ops::DerefMut;
use std::sync::{Arc, PoisonError, RwLock};

type Slot = RwLock<Vec<f32>>;

/// One rank's end of the line.
pub struct Shared {
    rank: usize,
    meeting: Arc<Meeting>,
    /// Of all ranks.
    slots: Arc<[[Slot; 2]]>,
    turn: usize,
}

impl Shared {
    /// The ends of all ranks that meet here.
    pub fn ends(meeting: &Arc<Meeting>, ranks: usize) -> Vec<Self> {
        let slots: Arc<[[Slot; 2]]> = (0..ranks).map(|_| Default::default()).collect();
        (0..ranks).map(|rank| Shared { rank, meeting: meeting.clone(), slots: slots.clone(), turn: 0 }).collect()
    }

    /// Shows values to the other ranks, and waits for theirs; returns where they are.
    fn show(&mut self, values: &[f32]) -> Result<usize> {
        let turn = self.turn;
        self.turn = 1 - turn;
        let mut slot = self.slots[self.rank][turn].write().unwrap_or_else(PoisonError::into_inner);
        slot.clear();
        slot.extend_from_slice(values);
        drop(slot);
        self.meeting.meet().map_err(DeviceError::Unsupported)?;
        Ok(turn)
    }

    /// Calls `f` with what each rank shows, in their order.
    fn see(&self, turn: usize, mut f: impl FnMut(usize, &[f32])) {
        for (rank, slots) in self.slots.iter().enumerate() {
            f(rank, &slots[turn].read().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

impl<D: Device> Communicator<D> for Shared
where
    D::Buffer: DerefMut<Target = [f32]>,
{
    fn all_reduce(&mut self, _: &mut D, buffer: &mut D::Buffer, len: usize) -> Result<()> {
        let sums = &mut buffer[..len];
        let turn = self.show(sums)?;
        self.see(turn, |rank, values| match rank {
            0 => sums.copy_from_slice(values),
            _ => sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value),
        });
        Ok(())
    }

    fn deal_rows(
        &mut self,
        _: &mut D,
        columns: &mut D::Buffer,
        rows: usize,
        width: usize,
        out: &mut D::Buffer,
    ) -> Result<()> {
        let turn = self.show(&columns[..rows * width])?;
        let (mine, ranks) = (self.rank, self.slots.len());
        let mut total = 0;
        self.see(turn, |_, values| total += values.len() / rows.max(1));
        let mut first = 0;
        self.see(turn, |_, values| {
            let width = values.len() / rows.max(1);
            let dealt = values.chunks_exact(width.max(1)).skip(mine).step_by(ranks);
            for (row, values) in out.chunks_exact_mut(total.max(1)).zip(dealt) {
                row[first..first + width].copy_from_slice(values);
            }
            first += width;
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sglang_kernels::Reference;

    /// Runs `f` on each rank.
    fn ranks<T: Send>(ranks: usize, f: impl Fn(usize, &mut Shared) -> T + Sync) -> Vec<T> {
        let ends = Shared::ends(&Arc::new(Meeting::new(ranks)), ranks);
        std::thread::scope(|scope| {
            let f = &f;
            let threads: Vec<_> =
                ends.into_iter().enumerate().map(|(rank, mut end)| scope.spawn(move || f(rank, &mut end))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// Sums depend on the order: 1 is lost beside 1e8.
    #[test]
    fn sums_are_in_the_order_of_ranks_on_each() {
        let values = [1e8, 1.0, -1e8, 1.0];
        let sums = ranks(4, |rank, end| {
            let mut last = Vec::new();
            for len in [1, 3, 2] {
                last = vec![values[rank]; 3];
                end.all_reduce(&mut Reference, &mut last, len).unwrap();
                assert!(last[..len].iter().all(|&v| v == 1.0) && last[len..].iter().all(|&v| v == values[rank]));
            }
            last
        });
        assert!(sums.iter().all(|s| s[..2] == [1.0, 1.0]));
    }

    #[test]
    fn rows_are_dealt_whole() {
        let widths = [3, 1, 2];
        let cell = |row: usize, column: usize| (10 * row + column) as f32;
        for rows in 0..8 {
            let dealt = ranks(3, |rank, end| {
                let first: usize = widths[..rank].iter().sum();
                let part = (0..rows).flat_map(|row| (first..first + widths[rank]).map(move |c| cell(row, c)));
                let mut out = vec![f32::NAN; 3 * 6];
                end.deal_rows(&mut Reference, &mut part.collect(), rows, widths[rank], &mut out).unwrap();
                out
            });
            for (rank, out) in dealt.iter().enumerate() {
                let expected = (rank..rows).step_by(3).flat_map(|row| (0..6).map(move |c| cell(row, c)));
                assert!(expected.zip(out).all(|(a, &b)| a == b), "{rows} rows, rank {rank}: {out:?}");
            }
        }
    }
}

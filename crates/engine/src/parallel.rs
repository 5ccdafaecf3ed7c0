//! Tensor parallelism: a [`Runner`] over rank threads, each of which has its part of the model.
//!
//! Laws: all ranks run the same batch, the first of them on the caller's thread; a step ends when all have ended it. A rank
//! that fails or panics ends the step on all ranks, and every later one, with its reason. Dropping the runner ends the
//! threads.

use crate::batch::{Answers, Batch};
use crate::comm::meeting::Meeting;
use crate::comm::Communicator;
use crate::error::{panic_message, Error, Result};
use crate::model::decoder::Decoder;
use crate::runner::Runner;
use sglang_kernels::cpu::node;
use sglang_kernels::device::{Device, DeviceError};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// What one rank runs.
pub struct Rank<D: Device, C> {
    /// Its part of the model.
    pub decoder: Decoder<D>,
    /// Its line to the others.
    pub comm: C,
    /// The cores that it stays on; none: all.
    pub cores: Vec<usize>,
}

/// What lies between the ranks.
struct Desk {
    meeting: Arc<Meeting>,
    /// The batch of the last step.
    batch: Mutex<Arc<Batch>>,
    /// Steps begun.
    steps: AtomicU64,
    closed: AtomicBool,
    /// Answers of each rank in the last step: rank r of N has those of the outputs r, r + N, r + 2N …
    answers: Vec<Mutex<Answers>>,
}

/// A model over several ranks.
pub struct Ranks<D: Device, C> {
    desk: Arc<Desk>,
    first: Rank<D, C>,
    threads: Vec<JoinHandle<()>>,
}

impl<D: Device, C: Communicator<D> + 'static> Ranks<D, C> {
    /// Starts a thread for each rank but the first. Their lines end in this meeting.
    pub fn start(meeting: Arc<Meeting>, first: Rank<D, C>, others: Vec<Rank<D, C>>) -> Result<Self> {
        let answers = (0..=others.len()).map(|_| Mutex::default()).collect();
        let (batch, steps, closed) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false));
        let desk = Arc::new(Desk { meeting, batch, steps, closed, answers });
        let mut ranks = Ranks { desk, first, threads: Vec::new() };
        for (number, mut rank) in (1..).zip(others) {
            let desk = ranks.desk.clone();
            let thread = std::thread::Builder::new().name(format!("sglang-rank-{number}"));
            let thread = thread.spawn(move || desk.serve(number, &mut rank));
            ranks.threads.push(thread.map_err(|e| Error::load(format!("cannot start rank {number}: {e}")))?);
        }
        Ok(ranks)
    }
}

impl<D: Device, C: Communicator<D> + 'static> Runner for Ranks<D, C> {
    fn run(&mut self, batch: &Batch) -> Result<Answers> {
        self.first.stay_home();
        self.desk.hand_out(batch);
        self.desk.run(0, &mut self.first, batch);
        self.desk.collect(batch.outputs.len())
    }

    fn describe(&self) -> String {
        format!("{} ranks of {}", self.desk.answers.len(), self.first.decoder.describe())
    }
}

impl<D: Device, C> Drop for Ranks<D, C> {
    fn drop(&mut self) {
        self.desk.closed.store(true, SeqCst);
        self.desk.meeting.call();
        for thread in self.threads.drain(..) {
            // A panic of a rank was caught and reported by it.
            let _ = thread.join();
        }
    }
}

impl<D: Device, C> Rank<D, C> {
    /// Keeps the calling thread on the rank's cores from now on.
    fn stay_home(&mut self) {
        let cores = std::mem::take(&mut self.cores);
        if !cores.is_empty() {
            node::stay_on(&cores);
        }
    }
}

impl Desk {
    /// The life of a rank's thread.
    fn serve<D: Device, C: Communicator<D>>(&self, number: usize, rank: &mut Rank<D, C>) {
        rank.stay_home();
        for step in 1.. {
            let is_closed = || self.closed.load(SeqCst);
            self.meeting.wait_until(|| self.steps.load(SeqCst) >= step || is_closed());
            if is_closed() || self.meeting.failure().is_some() {
                return;
            }
            let batch = lock(&self.batch).clone();
            self.run(number, rank, &batch);
        }
    }

    fn hand_out(&self, batch: &Batch) {
        *lock(&self.batch) = Arc::new(batch.clone());
        self.steps.fetch_add(1, SeqCst);
        self.meeting.call();
    }

    /// One rank's part of a step; returns when all ranks have ended theirs, or one has failed.
    fn run<D: Device, C: Communicator<D>>(&self, number: usize, rank: &mut Rank<D, C>, batch: &Batch) {
        let ended = catch_unwind(AssertUnwindSafe(|| rank.decoder.forward(&mut rank.comm, batch)));
        let reason = match ended {
            Ok(Ok(answers)) => {
                *lock(&self.answers[number]) = answers;
                // Why a meeting failed is asked for in the end.
                let _ = self.meeting.meet();
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic_message(&*panic),
        };
        self.meeting.fail(format!("rank {number} failed: {reason}"));
    }

    /// The answers of all ranks, in the order of the outputs.
    fn collect(&self, outputs: usize) -> Result<Answers> {
        if let Some(reason) = self.meeting.failure() {
            return Err(DeviceError::Unsupported(reason.into()).into());
        }
        let mut answers: Vec<Answers> =
            self.answers.iter().map(|answers| std::mem::take(&mut *lock(answers))).collect();
        let states = std::mem::take(&mut answers[0].states);
        let mut each: Vec<_> = answers.into_iter().map(|answers| answers.picked.into_iter()).collect();
        let ranks = each.len();
        let picked = (0..outputs).map(|i| each[i % ranks].next().expect("a rank answers each of its outputs"));
        Ok(Answers { picked: picked.collect(), states })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cores for each rank: those of its share of the NUMA nodes, or none where there is nothing to choose.
pub fn homes(nodes: &[Vec<usize>], ranks: usize) -> Vec<Vec<usize>> {
    let n = nodes.len();
    let share = |rank: usize| rank * n / ranks..((rank + 1) * n).div_ceil(ranks);
    let home = |rank: usize| if n > 1 { nodes[share(rank)].concat() } else { Vec::new() };
    (0..ranks).map(home).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_the_nodes() {
        let nodes = [vec![0, 1], vec![2, 3], vec![4]];
        let none: Vec<usize> = Vec::new();
        assert_eq!(homes(&nodes[..1], 2), [none.clone(), none]);
        assert_eq!(homes(&nodes[..2], 2), [vec![0, 1], vec![2, 3]]);
        assert_eq!(homes(&nodes[..2], 4), [vec![0, 1], vec![0, 1], vec![2, 3], vec![2, 3]]);
        assert_eq!(homes(&nodes, 2), [vec![0, 1, 2, 3], vec![2, 3, 4]]);
        assert_eq!(homes(&nodes, 1), [vec![0, 1, 2, 3, 4]]);
    }
}

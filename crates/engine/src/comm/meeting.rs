//! Where ranks wait for each other.
//!
//! The law: [`Meeting::meet`] returns when all ranks have come, or with an error once one of them has failed; nobody waits
//! for a rank that will not come. A rank that waits spins, then yields, then sleeps.

use sglang_kernels::cpu::Patience;
use std::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

/// A value alone on its cache lines, so that waiting threads do not disturb its neighbours.
#[repr(align(128))]
struct Alone<T>(T);

/// The meeting place of some ranks.
pub struct Meeting {
    ranks: u64,
    /// How a rank begins to wait.
    patience: Patience,
    /// Those who came since the start. All must have come for a round to end, so the rounds need no numbers.
    came: Alone<AtomicU64>,
    sleepers: AtomicU32,
    gate: Mutex<()>,
    wake: Condvar,
    failure: OnceLock<String>,
}

impl Meeting {
    /// For this many ranks.
    pub fn new(ranks: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Meeting {
            ranks: ranks as u64,
            patience: if cores < ranks { Patience::without_spinning() } else { Patience::default() },
            came: Alone(AtomicU64::new(0)),
            sleepers: AtomicU32::new(0),
            gate: Mutex::new(()),
            wake: Condvar::new(),
            failure: OnceLock::new(),
        }
    }

    /// Waits until all ranks have come here, or one has failed: then with its reason.
    pub fn meet(&self) -> Result<(), String> {
        let before = self.came.0.fetch_add(1, AcqRel);
        let all = (before / self.ranks + 1) * self.ranks;
        if before + 1 == all {
            self.call();
        } else {
            self.wait_until(|| self.came.0.load(Acquire) >= all);
        }
        self.failure.get().map_or(Ok(()), |reason| Err(reason.clone()))
    }

    /// Ends this meeting and all to come. The first reason counts.
    pub fn fail(&self, reason: String) {
        // A later reason is a consequence of the first.
        let _ = self.failure.set(reason);
        self.call();
    }

    /// Why a rank has failed, if one has.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Waits until `ready` or a failure. Whoever makes it so calls [`Meeting::call`].
    pub fn wait_until(&self, ready: impl Fn() -> bool) {
        let over = || ready() || self.failure.get().is_some();
        let mut patience = self.patience.clone();
        while !over() {
            if !patience.wait() {
                return self.sleep_until(over);
            }
        }
    }

    fn sleep_until(&self, over: impl Fn() -> bool) {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, SeqCst);
        // The count is raised before the state is read, and `call` is made after the state was written: so either the
        // state is seen here or the sleeper is seen there.
        fence(SeqCst);
        while !over() {
            gate = self.wake.wait(gate).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
    }

    /// Makes those who sleep look again.
    pub fn call(&self) {
        fence(SeqCst);
        if self.sleepers.load(SeqCst) > 0 {
            let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.wake.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    /// More ranks than cores, with and without sleep: nobody is a round ahead.
    #[test]
    fn all_come_before_anyone_goes_on() {
        for ranks in [1, 2, 3, 7] {
            let (meeting, came) = (Meeting::new(ranks), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for rank in 0..ranks {
                    let (meeting, came) = (&meeting, &came);
                    scope.spawn(move || {
                        for round in 1..=200 {
                            if round == 100 && rank == 0 {
                                std::thread::sleep(std::time::Duration::from_millis(20));
                            }
                            came.fetch_add(1, Relaxed);
                            meeting.meet().unwrap();
                            let seen = came.load(Relaxed);
                            assert!((round * ranks..(round + 1) * ranks).contains(&seen), "{seen} in round {round}");
                        }
                    });
                }
            });
        }
    }

    #[test]
    fn a_failure_wakes_all_and_the_first_reason_counts() {
        let meeting = Meeting::new(3);
        std::thread::scope(|scope| {
            let waiting = [0; 2].map(|_| scope.spawn(|| meeting.meet()));
            // Long enough for some to sleep; right in either case.
            std::thread::sleep(std::time::Duration::from_millis(20));
            meeting.fail("the third is gone".into());
            meeting.fail("so is the second".into());
            for thread in waiting {
                assert_eq!(thread.join().unwrap(), Err("the third is gone".into()));
            }
        });
        assert_eq!(meeting.meet(), Err("the third is gone".into()));
    }
}

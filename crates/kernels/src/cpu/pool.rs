//! Fork and join in about a microsecond.
//!
//! The law: [`Pool::run`] calls `f` once for each chunk and returns when all calls have returned. Each thread walks its
//! own part of the chunks from the front; one that has none left takes from the back of another's, so a thread that lost
//! its core delays the others only by the chunk it holds. An idle pool spins, then yields, then sleeps. A panic in a
//! chunk is raised again in the caller, after all chunks have ended.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Polls before a waiting thread gives its core to others.
const SPINS: u32 = 2_000;
/// How long an idle thread yields before it sleeps: longer than the pause between two steps.
const AWAKE: Duration = Duration::from_millis(5);
/// Chunks of one round: the number of one fits in 16 bits of [`Part`].
const ROUND: usize = u16::MAX as usize;

/// Values of a chunk that an op without products is worth cutting for.
const CHUNK: usize = 4096;
/// Most chunks per thread of such an op.
const CHUNKS: usize = 4;

/// The caller's closure, without its lifetime.
type Job = *const (dyn Fn(usize) + Sync);

/// A value alone on its cache lines, so that waiting threads do not disturb its neighbours.
#[repr(align(128))]
struct Alone<T>(T);

/// The chunks that one thread has yet to begin: the first (16 bits) and the end (16).
#[derive(Default)]
struct Part(AtomicU32);

impl Part {
    fn open(&self, chunks: Range<usize>) {
        self.0.store((chunks.start << 16 | chunks.end) as u32, Release);
    }

    /// Takes one of the chunks: the first for the part's own thread, the last for others.
    fn claim(&self, own: bool) -> Option<usize> {
        let split = |part: u32| ((part >> 16) as usize, (part & 0xffff) as usize);
        let taken = self.0.fetch_update(AcqRel, Acquire, |part| {
            let (first, end) = split(part);
            (first < end).then(|| if own { part + (1 << 16) } else { part - 1 })
        });
        let (first, end) = split(taken.ok()?);
        Some(if own { first } else { end - 1 })
    }
}

struct Shared {
    /// One for each thread, the caller's first.
    parts: Box<[Alone<Part>]>,
    /// Rounds opened.
    round: Alone<AtomicU32>,
    /// Chunks of the round that have ended, counted when a thread finds none left.
    ended: Alone<AtomicU32>,
    /// Written between rounds only, read only by holders of a chunk.
    job: UnsafeCell<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleepers: AtomicU32,
    /// Whether the pool is being dropped.
    closed: Mutex<bool>,
    wake: Condvar,
}

// SAFETY: `job` is the only field that is not Sync. It is written by `Pool::run` (exclusive by `&mut self`) before the
// release stores that open a round's parts and read after the acquiring claim of a chunk of one; `run` does not return,
// so nothing is written again, before that chunk has ended.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to a `Sync` closure and only used while `Pool::run` keeps it alive.
unsafe impl Send for Shared {}

/// Which of a round's chunks a thread walks first, before it takes from others.
pub fn dealt(chunks: usize, threads: usize, thread: usize) -> Range<usize> {
    chunks * thread / threads..chunks * (thread + 1) / threads
}

/// Threads that run chunks of a job together with the caller.
pub struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        let shared = Arc::new(Shared {
            parts: (0..threads.max(1)).map(|_| Alone(Part::default())).collect(),
            round: Alone(AtomicU32::new(0)),
            ended: Alone(AtomicU32::new(0)),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            sleepers: AtomicU32::new(0),
            closed: Mutex::new(false),
            wake: Condvar::new(),
        });
        let mut pool = Pool { shared, threads: Vec::new() };
        for i in 1..threads {
            let shared = pool.shared.clone();
            let name = format!("kernel-{i}");
            pool.threads.push(std::thread::Builder::new().name(name).spawn(move || shared.serve(i))?);
        }
        Ok(pool)
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `f` with each of `0 … chunks − 1`, on all threads.
    pub fn run(&mut self, chunks: usize, f: &(dyn Fn(usize) + Sync)) {
        if self.threads.is_empty() || chunks <= 1 {
            return (0..chunks).for_each(f);
        }
        for first in (0..chunks).step_by(ROUND) {
            self.round((chunks - first).min(ROUND), &|i| f(first + i));
        }
    }

    fn round(&mut self, chunks: usize, f: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes; the pointer is used by holders of a chunk, and this function returns when
        // all chunks have ended. No thread holds a chunk now, so nobody reads `job` while it is written.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), Job>(f)) };
        shared.ended.0.store(0, Relaxed);
        let threads = shared.parts.len();
        for (thread, part) in shared.parts.iter().enumerate() {
            part.0.open(dealt(chunks, threads, thread));
        }
        shared.round.0.fetch_add(1, SeqCst);
        if shared.sleepers.load(SeqCst) > 0 {
            let _closed = shared.closed.lock().unwrap_or_else(PoisonError::into_inner);
            shared.wake.notify_all();
        }
        shared.work(0);
        let mut patience = Patience::default();
        while shared.ended.0.load(Acquire) != chunks as u32 {
            patience.wait();
        }
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    /// Calls `f` with each item and its index.
    pub fn each<T: Send>(&mut self, items: &mut [T], f: impl Fn(usize, &mut T) + Sync) {
        let len = items.len();
        let items = Shareable(items.as_mut_ptr());
        self.run(len, &|i| {
            // SAFETY: `i < len`, and `run` calls once for each i, so this is the only reference to item i.
            f(i, unsafe { &mut *items.at(i) })
        });
    }

    /// Calls `f` with the index of the first value and the values of each piece of `step` (the last may be shorter).
    pub fn pieces<T: Send>(&mut self, values: &mut [T], step: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let (len, step) = (values.len(), step.max(1));
        let values = Shareable(values.as_mut_ptr());
        self.run(len.div_ceil(step), &|i| {
            let first = i * step;
            // SAFETY: pieces are within `values` and disjoint, and each is made once.
            f(first, unsafe { std::slice::from_raw_parts_mut(values.at(first), step.min(len - first)) })
        });
    }

    /// Cuts `values` between rows of `width` values, as evenly as can be where that is worth it, and calls `f` with the index
    /// of the first value and the values of each piece.
    pub fn rows<T: Send>(&mut self, values: &mut [T], width: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        self.pieces(values, self.piece(values.len(), width), f);
    }

    /// Values of such a piece, at least a row.
    pub fn piece(&self, len: usize, width: usize) -> usize {
        let (width, threads) = (width.max(1), self.threads());
        let pieces = match (len / CHUNK).min(CHUNKS * threads) {
            few if few < threads => few.max(1),
            // Each thread has as many.
            many => many - many % threads,
        };
        (len / width).div_ceil(pieces).max(1) * width
    }

    /// Cuts `columns` of the matrix `out` of rows of `width` values into `bands` of rows (ascending, apart) and every
    /// `step` columns, and calls `f` with the number of the band and each tile. Those of a band follow each other, so that mostly
    /// the same thread has them.
    pub fn tiles(
        &mut self,
        out: &mut [f32],
        width: usize,
        bands: &[Range<usize>],
        columns: Range<usize>,
        step: usize,
        f: impl Fn(usize, TileMut) + Sync,
    ) {
        let apart = bands.is_sorted_by(|a, b| a.end <= b.start) && bands.iter().all(|b| b.start <= b.end);
        let within = bands.last().is_none_or(|b| b.end * width <= out.len()) && columns.end <= width;
        assert!(apart && within, "bands {bands:?}, columns {columns:?}");
        let step = step.max(1);
        let stripes = columns.len().div_ceil(step);
        let start = Shareable(out.as_mut_ptr());
        self.run(bands.len() * stripes, &|i| {
            let (band, stripe) = (i / stripes, i % stripes);
            let first = columns.start + stripe * step;
            let cols = first..columns.end.min(first + step);
            // SAFETY: as the bands are apart, tiles are disjoint and within `out`, and each is made once.
            f(band, unsafe { TileMut::new(start.at(0), width, bands[band].clone(), cols) })
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        *self.shared.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A thread cannot have panicked: chunks are caught.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The life of thread `own` of the pool.
    fn serve(&self, own: usize) {
        let (mut seen, mut patience) = (0, Patience::default());
        loop {
            let round = self.round.0.load(Acquire);
            if round != seen {
                seen = round;
                self.work(own);
                patience = Patience::default();
            } else if !patience.wait() {
                if self.sleep(seen) {
                    return;
                }
                patience = Patience::default();
            }
        }
    }

    /// Sleeps until a round after `seen` opens; `true` means that the pool is closed.
    fn sleep(&self, seen: u32) -> bool {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        self.sleepers.fetch_add(1, SeqCst);
        // The count is raised before the round is read, and `round` opens one before it reads the count: so either the
        // round is seen here or the sleeper is seen there.
        while !*closed && self.round.0.load(SeqCst) == seen {
            closed = self.wake.wait(closed).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, SeqCst);
        *closed
    }

    /// Runs chunks until none is left to begin.
    fn work(&self, own: usize) {
        let threads = self.parts.len();
        let mut ended = 0;
        while let Some(chunk) = (0..threads).find_map(|i| self.parts[(own + i) % threads].0.claim(i == 0)) {
            self.call(chunk);
            ended += 1;
        }
        if ended > 0 {
            self.ended.0.fetch_add(ended, AcqRel);
        }
    }

    fn call(&self, chunk: usize) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: this thread holds a chunk of the open round, so `job` is that round's and its closure is alive.
            unsafe { (*self.job.get()).map(|job| (*job)(chunk)) }
        }));
        if let Err(payload) = result {
            self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(payload);
        }
    }
}

/// Waits ever more gently.
#[derive(Clone, Default)]
pub struct Patience {
    polls: u32,
    since: Option<Instant>,
}

impl Patience {
    /// For those who wait for threads that may have no core of their own.
    pub fn without_spinning() -> Self {
        Patience { polls: SPINS, since: None }
    }

    /// One pause; `false` when it is time to sleep.
    pub fn wait(&mut self) -> bool {
        if self.polls < SPINS {
            self.polls += 1;
            std::hint::spin_loop();
            return true;
        }
        std::thread::yield_now();
        self.since.get_or_insert_with(Instant::now).elapsed() < AWAKE
    }
}

/// A pointer to elements that threads share by index.
struct Shareable<T>(*mut T);

// SAFETY: users hand each element to one thread only, and elements are `Send`.
unsafe impl<T: Send> Sync for Shareable<T> {}

impl<T> Shareable<T> {
    /// # Safety
    /// `i` is within the allocation.
    unsafe fn at(&self, i: usize) -> *mut T {
        // SAFETY: by contract.
        unsafe { self.0.add(i) }
    }
}

/// A rectangle of a matrix of rows of `width` values, owned for writing.
pub struct TileMut<'a> {
    start: *mut f32,
    width: usize,
    /// Rows of the matrix.
    pub rows: Range<usize>,
    /// Columns of the matrix.
    pub cols: Range<usize>,
    of: std::marker::PhantomData<&'a mut f32>,
}

impl TileMut<'_> {
    /// # Safety
    /// The rectangle is within the matrix at `start`, and nothing else refers to it for as long as this lives.
    unsafe fn new(start: *mut f32, width: usize, rows: Range<usize>, cols: Range<usize>) -> Self {
        TileMut { start, width, rows, cols, of: std::marker::PhantomData }
    }

    /// Where the tile's part of row `row` of the matrix is.
    pub fn address(&self, row: usize) -> usize {
        self.start as usize + (row * self.width + self.cols.start) * size_of::<f32>()
    }

    /// The tile's part of row `row` of the matrix.
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(self.rows.contains(&row), "row {row} of a tile with rows {:?}", self.rows);
        // SAFETY: the part is within the rectangle, and borrowed from `self`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.width + self.cols.start), self.cols.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_chunk_runs_once() {
        for threads in 1..=5 {
            let mut pool = Pool::new(threads).unwrap();
            for chunks in [0, 1, 2, 3, 17, 1000, ROUND + 3] {
                let calls: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(chunks, &|i| _ = calls[i].fetch_add(1, Relaxed));
                assert!(calls.iter().all(|c| c.load(Relaxed) == 1), "{threads} threads, {chunks} chunks");
            }
        }
    }

    #[test]
    fn a_late_thread_delays_only_the_chunk_it_holds() {
        let mut pool = Pool::new(3).unwrap();
        // The first chunk of each thread's part in turn waits until all others have ended.
        for late in [0, 4, 8] {
            let ended = AtomicUsize::new(0);
            pool.run(12, &|i| {
                while i == late && ended.load(Acquire) < 11 {
                    std::thread::yield_now();
                }
                ended.fetch_add(1, Release);
            });
        }
    }

    #[test]
    fn many_rounds_in_a_row_and_after_sleep() {
        let mut pool = Pool::new(3).unwrap();
        let sum = AtomicUsize::new(0);
        for pause in [0, 20] {
            for _ in 0..5_000 {
                pool.run(4, &|i| _ = sum.fetch_add(i, Relaxed));
            }
            std::thread::sleep(Duration::from_millis(pause));
        }
        pool.run(4, &|i| _ = sum.fetch_add(i, Relaxed));
        assert_eq!(sum.into_inner(), 10_001 * 6);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        let ended = AtomicUsize::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.run(64, &|i| {
                assert!(i != 7, "chunk seven");
                ended.fetch_add(1, Relaxed);
            })
        }));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"chunk seven"));
        assert_eq!(ended.into_inner(), 63);
        let after = AtomicUsize::new(0);
        pool.run(8, &|_| _ = after.fetch_add(1, Relaxed));
        assert_eq!(after.into_inner(), 8);
    }

    #[test]
    fn tiles_cover_the_matrix_once() {
        let mut pool = Pool::new(2).unwrap();
        let mut out = vec![0.0; 7 * 10];
        pool.tiles(&mut out, 10, &[0..3, 3..3, 3..7], 0..6, 4, |_, mut tile| {
            for row in tile.rows.clone() {
                tile.row(row).iter_mut().for_each(|v| *v += 1.0);
            }
        });
        pool.tiles(&mut out, 10, &[0..3, 3..7], 6..10, 4, |_, mut tile| {
            for row in tile.rows.clone() {
                tile.row(row).iter_mut().for_each(|v| *v += 1.0);
            }
        });
        assert!(out.iter().all(|&v| v == 1.0));
    }
}

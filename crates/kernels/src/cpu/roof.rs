//! What this machine can do at most: the denominators of the benchmarks.
//!
//! The law: measured with the same threads, vectors and memory as the kernels, in the same process.

use super::simd::{Kernel, Numbers, Simd, Sums, Tiles, LANES, TILE};
use super::slab::Slab;
use super::Cpu;
use crate::block::BLOCK;
use crate::device::Result;
use std::fmt;
use std::hint::black_box;
use std::time::Instant;

/// Bytes read to measure memory: larger than most caches.
const READ: usize = 256 << 20;
/// Rounds of one arithmetic measurement.
const ROUNDS: usize = 200_000;
/// Forks and joins of one measurement.
const FORKS: usize = 10_000;
/// Independent sums of one arithmetic measurement.
const CHAINS: usize = 12;

/// Highest rates, over all threads.
#[derive(Debug, Clone, Copy)]
pub struct Roof {
    /// Sequential reads, GB/s.
    pub read: f64,
    /// int8 multiplications and additions, 10⁹/s.
    pub int8: f64,
    /// f32 multiplications and additions, 10⁹/s.
    pub f32: f64,
    /// One fork and join of all threads, microseconds.
    pub fork: f64,
}

impl fmt::Display for Roof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Roof { read, int8, f32, fork } = self;
        write!(f, "reads {read:.1} GB/s, int8 {int8:.0} GOP/s, f32 {f32:.0} GFLOP/s, fork and join {fork:.2} us")
    }
}

impl Cpu {
    /// Measures the roof, in about a second.
    pub fn roof(&mut self) -> Result<Roof> {
        let mut memory = Slab::<[f32; LANES]>::zeros(READ / size_of::<[f32; LANES]>())?;
        let piece = memory.len().div_ceil(4 * self.pool.threads());
        self.pool.pieces(&mut memory, piece, |_, part| part.fill([1.0; LANES]));
        let threads = self.pool.threads();
        let isa = self.isa;
        let read = self.best(|cpu| cpu.pool.pieces(&mut memory, piece, |_, part| isa.run(Read(part))));
        let int8 = self.best(|cpu| cpu.pool.run(threads, &|_| _ = isa.run(Int8)));
        let f32 = self.best(|cpu| cpu.pool.run(threads, &|_| isa.run(Fma)));
        let int8_operations = isa.run(Int8);
        let operations = |each: usize| (threads * each) as f64 / 1e9;
        let forks = self.best(|cpu| (0..FORKS).for_each(|_| cpu.pool.run(threads, &|i| _ = black_box(i))));
        Ok(Roof {
            read: READ as f64 / read / 1e9,
            int8: operations(int8_operations) / int8,
            f32: operations(ROUNDS * CHAINS * 2 * LANES) / f32,
            fork: forks * 1e6 / FORKS as f64,
        })
    }

    /// Seconds of the fastest of 7 calls.
    fn best(&mut self, mut call: impl FnMut(&mut Cpu)) -> f64 {
        let once = |_| {
            let start = Instant::now();
            call(self);
            start.elapsed().as_secs_f64()
        };
        (0..7).map(once).fold(f64::INFINITY, f64::min)
    }
}

struct Read<'a>(&'a [[f32; LANES]]);

impl Kernel for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = [s.zero(); 8];
        for vectors in self.0.as_chunks::<8>().0 {
            for i in 0..8 {
                sums[i] = s.add(sums[i], s.load(&vectors[i]));
            }
        }
        for sum in sums {
            black_box(s.sum(sum));
        }
    }
}

/// Returns the number of its operations.
struct Int8;

impl Kernel for Int8 {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        match s.tiles() {
            Some(tiles) => multiply_tiles::<S>(&tiles),
            None => dots(s),
        }
    }
}

/// Products of blocks of 32, sums of their own each.
#[inline(always)]
fn multiply_tiles<S: Simd>(tiles: &S::Tiles) -> usize {
    let (x, w, mut sums) = (black_box([[1; 8]; TILE]), black_box(Numbers::ZERO), [Sums::ZERO; 2]);
    for _ in 0..ROUNDS {
        tiles.multiply(1, &x, &w, &mut sums);
    }
    black_box(sums);
    ROUNDS * 2 * TILE * LANES * BLOCK
}

#[inline(always)]
fn dots<S: Simd>(s: S) -> usize {
    let mut sums = [s.splat_i(0); CHAINS];
    let w = s.bytes(black_box(&[1; 4 * LANES]));
    for _ in 0..ROUNDS {
        let x = black_box(1);
        for sum in &mut sums {
            *sum = s.dot(*sum, w, x);
        }
    }
    for sum in sums {
        black_box(s.sum(s.float(sum)));
    }
    ROUNDS * CHAINS * 8 * LANES
}

struct Fma;

impl Kernel for Fma {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = [s.zero(); CHAINS];
        let w = s.splat(black_box(1.0));
        for _ in 0..ROUNDS {
            let x = s.splat(black_box(1.0));
            for sum in &mut sums {
                *sum = s.mul_add(w, x, *sum);
            }
        }
        for sum in sums {
            black_box(s.sum(sum));
        }
    }
}

//! Small whole numbers in as many bits as they need, for 32 steps of 16 rows.
//!
//! The law: eight planes, of which byte 4r + j of plane p is row r, k = 4p + j. Planes of `N` bits lie in `N` vectors, so
//! that the bytes of one vector hold the same bits of `8 / N` planes.

use super::simd::{Simd, LANES};
use super::slab::Plain;
use crate::block::{BLOCK, LEVELS};

/// Numbers for 32 k of 16 rows.
pub trait Planes: Plain {
    /// The largest number that fits.
    const MOST: u8;

    /// The eight planes.
    fn load<S: Simd>(&self, s: S) -> [S::B; 8];
    /// The number of a row at k.
    fn get(&self, row: usize, k: usize) -> u8;
    /// Writes the numbers of a row, which were zeros.
    fn set(&mut self, row: usize, numbers: &[u8; BLOCK]);
}

/// Numbers of `N` bits: plane p is in vector `p · N / 8`, from bit `p · N mod 8` on.
pub type Bits<const N: usize> = [[u8; 4 * LANES]; N];

impl<const N: usize> Planes for Bits<N> {
    const MOST: u8 = u8::MAX >> (8 - N);

    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> [S::B; 8] {
        let mut planes = [s.bytes(&self[0]); 8];
        for p in 0..8 {
            planes[p] = s.bits(s.bytes(&self[p * N / 8]), p * N % 8, N);
        }
        planes
    }

    fn get(&self, row: usize, k: usize) -> u8 {
        self[k / 4 * N / 8][4 * row + k % 4] >> (k / 4 * N % 8) & Self::MOST
    }

    fn set(&mut self, row: usize, numbers: &[u8; BLOCK]) {
        for (p, four) in numbers.as_chunks::<4>().0.iter().enumerate() {
            let place = &mut self[p * N / 8].as_chunks_mut().0[row];
            *place = (u32::from_le_bytes(*place) | u32::from_le_bytes(*four) << (p * N % 8)).to_le_bytes();
        }
    }
}

/// The low bits of numbers beside their high ones.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Joined<L, H> {
    low: L,
    high: H,
}

// SAFETY: two arrays of numbers.
unsafe impl<L: Planes, H: Planes> Plain for Joined<L, H> {}

impl<L: Planes, H: Planes> Joined<L, H> {
    /// Bits of the low part.
    const LOW: usize = L::MOST.count_ones() as usize;
}

impl<L: Planes, H: Planes> Planes for Joined<L, H> {
    const MOST: u8 = H::MOST << Self::LOW | L::MOST;

    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> [S::B; 8] {
        let (mut planes, high) = (self.low.load(s), self.high.load(s));
        for p in 0..8 {
            planes[p] = s.join(planes[p], high[p], Self::LOW);
        }
        planes
    }

    fn get(&self, row: usize, k: usize) -> u8 {
        self.high.get(row, k) << Self::LOW | self.low.get(row, k)
    }

    fn set(&mut self, row: usize, numbers: &[u8; BLOCK]) {
        self.low.set(row, &numbers.map(|number| number & L::MOST));
        self.high.set(row, &numbers.map(|number| number >> Self::LOW));
    }
}

/// The sixteen levels of the IQ4 formats, plus 128, as their four-bit places among them.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Levels(Bits<4>);

// SAFETY: an array of numbers.
unsafe impl Plain for Levels {}

const RAISED_LEVELS: [u8; 16] = raised_levels();
/// Which level a number is.
const PLACES: [u8; 256] = places();

const fn raised_levels() -> [u8; 16] {
    let (mut raised, mut i) = ([0; 16], 0);
    while i < 16 {
        raised[i] = (LEVELS[i] as u8) ^ 0x80;
        i += 1;
    }
    raised
}

const fn places() -> [u8; 256] {
    let (mut places, mut i) = ([0; 256], 0);
    while i < 16 {
        places[RAISED_LEVELS[i] as usize] = i as u8;
        i += 1;
    }
    places
}

impl Planes for Levels {
    const MOST: u8 = u8::MAX;

    #[inline(always)]
    fn load<S: Simd>(&self, s: S) -> [S::B; 8] {
        let mut planes = self.0.load(s);
        for plane in &mut planes {
            *plane = s.lookup(&RAISED_LEVELS, *plane);
        }
        planes
    }

    fn get(&self, row: usize, k: usize) -> u8 {
        RAISED_LEVELS[usize::from(self.0.get(row, k))]
    }

    fn set(&mut self, row: usize, numbers: &[u8; BLOCK]) {
        self.0.set(row, &numbers.map(|number| PLACES[usize::from(number)]));
    }
}

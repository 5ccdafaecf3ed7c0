//! Small whole numbers in as many bits as they need, for 32 steps of 16 rows.
//!
//! The law: eight planes, of which byte 4r + j of plane p is row r, k = 4p + j. Planes of `N` bits lie in `N` vectors, so
//! that the bytes of one vector hold the same bits of `8 / N` planes.

use super::simd::{Simd, LANES};
use super::slab::Plain;
use crate::block::{BLOCK, LEVELS};
use std::marker::PhantomData;

/// Numbers for 32 k of 16 rows.
pub trait Planes: Plain {
    /// The largest number that fits.
    const MOST: u8;

    /// Plane p.
    fn plane<S: Simd>(&self, s: S, p: usize) -> S::B;
    /// Writes all planes.
    #[inline(always)]
    fn unpack<S: Simd>(&self, s: S, out: &mut Bits<8>) {
        for (p, out) in out.iter_mut().enumerate() {
            s.store_bytes(self.plane(s, p), out);
        }
    }
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
    fn plane<S: Simd>(&self, s: S, p: usize) -> S::B {
        s.bits(s.bytes(&self[p * N / 8]), p * N % 8, N)
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

/// Numbers of `P` as many tokens read them fastest: each a byte.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Apart<P>(Bits<8>, PhantomData<P>);

// SAFETY: an array of numbers.
unsafe impl<P: Planes> Plain for Apart<P> {}

impl<P: Planes> Apart<P> {
    /// Takes the planes apart.
    #[inline(always)]
    pub fn of<S: Simd>(s: S, planes: &P) -> Self {
        let mut bytes = [[0; 4 * LANES]; 8];
        planes.unpack(s, &mut bytes);
        Apart(bytes, PhantomData)
    }
}

impl<P: Planes> Planes for Apart<P> {
    const MOST: u8 = P::MOST;

    #[inline(always)]
    fn plane<S: Simd>(&self, s: S, p: usize) -> S::B {
        s.bytes(&self.0[p])
    }

    fn get(&self, row: usize, k: usize) -> u8 {
        self.0.get(row, k)
    }

    fn set(&mut self, row: usize, numbers: &[u8; BLOCK]) {
        self.0.set(row, numbers);
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
    fn plane<S: Simd>(&self, s: S, p: usize) -> S::B {
        s.join(self.low.plane(s, p), self.high.plane(s, p), Self::LOW)
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
    fn plane<S: Simd>(&self, s: S, p: usize) -> S::B {
        s.lookup(&RAISED_LEVELS, self.0.plane(s, p))
    }

    fn get(&self, row: usize, k: usize) -> u8 {
        RAISED_LEVELS[usize::from(self.0.get(row, k))]
    }

    fn set(&mut self, row: usize, numbers: &[u8; BLOCK]) {
        self.0.set(row, &numbers.map(|number| PLACES[usize::from(number)]));
    }
}

//! AMX: 16 tokens times 16 rows of weights in one instruction.
//!
//! The law: the matrix registers of a thread have their shapes while its [`Registers`] live, of which there is one at a
//! time; nothing is kept in them from one product to the next.

use super::avx512::Avx512;
use super::{Numbers, Sums, Tiles, LANES, TILE};
use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Whether this machine has AMX for bytes and this process may use it.
pub fn is_allowed() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8 && ask()
}

/// Asks for the matrix registers: they are large, so that Linux saves them for those only who have asked.
#[cfg(target_os = "linux")]
fn ask() -> bool {
    extern "C" {
        fn syscall(number: std::ffi::c_long, ...) -> std::ffi::c_long;
    }
    const ARCH_PRCTL: std::ffi::c_long = 158;
    const REQUEST_FEATURE: std::ffi::c_long = 0x1023;
    const TILE_DATA: std::ffi::c_long = 18;
    // SAFETY: two numbers go to the system, which refuses what it does not know.
    unsafe { syscall(ARCH_PRCTL, REQUEST_FEATURE, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn ask() -> bool {
    false
}

/// The shapes of the matrix registers, as `ldtilecfg` reads them.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start: u8,
    reserved: [u8; 14],
    bytes_per_row: [u16; 16],
    rows: [u8; 16],
}

/// Rows and bytes per row: sums, tokens and weights of a whole block, then tokens and weights of a half.
const SHAPES: Shapes = shapes([(16, 64), (16, 32), (8, 64), (16, 16), (4, 64)]);

const fn shapes(of: [(u8, u16); 5]) -> Shapes {
    let mut shapes = Shapes { palette: 1, start: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
    let mut i = 0;
    while i < of.len() {
        (shapes.rows[i], shapes.bytes_per_row[i]) = of[i];
        i += 1;
    }
    shapes
}

/// The matrix registers of this thread.
pub struct Registers(PhantomData<*const ()>);

impl Registers {
    /// Gives them their shapes.
    ///
    /// # Safety
    /// [`is_allowed`], and this thread has no others.
    #[inline(always)]
    pub unsafe fn new() -> Registers {
        // SAFETY: reads 64 bytes, which are valid shapes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &SHAPES, options(readonly, nostack, preserves_flags)) };
        Registers(PhantomData)
    }
}

impl Drop for Registers {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: clears the registers, which nobody else uses.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// `sums = x · w` in registers of whole blocks or of halves.
macro_rules! multiply {
    ($x:literal, $w:literal: $from:expr, $weights:expr => $sums:expr) => {
        asm!(
            "tilezero tmm0",
            concat!("tileloadd ", $x, ", [{x} + {token} * 1]"),
            concat!("tileloadd ", $w, ", [{w} + {line} * 1]"),
            concat!("tdpbssd tmm0, ", $x, ", ", $w),
            "tilestored [{sums} + {line} * 1], tmm0",
            x = in(reg) $from,
            w = in(reg) $weights,
            sums = in(reg) $sums,
            token = in(reg) 32usize,
            line = in(reg) 64usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _, out("tmm4") _,
            options(nostack, preserves_flags)
        )
    };
}

impl<const RUNG: u8> Tiles<Avx512<RUNG>> for Registers {
    #[inline(always)]
    fn multiply(&self, halves: usize, x: &[[i32; 8]; TILE], w: &Numbers, sums: &mut [Sums; 2]) {
        let [first, second] = sums;
        // SAFETY: the registers have their shapes: 16 rows of 32 bytes are read from `x`, eight of 64 from `w`, and 16 of
        // 64 bytes are written to `first`; as halves, 16 of 16 and four of 64 each, of which the second halves start
        // within the same arrays.
        unsafe {
            if halves == 1 {
                multiply!("tmm1", "tmm2": x, w => first);
                return;
            }
            multiply!("tmm3", "tmm4": x, w => first);
            multiply!("tmm3", "tmm4": x.as_ptr().cast::<i32>().add(4), w.0.as_ptr().add(4) => second);
        }
    }

    #[inline(always)]
    fn load(&self, sums: &[i32; LANES]) -> __m512i {
        // SAFETY: `self` proves the instructions; reads a whole vector.
        unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(&self, plane: __m512i, out: &mut [u8; 4 * LANES]) {
        // SAFETY: as above; writes a whole vector.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), plane) };
    }
}

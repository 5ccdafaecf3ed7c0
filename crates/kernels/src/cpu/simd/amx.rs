//! AMX: 16 tokens times 16 rows of weights in one instruction.
//!
//! The law: the matrix registers of a thread have their shapes while its [`Registers`] or [`HalfRegisters`] live, of which there
//! is one at a time. Nothing else uses them meanwhile, so that [`HalfRegisters`] keep sums in them; [`Registers`] keep nothing.

use super::{HalfTiles, Numbers, Sums, TileSums, Tiles, TILE};
use crate::cpu::halves::Halves;
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

/// Whether this machine has AMX for bytes and BF16 (there is none with only one of them) and this process may use it.
pub fn is_allowed() -> bool {
    const BF16_TILE_INT8: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid_count(7, 0).edx & BF16_TILE_INT8 == BF16_TILE_INT8 && ask()
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

/// The time for which the matrix registers of this thread have shapes.
struct Shaped(PhantomData<*const ()>);

impl Shaped {
    /// # Safety
    /// [`is_allowed`], the shapes are valid, and this thread has no others.
    #[inline(always)]
    unsafe fn new(shapes: &Shapes) -> Shaped {
        // SAFETY: reads 64 bytes, which are valid shapes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) shapes, options(readonly, nostack, preserves_flags)) };
        Shaped(PhantomData)
    }
}

impl Drop for Shaped {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: clears the registers, which nobody else uses.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// The matrix registers of this thread.
pub struct Registers {
    _shaped: Shaped,
}

impl Registers {
    /// Gives them their shapes.
    ///
    /// # Safety
    /// [`is_allowed`], and this thread has no others.
    #[inline(always)]
    pub unsafe fn new() -> Registers {
        // SAFETY: as for the caller; the shapes are valid.
        Registers { _shaped: unsafe { Shaped::new(&SHAPES) } }
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

impl Tiles for Registers {
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
}

/// The matrix registers of this thread for BF16.
pub struct HalfRegisters {
    /// Rows of a tile of inputs.
    tokens: usize,
    _shaped: Shaped,
}

impl HalfRegisters {
    /// Gives them their shapes: four of sums and two of inputs with a row for each token, two of weights.
    ///
    /// # Safety
    /// [`is_allowed`], and this thread has no others.
    #[inline(always)]
    pub unsafe fn new(tokens: usize) -> HalfRegisters {
        let tokens = tokens.min(TILE);
        let mut shapes = Shapes { palette: 1, start: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        shapes.rows[..6].fill(tokens as u8);
        shapes.rows[6..8].fill(TILE as u8);
        shapes.bytes_per_row[..8].fill(64);
        // SAFETY: as for the caller; the shapes are valid.
        HalfRegisters { tokens, _shaped: unsafe { Shaped::new(&shapes) } }
    }
}

/// Adds the products of a tile of inputs, higher and lower parts, with two groups of weights in `tmm6` and `tmm7`.
macro_rules! add_products {
    ($first:literal, $second:literal: $high:expr, $low:expr, $stride:expr) => {
        asm!(
            "tileloadd tmm4, [{high} + {stride} * 1]",
            concat!("tdpbf16ps ", $first, ", tmm4, tmm6"),
            concat!("tdpbf16ps ", $second, ", tmm4, tmm7"),
            "tileloadd tmm5, [{low} + {stride} * 1]",
            concat!("tdpbf16ps ", $first, ", tmm5, tmm6"),
            concat!("tdpbf16ps ", $second, ", tmm5, tmm7"),
            high = in(reg) $high,
            low = in(reg) $low,
            stride = in(reg) $stride,
            options(readonly, nostack, preserves_flags)
        )
    };
}

impl HalfTiles for HalfRegisters {
    #[inline(always)]
    fn clear(&self) {
        // SAFETY: the registers have their shapes.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nomem, nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    fn multiply<const TILES: usize>(&self, [high, low]: [&[bf16]; 2], stride: usize, w: [&Halves; 2]) {
        let last = ((TILES - 1) * TILE + self.tokens - 1) * stride + 2 * TILE;
        assert!(high.len() >= last && low.len() >= last, "inputs of all tokens");
        let (high, low, bytes) = (high.as_ptr(), low.as_ptr(), 2 * stride);
        // SAFETY: the registers have their shapes; 16 rows of 64 bytes are read of each group, and one for each token and tile of
        // the inputs, which have as many.
        unsafe {
            asm!(
                "tileloadd tmm6, [{first} + {line} * 1]",
                "tileloadd tmm7, [{second} + {line} * 1]",
                first = in(reg) w[0],
                second = in(reg) w[1],
                line = in(reg) 64usize,
                options(readonly, nostack, preserves_flags)
            );
            add_products!("tmm0", "tmm1": high, low, bytes);
            if TILES == 2 {
                add_products!("tmm2", "tmm3": high.add(TILE * stride), low.add(TILE * stride), bytes);
            }
        }
    }

    #[inline(always)]
    fn store(&self, sums: &mut [TileSums; 4]) {
        // SAFETY: the registers have their shapes; up to 16 rows of 64 bytes are written to each.
        unsafe {
            asm!(
                "tilestored [{sums} + {line} * 1], tmm0",
                "tilestored [{sums} + {line} * 1 + 1024], tmm1",
                "tilestored [{sums} + {line} * 1 + 2048], tmm2",
                "tilestored [{sums} + {line} * 1 + 3072], tmm3",
                sums = in(reg) sums,
                line = in(reg) 64usize,
                options(nostack, preserves_flags)
            );
        }
    }
}

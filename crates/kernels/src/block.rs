//! Blocks of 32 quants, the common form of all twelve quantized formats.
//!
//! The law: every quantized format is a sequence of 32 small integers with a scale and an offset per 16 of them, and
//! a value is `scale · quant + offset`. Layouts are ggml's published ones (`ggml-common.h`, `ggml-quants.c`).

use crate::dtype::DType;
use half::f16;

/// Values in a [`Block`].
pub const BLOCK: usize = 32;

/// The 16 levels of IQ4_NL and IQ4_XS.
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// 32 values: `scale[i / 16] · quants[i] + offset[i / 16]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Block {
    /// Small integers; `0 … 2ᵇ − 1` in formats with offsets, signed in the others.
    pub quants: [i8; BLOCK],
    /// Factors.
    pub scale: Halves,
    /// Summands.
    pub offset: Halves,
}

/// A number for each half of a block: `unit · steps[half]`, exact in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Halves {
    /// What one step counts; the same for all blocks that the format keeps together.
    pub unit: f16,
    /// 1 in formats that keep a number for each block.
    pub steps: [i8; 2],
}

impl Halves {
    const ZERO: Halves = Halves { unit: f16::ZERO, steps: [0; 2] };

    /// One number for all 32 values.
    fn even(unit: f16, steps: i8) -> Halves {
        Halves { unit, steps: [steps; 2] }
    }

    /// The two numbers.
    pub fn values(&self) -> [f32; 2] {
        self.steps.map(|steps| self.unit.to_f32() * f32::from(steps))
    }
}

impl Block {
    /// The blocks of a row of whole ggml blocks. `dtype` is a quantized format.
    pub fn of_row(dtype: DType, row: &[u8]) -> impl Iterator<Item = Block> + '_ {
        let parts = dtype.block_len() / BLOCK;
        let blocks = row.chunks_exact(dtype.block_bytes());
        blocks.flat_map(move |bytes| (0..parts).map(move |part| Block::decode(dtype, bytes, part)))
    }

    /// The 32 values.
    pub fn values(&self) -> [f32; BLOCK] {
        let (scale, offset) = (self.scale.values(), self.offset.values());
        std::array::from_fn(|i| scale[i / 16] * f32::from(self.quants[i]) + offset[i / 16])
    }

    fn decode(dtype: DType, b: &[u8], part: usize) -> Block {
        match dtype {
            DType::Q4_0 => Block::signed(half_at(b, 0), nibbles(&b[2..]).map(|q| q - 8)),
            DType::Q4_1 => Block::shifted(half_at(b, 0), half_at(b, 2), nibbles(&b[4..])),
            DType::Q5_0 => Block::signed(half_at(b, 0), five_bits(&b[2..], 16)),
            DType::Q5_1 => Block::shifted(half_at(b, 0), half_at(b, 2), five_bits(&b[4..], 0)),
            DType::Q8_0 => Block::signed(half_at(b, 0), bits(b, 2, 0, u8::MAX)),
            DType::IQ4NL => Block::signed(half_at(b, 0), levels(&b[2..])),
            DType::IQ4XS => iq4_xs(b, part),
            DType::Q2K => q2_k(b, part),
            DType::Q3K => q3_k(b, part),
            DType::Q4K => q4_k(b, part),
            DType::Q5K => q5_k(b, part),
            DType::Q6K => q6_k(b, part),
            DType::F32 | DType::F16 | DType::BF16 => unreachable!("{dtype} has no blocks"),
        }
    }

    fn signed(scale: f16, quants: [i8; BLOCK]) -> Block {
        Block { quants, scale: Halves::even(scale, 1), offset: Halves::ZERO }
    }

    fn shifted(scale: f16, offset: f16, quants: [i8; BLOCK]) -> Block {
        Block { quants, scale: Halves::even(scale, 1), offset: Halves::even(offset, 1) }
    }
}

fn half_at(b: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([b[at], b[at + 1]])
}

/// `mask` of `N` bytes from byte `first` on, shifted right by `shift`. A whole array at a time, which compilers turn into vectors:
/// with bytes taken one by one out of `b`, loading took two to three times as long.
fn bits<const N: usize>(b: &[u8], first: usize, shift: usize, mask: u8) -> [i8; N] {
    let bytes: &[u8; N] = b[first..].first_chunk().expect("a whole block");
    bytes.map(|byte| (byte >> shift & mask) as i8)
}

/// `low + high · 2ᵃᵗ − around`.
fn join(mut low: [i8; BLOCK], high: [i8; BLOCK], at: usize, around: i8) -> [i8; BLOCK] {
    for (low, high) in low.iter_mut().zip(high) {
        *low = (*low | high << at) - around;
    }
    low
}

/// Low nibbles are values 0–15, high nibbles 16–31.
fn nibbles(qs: &[u8]) -> [i8; BLOCK] {
    let halves: [[i8; BLOCK / 2]; 2] = [bits(qs, 0, 0, 15), bits(qs, 0, 4, 15)];
    halves.as_flattened().try_into().expect("two halves")
}

fn levels(qs: &[u8]) -> [i8; BLOCK] {
    nibbles(qs).map(|q| LEVELS[q as usize])
}

/// Four bytes of fifth bits, then nibbles; quants around `around`.
fn five_bits(b: &[u8], around: i8) -> [i8; BLOCK] {
    let high = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    join(nibbles(&b[4..]), std::array::from_fn(|i| (high >> i & 1) as i8), 4, around)
}

/// `d, scales_h u16, scales_l[4], qs[128]`: six-bit scales around 32.
fn iq4_xs(b: &[u8], part: usize) -> Block {
    let high = u16::from_le_bytes([b[2], b[3]]) >> (2 * part) & 3;
    let low = b[4 + part / 2] >> (part % 2 * 4) & 15;
    let scale = Halves::even(half_at(b, 0), (low | (high as u8) << 4) as i8 - 32);
    Block { quants: levels(&b[8 + 16 * part..]), scale, offset: Halves::ZERO }
}

/// `scales[16], qs[64], d, dmin`: a byte of `qs` serves four parts, 2 bits each.
fn q2_k(b: &[u8], part: usize) -> Block {
    let quants = bits(b, 16 + part / 4 * 32, part % 4 * 2, 3);
    let scale = Halves { unit: half_at(b, 80), steps: std::array::from_fn(|h| (b[2 * part + h] & 15) as i8) };
    let offset = Halves { unit: -half_at(b, 82), steps: std::array::from_fn(|h| (b[2 * part + h] >> 4) as i8) };
    Block { quants, scale, offset }
}

/// `hmask[32], qs[64], scales[12], d`: bit `part` of `hmask` is the third bit, quants around 4.
fn q3_k(b: &[u8], part: usize) -> Block {
    let (low, high) = (bits(b, 32 + part / 4 * 32, part % 4 * 2, 3), bits(b, 0, part, 1));
    let quants = join(low, high, 2, 4);
    let scale = Halves { unit: half_at(b, 108), steps: std::array::from_fn(|h| q3_scale(&b[96..108], 2 * part + h)) };
    Block { quants, scale, offset: Halves::ZERO }
}

/// Six-bit scale `i` of 16, around 32: four low bits in the first 8 bytes, two high bits in the last 4.
fn q3_scale(scales: &[u8], i: usize) -> i8 {
    let low = scales[i % 8] >> (i / 8 * 4) & 15;
    let high = scales[8 + i % 4] >> (i / 4 * 2) & 3;
    (low | high << 4) as i8 - 32
}

/// `d, dmin, scales[12], qs[128]`: parts 2i and 2i + 1 are the low and high nibbles of 32 bytes.
fn q4_k(b: &[u8], part: usize) -> Block {
    k_block(b, part, bits(b, 16 + part / 2 * 32, part % 2 * 4, 15))
}

/// `d, dmin, scales[12], qh[32], qs[128]`: bit `part` of `qh` is the fifth bit.
fn q5_k(b: &[u8], part: usize) -> Block {
    k_block(b, part, join(bits(b, 48 + part / 2 * 32, part % 2 * 4, 15), bits(b, 16, part, 1), 4, 0))
}

fn k_block(b: &[u8], part: usize, quants: [i8; BLOCK]) -> Block {
    let (scale, min) = k_scale(&b[4..16], part);
    Block { quants, scale: Halves::even(half_at(b, 0), scale), offset: Halves::even(-half_at(b, 2), min) }
}

/// Six-bit scale and minimum `i` of 8, packed in 12 bytes.
fn k_scale(s: &[u8], i: usize) -> (i8, i8) {
    let (scale, min) = match i {
        0..4 => (s[i] & 63, s[i + 4] & 63),
        _ => (s[i + 4] & 15 | s[i - 4] >> 6 << 4, s[i + 4] >> 4 | s[i] >> 6 << 4),
    };
    (scale as i8, min as i8)
}

/// `ql[128], qh[64], scales[16], d`: each half of the block has 64 + 32 bytes for four parts, quants around 32.
fn q6_k(b: &[u8], part: usize) -> Block {
    let (group, of_group) = (part / 4, part % 4);
    let low = bits(b, group * 64 + of_group % 2 * 32, of_group / 2 * 4, 15);
    let quants = join(low, bits(b, 128 + group * 32, of_group * 2, 3), 4, 32);
    let scale = Halves { unit: half_at(b, 208), steps: std::array::from_fn(|h| b[192 + 2 * part + h] as i8) };
    Block { quants, scale, offset: Halves::ZERO }
}

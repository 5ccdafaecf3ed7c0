//! Element and block formats of weights, and their sizes.
//!
//! The law: a row of `cols` values is `cols / block_len` blocks of `block_bytes` bytes, and [`dequantize`] is the one
//! meaning of those bytes. Names and numbers are those of GGUF (ggml's published `ggml_type`).

use crate::block::{Block, BLOCK};
use crate::device::{DeviceError, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::fmt;
use std::str::FromStr;

/// How the values of a matrix are stored.
#[allow(non_camel_case_types)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// The upper half of a single.
    BF16,
    /// 32 nibbles around 8, one scale.
    Q4_0,
    /// 32 nibbles, scale and minimum.
    Q4_1,
    /// 32 five-bit quants around 16, one scale.
    Q5_0,
    /// 32 five-bit quants, scale and minimum.
    Q5_1,
    /// 32 signed bytes, one scale.
    Q8_0,
    /// 256 two-bit quants, scale and minimum per 16.
    Q2K,
    /// 256 three-bit quants, scale per 16.
    Q3K,
    /// 256 nibbles, scale and minimum per 32.
    Q4K,
    /// 256 five-bit quants, scale and minimum per 32.
    Q5K,
    /// 256 six-bit quants, scale per 16.
    Q6K,
    /// 32 indices into 16 uneven levels, one scale.
    IQ4NL,
    /// 256 indices into 16 uneven levels, scale per 32.
    IQ4XS,
}

use DType::*;

/// Every format: variant, GGUF name, ggml number, values per block, bytes per block.
const FORMATS: [(DType, &str, u32, usize, usize); 15] = [
    (F32, "F32", 0, 1, 4),
    (F16, "F16", 1, 1, 2),
    (BF16, "BF16", 30, 1, 2),
    (Q4_0, "Q4_0", 2, 32, 18),
    (Q4_1, "Q4_1", 3, 32, 20),
    (Q5_0, "Q5_0", 6, 32, 22),
    (Q5_1, "Q5_1", 7, 32, 24),
    (Q8_0, "Q8_0", 8, 32, 34),
    (Q2K, "Q2_K", 10, 256, 84),
    (Q3K, "Q3_K", 11, 256, 110),
    (Q4K, "Q4_K", 12, 256, 144),
    (Q5K, "Q5_K", 13, 256, 176),
    (Q6K, "Q6_K", 14, 256, 210),
    (IQ4NL, "IQ4_NL", 20, 32, 18),
    (IQ4XS, "IQ4_XS", 23, 256, 136),
];

impl DType {
    /// All formats, in the order of their declaration.
    pub fn all() -> impl Iterator<Item = DType> {
        FORMATS.iter().map(|f| f.0)
    }

    /// The format with this number in a GGUF file, if it is one of ours.
    pub fn from_ggml(id: u32) -> Option<DType> {
        FORMATS.iter().find(|f| f.2 == id).map(|f| f.0)
    }

    /// Values in one block; 1 for the float formats.
    pub fn block_len(self) -> usize {
        FORMATS[self as usize].3
    }

    /// Bytes of one block.
    pub fn block_bytes(self) -> usize {
        FORMATS[self as usize].4
    }

    /// Bytes of a row of `cols` values, where `cols` is a multiple of [`DType::block_len`].
    pub fn row_bytes(self, cols: usize) -> usize {
        cols / self.block_len() * self.block_bytes()
    }

    /// Whether values are stored one by one, as floats.
    pub fn is_float(self) -> bool {
        self.block_len() == 1
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(FORMATS[*self as usize].1)
    }
}

impl FromStr for DType {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<DType, String> {
        let found = FORMATS.iter().find(|f| f.1.eq_ignore_ascii_case(name)).map(|f| f.0);
        found.ok_or_else(|| {
            let names: Vec<&str> = FORMATS.iter().map(|f| f.1).collect();
            format!("unknown format {name:?}; known are {}", names.join(", "))
        })
    }
}

/// Writes the values that `bytes` stand for to `out`. Fails unless `out` holds whole blocks and `bytes` exactly those.
pub fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check_len(dtype, bytes.len(), out.len())?;
    match dtype {
        F32 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(y, b)| *y = f32::from_le_bytes(*b)),
        F16 => {
            let halves: Vec<f16> = bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b)).collect();
            halves.convert_to_f32_slice(out);
        }
        BF16 => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(y, b)| *y = bf16::from_le_bytes(*b).to_f32()),
        _ => Block::of_row(dtype, bytes).zip(out.as_chunks_mut::<BLOCK>().0).for_each(|(block, y)| *y = block.values()),
    }
    Ok(())
}

fn check_len(dtype: DType, bytes: usize, values: usize) -> Result<()> {
    if !values.is_multiple_of(dtype.block_len()) {
        let len = dtype.block_len();
        return Err(DeviceError::Unsupported(format!("{values} values of {dtype} are not whole blocks of {len}")));
    }
    let want = dtype.row_bytes(values);
    if bytes != want {
        return Err(DeviceError::Unsupported(format!("{values} values of {dtype} are {want} bytes, not {bytes}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_of_declaration() {
        for (i, format) in FORMATS.iter().enumerate() {
            assert_eq!(format.0 as usize, i);
            assert_eq!(format.1.parse(), Ok(format.0));
            assert_eq!(format.0.to_string(), format.1);
            assert_eq!(DType::from_ggml(format.2), Some(format.0));
        }
        assert_eq!(DType::from_ggml(4), None);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let error = "Q9_9".parse::<DType>().unwrap_err();
        assert!(error.starts_with("unknown format \"Q9_9\"; known are F32, F16,"), "{error}");
    }

    #[test]
    fn lengths_that_do_not_match_are_refused() {
        let error = |dtype, bytes: usize, values: usize| {
            dequantize(dtype, &vec![0; bytes], &mut vec![0.0; values]).unwrap_err().to_string()
        };
        assert_eq!(error(Q4_0, 18, 31), "31 values of Q4_0 are not whole blocks of 32");
        assert_eq!(error(Q4K, 143, 256), "256 values of Q4_K are 144 bytes, not 143");
    }
}

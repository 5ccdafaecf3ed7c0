//! Floats to quantized blocks, for weights that are stored as floats.
//!
//! The law: bytes are those of ggml's published layouts and, for Q8_0, Q4_0 and Q4_1, of its reference quantizer. Q4_K
//! takes scale and minimum of each 32 from their range, without a search for better ones.

use crate::device::{DeviceError, Result};
use crate::dtype::DType;
use half::f16;

/// Formats that [`quantize`] writes.
pub const WRITTEN: [DType; 4] = [DType::Q8_0, DType::Q4_0, DType::Q4_1, DType::Q4K];

/// The blocks of `values`, which are whole blocks of `dtype`.
pub fn quantize(dtype: DType, values: &[f32]) -> Result<Vec<u8>> {
    if !values.len().is_multiple_of(dtype.block_len()) {
        let len = dtype.block_len();
        return Err(DeviceError::Unsupported(format!("{} values are not whole blocks of {len}", values.len())));
    }
    let mut bytes = Vec::with_capacity(dtype.row_bytes(values.len()));
    for block in values.chunks_exact(dtype.block_len()) {
        match dtype {
            DType::Q8_0 => q8_0(block, &mut bytes),
            DType::Q4_0 => q4_0(block, &mut bytes),
            DType::Q4_1 => q4_1(block, &mut bytes),
            DType::Q4K => q4_k(block, &mut bytes),
            other => return Err(DeviceError::Unsupported(format!("weights cannot be quantized to {other}"))),
        }
    }
    Ok(bytes)
}

/// 1 / d, or 0 where all values are.
fn inverse(d: f32) -> f32 {
    if d == 0.0 {
        0.0
    } else {
        1.0 / d
    }
}

fn range(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(least, most), &v| (least.min(v), most.max(v)))
}

fn put_half(x: f32, bytes: &mut Vec<u8>) {
    bytes.extend(f16::from_f32(x).to_le_bytes());
}

/// Value i in the low nibble of byte i, value i + half in the high one.
fn put_nibbles(quants: &[u8], bytes: &mut Vec<u8>) {
    let (low, high) = quants.split_at(quants.len() / 2);
    bytes.extend(low.iter().zip(high).map(|(low, high)| low | high << 4));
}

fn q8_0(x: &[f32], bytes: &mut Vec<u8>) {
    let (least, most) = range(x);
    let d = most.max(-least) / 127.0;
    put_half(d, bytes);
    bytes.extend(x.iter().map(|v| (v * inverse(d)).round() as i8 as u8));
}

fn q4_0(x: &[f32], bytes: &mut Vec<u8>) {
    let extreme = x.iter().fold(0.0f32, |extreme, &v| if v.abs() > extreme.abs() { v } else { extreme });
    let d = extreme / -8.0;
    put_half(d, bytes);
    let quants: Vec<u8> = x.iter().map(|v| (v * inverse(d) + 8.5).min(15.0) as u8).collect();
    put_nibbles(&quants, bytes);
}

fn q4_1(x: &[f32], bytes: &mut Vec<u8>) {
    let (least, most) = range(x);
    let d = (most - least) / 15.0;
    put_half(d, bytes);
    put_half(least, bytes);
    let quants: Vec<u8> = x.iter().map(|v| ((v - least) * inverse(d) + 0.5).min(15.0) as u8).collect();
    put_nibbles(&quants, bytes);
}

/// `d, dmin, scales[12], qs[128]`: eight parts of 32, each with a six-bit scale and minimum.
fn q4_k(x: &[f32], bytes: &mut Vec<u8>) {
    let parts: Vec<(f32, f32)> = x
        .chunks_exact(32)
        .map(|part| {
            let (least, most) = range(part);
            let min = (-least).max(0.0);
            ((most + min) / 15.0, min)
        })
        .collect();
    let largest = |of: fn(&(f32, f32)) -> f32| parts.iter().map(of).fold(0.0, f32::max) / 63.0;
    let (d, dmin) = (f16::from_f32(largest(|p| p.0)).to_f32(), f16::from_f32(largest(|p| p.1)).to_f32());
    let six = |value: f32, d: f32| (value * inverse(d)).round().clamp(0.0, 63.0) as u8;
    let scales: Vec<(u8, u8)> = parts.iter().map(|&(scale, min)| (six(scale, d), six(min, dmin))).collect();
    put_half(d, bytes);
    put_half(dmin, bytes);
    let packed = |of: fn(&(u8, u8)) -> u8| std::array::from_fn::<u8, 8, _>(|i| of(&scales[i]));
    let (scale, min) = (packed(|s| s.0), packed(|s| s.1));
    bytes.extend((0..4).map(|i| scale[i] | scale[i + 4] >> 4 << 6));
    bytes.extend((0..4).map(|i| min[i] | min[i + 4] >> 4 << 6));
    bytes.extend((4..8).map(|i| scale[i] & 15 | (min[i] & 15) << 4));
    for (two, scales) in x.chunks_exact(64).zip(scales.chunks_exact(2)) {
        let quants = two.iter().enumerate().map(|(i, v)| {
            let (scale, min) = scales[i / 32];
            let (step, min) = (d * f32::from(scale), dmin * f32::from(min));
            ((v + min) * inverse(step)).round().clamp(0.0, 15.0) as u8
        });
        put_nibbles(&quants.collect::<Vec<_>>(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::dequantize;

    /// No value is further off than its format's steps say.
    #[test]
    fn values_come_back_within_their_steps() {
        let mut state = 7u64;
        let x: Vec<f32> = (0..1024)
            .map(|i| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * if i % 97 == 0 { 4.0 } else { 1.0 }
            })
            .collect();
        for (dtype, steps) in WRITTEN.into_iter().zip([127.0, 8.0, 7.5, 7.0]) {
            let mut back = vec![0.0; x.len()];
            dequantize(dtype, &quantize(dtype, &x).unwrap(), &mut back).unwrap();
            for (x, back) in x.chunks(dtype.block_len()).zip(back.chunks(dtype.block_len())) {
                let most = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (x, back) in x.iter().zip(back) {
                    assert!((x - back).abs() <= most / steps, "{dtype}: {x} became {back}, largest {most}");
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        for dtype in WRITTEN {
            let mut back = [1.0; 256];
            dequantize(dtype, &quantize(dtype, &[0.0; 256]).unwrap(), &mut back).unwrap();
            assert_eq!(back, [0.0; 256], "{dtype}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let error = |dtype, len: usize| quantize(dtype, &vec![0.0; len]).unwrap_err().to_string();
        assert_eq!(error(DType::Q4K, 32), "32 values are not whole blocks of 256");
        assert_eq!(error(DType::Q5_0, 32), "weights cannot be quantized to Q5_0");
    }
}

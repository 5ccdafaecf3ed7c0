//! Every block format against blocks that llama.cpp wrote: the weights come back within the format's error.

use sglang_kernels::{dequantize, DType};

/// Largest root-mean-square error, relative to that of the weights.
fn allowed(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => 0.0,
        DType::F16 => 3e-4,
        DType::BF16 => 2e-3,
        DType::Q8_0 => 7e-3,
        DType::Q6K => 0.02,
        DType::Q5_0 | DType::Q5_1 | DType::Q5K => 0.05,
        DType::Q4_0 | DType::Q4_1 | DType::Q4K | DType::IQ4NL | DType::IQ4XS => 0.1,
        DType::Q3K => 0.2,
        DType::Q2K => 0.4,
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().map(|b| (b as char).to_digit(16).expect("a hex digit") as u8).collect();
    digits.chunks_exact(2).map(|two| two[0] << 4 | two[1]).collect()
}

fn values(dtype: DType, hex: &str) -> Vec<f32> {
    let mut out = vec![0.0; 256];
    dequantize(dtype, &bytes(hex), &mut out).unwrap();
    out
}

#[test]
fn weights_come_back() {
    let text = include_str!("golden/blocks.txt");
    let lines: Vec<(DType, &str)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .map(|(format, hex)| (format.parse().unwrap(), hex))
        .collect();
    assert!(DType::all().all(|dtype| lines.iter().any(|line| line.0 == dtype)), "a format has no line");
    let exact = values(DType::F32, lines[0].1);
    let power: f32 = exact.iter().map(|x| x * x).sum();
    for (dtype, hex) in lines {
        let error: f32 = values(dtype, hex).iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum();
        let error = (error / power).sqrt();
        assert!(error <= allowed(dtype), "{dtype}: error {error}");
        println!("{dtype}: {error}");
    }
}

//! A weight matrix as the kernels read it.
//!
//! The law: rows come in groups of 16 (the last padded with zeros), a group's records follow each other along K.
//! Formats with one scale per 32 stay quantized, the others become f32.

use super::pool::Pool;
use super::simd::{Element, LANES};
use super::slab::{Plain, Slab};
use super::tile::{Bytes, FromBlock, Nibbles, Record, Signed};
use crate::block::Block;
use crate::device::{HostMatrix, Result};
use crate::dtype::{dequantize, DType};
use half::{bf16, f16};

/// `rows × cols` weights in tiles.
pub struct Matrix {
    /// Output features N.
    pub rows: usize,
    /// Input features K.
    pub cols: usize,
    /// The weights.
    pub tiles: Tiles,
}

/// `[⌈N / 16⌉][K / steps]` records of one kind.
#[allow(missing_docs)]
pub enum Tiles {
    Nibbles(Slab<Nibbles>),
    Bytes(Slab<Bytes>),
    Signed(Slab<Signed>),
    F32(Slab<[f32; LANES]>),
    F16(Slab<[f16; LANES]>),
    BF16(Slab<[bf16; LANES]>),
}

/// Evaluates `$body` with `$records` bound to the slab of whichever kind.
macro_rules! with_records {
    ($tiles:expr, $records:ident => $body:expr) => {
        match $tiles {
            $crate::cpu::matrix::Tiles::Nibbles($records) => $body,
            $crate::cpu::matrix::Tiles::Bytes($records) => $body,
            $crate::cpu::matrix::Tiles::Signed($records) => $body,
            $crate::cpu::matrix::Tiles::F32($records) => $body,
            $crate::cpu::matrix::Tiles::F16($records) => $body,
            $crate::cpu::matrix::Tiles::BF16($records) => $body,
        }
    };
}
pub(super) use with_records;

impl Matrix {
    /// Repacks a checked host matrix.
    pub fn pack(pool: &mut Pool, host: &HostMatrix) -> Result<Matrix> {
        let tiles = match host.dtype {
            DType::Q4_0 | DType::Q4_1 | DType::Q4K => Tiles::Nibbles(blocks(pool, host)?),
            DType::Q5_0 | DType::Q5_1 | DType::Q5K => Tiles::Bytes(blocks(pool, host)?),
            DType::Q8_0 | DType::IQ4NL | DType::IQ4XS => Tiles::Signed(blocks(pool, host)?),
            DType::F16 => Tiles::F16(floats(pool, host)?),
            DType::BF16 => Tiles::BF16(floats(pool, host)?),
            DType::F32 | DType::Q2K | DType::Q3K | DType::Q6K => Tiles::F32(floats(pool, host)?),
        };
        Ok(Matrix { rows: host.rows, cols: host.cols, tiles })
    }

    /// Writes row `row` to `out`, `cols` values.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        with_records!(&self.tiles, records => row_of(records, row, out))
    }

    /// Bytes of the tiles, what one product reads.
    pub fn bytes(&self) -> usize {
        with_records!(&self.tiles, records => size_of_val(&**records))
    }
}

fn row_of<R: Record>(records: &[R], row: usize, out: &mut [f32]) {
    let depth = out.len() / R::STEPS;
    let group = &records[row / LANES * depth..][..depth];
    for (record, values) in group.iter().zip(out.chunks_exact_mut(R::STEPS)) {
        record.row(row % LANES, values);
    }
}

/// One group of 16 host rows at a time, in parallel.
fn groups<R: Record>(
    pool: &mut Pool,
    host: &HostMatrix,
    fill: impl Fn(usize, &[u8], &mut [R]) + Sync,
) -> Result<Slab<R>> {
    let depth = host.cols / R::STEPS;
    let row_bytes = host.dtype.row_bytes(host.cols).max(1);
    let mut records = Slab::zeros(host.rows.div_ceil(LANES) * depth)?;
    let mut groups: Vec<&mut [R]> = records.chunks_exact_mut(depth.max(1)).collect();
    pool.each(&mut groups, |i, group| {
        let rows = host.bytes.chunks_exact(row_bytes).skip(i * LANES).take(LANES);
        rows.enumerate().for_each(|(r, bytes)| fill(r, bytes, group));
    });
    Ok(records)
}

fn blocks<R: FromBlock>(pool: &mut Pool, host: &HostMatrix) -> Result<Slab<R>> {
    groups(pool, host, |row, bytes, group: &mut [R]| {
        let blocks = Block::of_row(host.dtype, bytes);
        group.iter_mut().zip(blocks).for_each(|(record, block)| record.set(row, &block));
    })
}

fn floats<E: Element + Plain>(pool: &mut Pool, host: &HostMatrix) -> Result<Slab<[E; LANES]>> {
    groups(pool, host, |row, bytes, group: &mut [[E; LANES]]| {
        let mut values = vec![0.0; host.cols];
        dequantize(host.dtype, bytes, &mut values).expect("the matrix was checked");
        group.iter_mut().zip(&values).for_each(|(record, &v)| record[row] = E::narrow(v));
    })
}

//! A weight matrix as the kernels read it.
//!
//! The law: rows come in groups of 16 (the last of a part padded with zeros), a group's records follow each other along
//! K. Every quantized format stays quantized, with its scales in f16 or f32; floats stay as they are.

use super::pool::Pool;
use super::simd::LANES;
use super::slab::Slab;
use super::tile::{Affine, Bytes, FromBlock, Nibbles, Record, Signed, Words};
use crate::block::Block;
use crate::device::{HostMatrix, Result};
use crate::dtype::{dequantize, DType};

/// `rows × cols` weights in tiles.
pub struct Matrix {
    /// Output features N.
    pub rows: usize,
    /// Input features K.
    pub cols: usize,
    /// Rows of one format after rows of another.
    pub parts: Vec<Part>,
}

/// Rows of one format.
pub struct Part {
    /// Their number.
    pub rows: usize,
    /// The weights.
    pub tiles: Tiles,
}

/// `[⌈N / 16⌉][K / steps]` records of one kind.
#[allow(missing_docs)]
pub enum Tiles {
    Nibbles(Slab<Affine<Nibbles, 1>>),
    HalvedNibbles(Slab<Affine<Nibbles, 2>>),
    Bytes(Slab<Affine<Bytes, 1>>),
    HalvedBytes(Slab<Affine<Bytes, 2>>),
    Signed(Slab<Signed>),
    Words(Slab<Words>),
    Floats(Slab<[f32; LANES]>),
}

/// Evaluates `$body` with `$records` bound to the slab of whichever kind.
macro_rules! with_records {
    ($tiles:expr, $records:ident => $body:expr) => {
        match $tiles {
            $crate::cpu::matrix::Tiles::Nibbles($records) => $body,
            $crate::cpu::matrix::Tiles::HalvedNibbles($records) => $body,
            $crate::cpu::matrix::Tiles::Bytes($records) => $body,
            $crate::cpu::matrix::Tiles::HalvedBytes($records) => $body,
            $crate::cpu::matrix::Tiles::Signed($records) => $body,
            $crate::cpu::matrix::Tiles::Words($records) => $body,
            $crate::cpu::matrix::Tiles::Floats($records) => $body,
        }
    };
}
pub(super) use with_records;

impl Matrix {
    /// Repacks checked host matrices of one width, one below the other.
    pub fn pack(pool: &mut Pool, hosts: &[HostMatrix]) -> Result<Matrix> {
        let parts = hosts.chunk_by(|a, b| a.dtype == b.dtype).map(|hosts| Part::pack(pool, hosts));
        let rows = hosts.iter().map(|host| host.rows).sum();
        Ok(Matrix { rows, cols: hosts.first().map_or(0, |host| host.cols), parts: parts.collect::<Result<_>>()? })
    }

    /// Writes row `row` to `out`, `cols` values.
    pub fn row(&self, mut row: usize, out: &mut [f32]) {
        for part in &self.parts {
            if row < part.rows {
                return with_records!(&part.tiles, records => row_of(records, row, out));
            }
            row -= part.rows;
        }
    }

    /// Bytes of the tiles, what one product reads.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| with_records!(&part.tiles, records => size_of_val(&**records))).sum()
    }
}

impl Part {
    fn pack(pool: &mut Pool, hosts: &[HostMatrix]) -> Result<Part> {
        let HostMatrix { dtype, cols, .. } = hosts[0];
        let bytes = hosts.iter().flat_map(|host| host.bytes.chunks_exact(dtype.row_bytes(cols).max(1)));
        let rows = &Rows { dtype, cols, bytes: bytes.collect() };
        let tiles = match dtype {
            DType::Q4_0 | DType::Q4_1 | DType::Q4K => Tiles::Nibbles(blocks(pool, rows)?),
            DType::Q2K | DType::Q3K => Tiles::HalvedNibbles(blocks(pool, rows)?),
            DType::Q5_0 | DType::Q5_1 | DType::Q5K => Tiles::Bytes(blocks(pool, rows)?),
            DType::Q6K => Tiles::HalvedBytes(blocks(pool, rows)?),
            DType::Q8_0 | DType::IQ4NL | DType::IQ4XS => Tiles::Signed(blocks(pool, rows)?),
            DType::F16 | DType::BF16 if cols.is_multiple_of(Words::STEPS) => Tiles::Words(words(pool, rows)?),
            DType::F32 | DType::F16 | DType::BF16 => Tiles::Floats(floats(pool, rows)?),
        };
        Ok(Part { rows: rows.bytes.len(), tiles })
    }
}

/// Host rows of one format.
struct Rows<'a> {
    dtype: DType,
    cols: usize,
    bytes: Vec<&'a [u8]>,
}

impl Rows<'_> {
    /// The values of one row.
    fn values(&self, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![0.0; self.cols];
        dequantize(self.dtype, bytes, &mut values).expect("the matrix was checked");
        values
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
fn groups<R: Record>(pool: &mut Pool, rows: &Rows, fill: impl Fn(usize, &[u8], &mut [R]) + Sync) -> Result<Slab<R>> {
    let depth = rows.cols / R::STEPS;
    let mut records = Slab::zeros(rows.bytes.len().div_ceil(LANES) * depth)?;
    let mut groups: Vec<&mut [R]> = records.chunks_exact_mut(depth.max(1)).collect();
    pool.each(&mut groups, |i, group| {
        let rows = rows.bytes.iter().skip(i * LANES).take(LANES);
        rows.enumerate().for_each(|(r, bytes)| fill(r, bytes, group));
    });
    Ok(records)
}

fn blocks<R: FromBlock>(pool: &mut Pool, rows: &Rows) -> Result<Slab<R>> {
    groups(pool, rows, |row, bytes, group: &mut [R]| {
        let blocks = Block::of_row(rows.dtype, bytes);
        group.iter_mut().zip(blocks).for_each(|(record, block)| record.set(row, &block));
    })
}

fn words(pool: &mut Pool, rows: &Rows) -> Result<Slab<Words>> {
    groups(pool, rows, |row, bytes, group: &mut [Words]| {
        let values = rows.values(bytes);
        group.iter_mut().zip(values.chunks_exact(Words::STEPS)).for_each(|(record, v)| record.set(row, v));
    })
}

fn floats(pool: &mut Pool, rows: &Rows) -> Result<Slab<[f32; LANES]>> {
    groups(pool, rows, |row, bytes, group: &mut [[f32; LANES]]| {
        group.iter_mut().zip(rows.values(bytes)).for_each(|(record, v)| record[row] = v);
    })
}

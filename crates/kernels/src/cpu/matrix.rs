//! A weight matrix as the kernels read it.
//!
//! The law: rows come in groups of 16 (the last of a part padded with zeros), a group's records follow each other along
//! K. Every quantized format stays quantized, with its scales as they are stored; floats stay as they are.

use super::factors::{Own, Raised, Stepped};
use super::halves::Halves;
use super::level::Level;
use super::matmul::{Kept, Product};
use super::planes::{Bits, Joined, Levels};
use super::pool::Pool;
use super::simd::LANES;
use super::slab::{Shelf, Slab};
use super::tile::{Affine, FromBlock, FromValues, Record, Signed, Words};
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
    pub tiles: Box<dyn Tiles>,
}

/// `[⌈N / 16⌉][K / steps]` records of one kind: as many bytes as their format has in a file, or hardly more.
pub trait Tiles: Send + Sync {
    /// Runs a product with these weights.
    fn multiply(&self, product: &Product, pool: &mut Pool, kept: &mut Kept, out: &mut [f32]);
    /// Writes the weights of a row.
    fn row(&self, row: usize, out: &mut [f32]);
    /// Bytes of the records.
    fn bytes(&self) -> usize;
}

impl<R: Record> Tiles for Slab<R> {
    fn multiply(&self, product: &Product, pool: &mut Pool, kept: &mut Kept, out: &mut [f32]) {
        product.run::<R>(pool, kept, self, out);
    }

    fn row(&self, row: usize, out: &mut [f32]) {
        let steps = R::BLOCKS * R::STEPS;
        let depth = out.len() / steps;
        let group = &self[row / LANES * depth..][..depth];
        for (record, values) in group.iter().zip(out.chunks_exact_mut(steps)) {
            record.row(row % LANES, values);
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(&**self)
    }
}

impl Matrix {
    /// Repacks checked host matrices of one width, one below the other, for products at a level.
    pub fn pack(level: Level, pool: &mut Pool, shelf: &mut Shelf, hosts: &[HostMatrix]) -> Result<Matrix> {
        let parts = hosts.chunk_by(|a, b| a.dtype == b.dtype).map(|hosts| Part::pack(level, pool, shelf, hosts));
        let rows = hosts.iter().map(|host| host.rows).sum();
        Ok(Matrix { rows, cols: hosts.first().map_or(0, |host| host.cols), parts: parts.collect::<Result<_>>()? })
    }

    /// Writes row `row` to `out`, `cols` values.
    pub fn row(&self, mut row: usize, out: &mut [f32]) {
        for part in &self.parts {
            if row < part.rows {
                return part.tiles.row(row, out);
            }
            row -= part.rows;
        }
    }

    /// Bytes of the tiles, what one product reads.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.tiles.bytes()).sum()
    }
}

impl Part {
    fn pack(level: Level, pool: &mut Pool, shelf: &mut Shelf, hosts: &[HostMatrix]) -> Result<Part> {
        let HostMatrix { dtype, cols, .. } = hosts[0];
        let bytes = hosts.iter().flat_map(|host| host.bytes.chunks_exact(dtype.row_bytes(cols).max(1)));
        let rows = &Rows { dtype, cols, bytes: bytes.collect() };
        let tiles = match dtype {
            DType::Q4_0 => blocks::<Affine<Own, Raised<8>, Bits<4>, 1>>(pool, shelf, rows),
            DType::Q4_1 => blocks::<Affine<Own, Own, Bits<4>, 1>>(pool, shelf, rows),
            DType::Q5_0 => blocks::<Affine<Own, Raised<16>, Joined<Bits<4>, Bits<1>>, 1>>(pool, shelf, rows),
            DType::Q5_1 => blocks::<Affine<Own, Own, Joined<Bits<4>, Bits<1>>, 1>>(pool, shelf, rows),
            DType::Q8_0 => blocks::<Signed<Own, Bits<8>, 1>>(pool, shelf, rows),
            DType::Q2K => blocks::<Affine<Stepped<2>, Stepped<2>, Bits<2>, 8>>(pool, shelf, rows),
            DType::Q3K => blocks::<Affine<Stepped<2>, Raised<4>, Joined<Bits<2>, Bits<1>>, 8>>(pool, shelf, rows),
            DType::Q4K => blocks::<Affine<Stepped<1>, Stepped<1>, Bits<4>, 8>>(pool, shelf, rows),
            DType::Q5K => blocks::<Affine<Stepped<1>, Stepped<1>, Joined<Bits<4>, Bits<1>>, 8>>(pool, shelf, rows),
            DType::Q6K => blocks::<Affine<Stepped<2>, Raised<32>, Joined<Bits<4>, Bits<2>>, 8>>(pool, shelf, rows),
            DType::IQ4NL => blocks::<Signed<Own, Levels, 1>>(pool, shelf, rows),
            DType::IQ4XS => blocks::<Signed<Stepped<1>, Levels, 8>>(pool, shelf, rows),
            DType::BF16 if level.has_half_tiles() && cols.is_multiple_of(Halves::STEPS) => {
                values::<Halves>(pool, shelf, rows)
            }
            DType::F16 | DType::BF16 if cols.is_multiple_of(Words::STEPS) => values::<Words>(pool, shelf, rows),
            DType::F32 | DType::F16 | DType::BF16 => values::<[f32; LANES]>(pool, shelf, rows),
        };
        Ok(Part { rows: rows.bytes.len(), tiles: tiles? })
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

/// One group of 16 host rows at a time, in parallel.
fn groups<R: Record>(
    pool: &mut Pool,
    shelf: &mut Shelf,
    rows: &Rows,
    fill: impl Fn(&[&[u8]], &mut [R]) + Sync,
) -> Result<Box<dyn Tiles>> {
    let depth = rows.cols / (R::BLOCKS * R::STEPS);
    let mut records = shelf.zeros(rows.bytes.len().div_ceil(LANES) * depth)?;
    let mut groups: Vec<_> = records.chunks_exact_mut(depth.max(1)).zip(rows.bytes.chunks(LANES)).collect();
    pool.each(&mut groups, |_, (group, rows)| fill(rows, group));
    Ok(Box::new(records))
}

/// Record by record, so that one is in the nearest cache while its 16 rows are written.
fn blocks<R: FromBlock>(pool: &mut Pool, shelf: &mut Shelf, rows: &Rows) -> Result<Box<dyn Tiles>> {
    let bytes = rows.dtype.row_bytes(R::BLOCKS * R::STEPS);
    groups(pool, shelf, rows, |rows_of_group, group: &mut [R]| {
        for (i, record) in group.iter_mut().enumerate() {
            for (row, of_row) in rows_of_group.iter().enumerate() {
                let blocks = Block::of_row(rows.dtype, &of_row[i * bytes..][..bytes]);
                blocks.enumerate().for_each(|(b, block)| record.set(row, b, &block));
            }
        }
    })
}

/// The same.
fn values<R: FromValues>(pool: &mut Pool, shelf: &mut Shelf, rows: &Rows) -> Result<Box<dyn Tiles>> {
    groups(pool, shelf, rows, |rows_of_group, group: &mut [R]| {
        let values: Vec<Vec<f32>> = rows_of_group.iter().map(|bytes| rows.values(bytes)).collect();
        for (i, record) in group.iter_mut().enumerate() {
            for (row, values) in values.iter().enumerate() {
                record.set(row, &values[i * R::STEPS..][..R::STEPS]);
            }
        }
    })
}

//! What ranks of a tensor-parallel model say to each other.

pub mod meeting;
pub mod shared;

use sglang_kernels::device::{Device, Result};

/// Collective operations over the buffers of one device type. All ranks call the same operations in the same order, and
/// each of them has its result, or an error once any rank has failed, when the call returns.
pub trait Communicator<D: Device>: Send {
    /// Replaces the first `len` values of `buffer` by their sums over all ranks, added in rank order: the same bits on
    /// each.
    fn all_reduce(&mut self, device: &mut D, buffer: &mut D::Buffer, len: usize) -> Result<()>;
    /// `columns[rows, width]` are this rank's columns of a matrix; rank r of N receives its rows r, r + N, r + 2N …, whole,
    /// in `out`.
    fn deal_rows(
        &mut self,
        device: &mut D,
        columns: &mut D::Buffer,
        rows: usize,
        width: usize,
        out: &mut D::Buffer,
    ) -> Result<()>;
}

/// One rank: nothing to say.
pub struct Solo;

impl<D: Device> Communicator<D> for Solo {
    fn all_reduce(&mut self, _: &mut D, _: &mut D::Buffer, _: usize) -> Result<()> {
        Ok(())
    }

    fn deal_rows(&mut self, _: &mut D, columns: &mut D::Buffer, _: usize, _: usize, out: &mut D::Buffer) -> Result<()> {
        std::mem::swap(columns, out);
        Ok(())
    }
}

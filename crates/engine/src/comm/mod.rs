//! What ranks of a tensor-parallel model say to each other.

use sglang_kernels::device::{Device, Result};

/// Collective operations over the buffers of one device type. All ranks call the same operations in the same order.
pub trait Communicator<D: Device>: Send {
    /// This rank.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn size(&self) -> usize;
    /// Replaces the first `len` values of `buffer` by their sums over all ranks, added in rank order.
    fn all_reduce(&mut self, device: &mut D, buffer: &mut D::Buffer, len: usize) -> Result<()>;
}

/// One rank: nothing to say.
pub struct Solo;

impl<D: Device> Communicator<D> for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&mut self, _: &mut D, _: &mut D::Buffer, _: usize) -> Result<()> {
        Ok(())
    }
}

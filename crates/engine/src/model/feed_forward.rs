//! The feed-forward half of a layer: one gated network, or several of which each row takes a few (Mixtral,
//! arXiv 2401.04088), perhaps beside one that all rows take (Qwen2's mixtures).
//!
//! Law: a row's experts are added up in ascending order, the shared one last, so its result does not depend on which rows
//! share a step.

use super::config::{Experts, ModelConfig};
use sglang_kernels::device::{Device, Result};

/// `down(silu(gate(x)) · up(x))`.
pub struct Gated<D: Device> {
    /// Fused gate and up projections `[2F, D]`.
    pub gate_up: D::Matrix,
    /// Down projection `[D, F]`.
    pub down: D::Matrix,
}

/// An expert for all rows.
pub struct Shared<D: Device> {
    /// How much of it a row gets, before the sigmoid `[1, D]`.
    pub gate: D::Matrix,
    /// The expert.
    pub network: Gated<D>,
}

/// What a layer does to each row after attention.
pub enum FeedForward<D: Device> {
    /// The same network for all rows.
    Dense(Gated<D>),
    /// Some of the experts for each row.
    Mixture {
        /// Scores of the experts `[E, D]`.
        router: D::Matrix,
        /// All experts.
        experts: Vec<Gated<D>>,
        /// One more.
        shared: Option<Shared<D>>,
    },
}

/// Activations of a step, allocated once for the largest one.
pub struct Scratch<D: Device> {
    /// Gate and up `[T, 2F]`.
    gate_up: D::Buffer,
    hidden: usize,
    mixture: Option<Mixing<D>>,
}

/// What a mixture needs besides.
struct Mixing<D: Device> {
    of: Experts,
    /// Scores `[T, E]`.
    scores: D::Buffer,
    /// Inputs of one expert, then its outputs `[T, D]`.
    some: D::Buffer,
    /// Inputs of all `[T, D]`.
    all: D::Buffer,
}

impl<D: Device> Scratch<D> {
    /// For steps of up to `rows` rows, where the rank has `ffn` of the largest F.
    pub fn new(device: &mut D, config: &ModelConfig, ffn: usize, rows: usize) -> Result<Self> {
        let mixture = config.experts.as_ref().map(|of| {
            let scores = device.buffer(rows * of.count)?;
            let some = device.buffer(rows * config.hidden)?;
            Ok(Mixing { of: of.clone(), scores, some, all: device.buffer(rows * config.hidden)? })
        });
        Ok(Scratch { gate_up: device.buffer(rows * 2 * ffn)?, hidden: config.hidden, mixture: mixture.transpose()? })
    }
}

impl<D: Device> Gated<D> {
    /// Replaces `x[T, D]` by the output.
    fn run(&self, device: &mut D, scratch: &mut Scratch<D>, x: &mut D::Buffer, rows: usize) -> Result<()> {
        device.matmul(x, &self.gate_up, rows, &mut scratch.gate_up)?;
        device.matmul_gated(&scratch.gate_up, &self.down, rows, x)
    }
}

impl<D: Device> FeedForward<D> {
    /// Replaces `x[T, D]`, which is normalised, by the output.
    pub fn run(&self, device: &mut D, scratch: &mut Scratch<D>, x: &mut D::Buffer, rows: usize) -> Result<()> {
        match self {
            FeedForward::Dense(network) => network.run(device, scratch, x, rows),
            FeedForward::Mixture { router, experts, shared } => {
                let mut mixing = scratch.mixture.take().expect("the configuration has experts");
                let mut done = mixing.run(device, scratch, router, experts, x, rows);
                if let (Ok(()), Some(shared)) = (&done, shared) {
                    done = mixing.add_shared(device, scratch, shared, x, rows);
                }
                scratch.mixture = Some(mixing);
                done
            }
        }
    }
}

impl<D: Device> Mixing<D> {
    fn run(
        &mut self,
        device: &mut D,
        scratch: &mut Scratch<D>,
        router: &D::Matrix,
        experts: &[Gated<D>],
        x: &mut D::Buffer,
        rows: usize,
    ) -> Result<()> {
        let Experts { count, per_token, normalise, .. } = self.of;
        device.matmul(x, router, rows, &mut self.scores)?;
        let routes = device.route(&self.scores, count, per_token, normalise, rows)?;
        std::mem::swap(x, &mut self.all);
        device.zero(x, rows * scratch.hidden)?;
        for (number, network) in experts.iter().enumerate() {
            let chosen = |(t, route): (usize, &Vec<(usize, f32)>)| Some((t, route.iter().find(|r| r.0 == number)?.1));
            let (mine, weights): (Vec<usize>, Vec<f32>) = routes.iter().enumerate().filter_map(chosen).unzip();
            if mine.is_empty() {
                continue;
            }
            device.gather(&self.all, &mine, scratch.hidden, &mut self.some)?;
            network.run(device, scratch, &mut self.some, mine.len())?;
            device.scatter_add(&self.some, &mine, &weights, scratch.hidden, x)?;
        }
        Ok(())
    }

    /// Adds the expert for all rows to `x`.
    fn add_shared(
        &mut self,
        device: &mut D,
        scratch: &mut Scratch<D>,
        Shared { gate, network }: &Shared<D>,
        x: &mut D::Buffer,
        rows: usize,
    ) -> Result<()> {
        device.matmul(&self.all, gate, rows, &mut self.scores)?;
        let shares: Vec<f32> = device.read(&self.scores, rows)?.into_iter().map(|s| 1.0 / (1.0 + (-s).exp())).collect();
        network.run(device, scratch, &mut self.all, rows)?;
        device.scatter_add(&self.all, &(0..rows).collect::<Vec<_>>(), &shares, scratch.hidden, x)
    }
}

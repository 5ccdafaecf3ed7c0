//! Which part of a model each rank holds (column- and row-parallel layers: Megatron-LM, arXiv 1909.08053).
//!
//! Law: the parts of all ranks, in order, are the whole; no rank's part is empty. A part of the columns of a matrix is
//! whole blocks of its format. Query heads that share a key/value head are on one rank, or are that rank's only ones, so
//! that the heads of a rank form groups of one size.

use super::assemble::Precision;
use super::config::{Experts, ModelConfig, DENSE, SHARED};
use crate::error::{Error, Result};
use crate::weights::Source;
use std::ops::Range;

/// Most ranks of a model.
pub const MOST_RANKS: usize = 64;

/// A part of the rows or columns of a matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Size of the whole.
    pub of: usize,
    /// What is taken.
    pub taken: Range<usize>,
}

impl Part {
    /// All of it.
    pub fn all(of: usize) -> Self {
        Part { of, taken: 0..of }
    }

    /// Its size.
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Each of the items is `n` in a row.
    pub fn times(&self, n: usize) -> Self {
        Part { of: self.of * n, taken: self.taken.start * n..self.taken.end * n }
    }
}

/// The part of one rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Number of the rank.
    pub rank: usize,
    /// Number of ranks.
    pub ranks: usize,
    /// Query heads.
    pub heads: Part,
    /// Key/value heads that they use; other ranks may hold them too.
    pub kv_heads: Part,
    /// Of the feed-forward size F, of every expert.
    pub ffn: Part,
    /// Of that of the expert for all rows, where there is one.
    pub shared_ffn: Part,
    /// Of that of layers without experts in a model that has some.
    pub dense_ffn: Part,
    /// Rows of embedding and head.
    pub vocab: Part,
}

impl Shard {
    /// The only rank.
    pub fn whole(config: &ModelConfig) -> Self {
        Shard {
            rank: 0,
            ranks: 1,
            heads: Part::all(config.heads),
            kv_heads: Part::all(config.kv_heads),
            ffn: Part::all(config.ffn),
            shared_ffn: Part::all(shared_ffn(config)),
            dense_ffn: Part::all(dense_ffn(config)),
            vocab: Part::all(config.vocab),
        }
    }

    /// The parts of `ranks` ranks.
    pub fn of(config: &ModelConfig, source: &dyn Source, precision: Precision, ranks: usize) -> Result<Vec<Self>> {
        if ranks == 1 {
            return Ok(vec![Self::whole(config)]);
        }
        let grain = Grain::of(config, source, precision)?;
        grain.split(config, ranks).ok_or_else(|| {
            let fits: Vec<String> =
                (1..=MOST_RANKS).filter(|&n| grain.split(config, n).is_some()).map(|n| n.to_string()).collect();
            let ModelConfig { heads, kv_heads, ffn, .. } = config;
            let Grain { heads: h, ffn: f, .. } = grain;
            let fits = fits.join(", ");
            Error::load(format!(
                "tp {ranks}: {heads} heads in blocks of {h} over {kv_heads} key/value heads and a feed-forward of {ffn} \
                 in blocks of {f} cannot be split so; tp can be {fits}"
            ))
        })
    }
}

/// What cannot be cut, since a block of weights reaches across it.
struct Grain {
    /// Query heads.
    heads: usize,
    /// Columns of the feed-forward's output.
    ffn: usize,
    /// The same of the expert for all rows.
    shared_ffn: usize,
    /// The same of layers without experts in a model that has some.
    dense_ffn: usize,
}

impl Grain {
    fn of(config: &ModelConfig, source: &dyn Source, precision: Precision) -> Result<Self> {
        let (mut heads, mut ffn, mut shared, mut dense) = (1, 1, 1, 1);
        let block = |name: &str, cols| -> Result<usize> {
            Ok(precision.format(source.dtype(&format!("{name}.weight"))?, cols, true).block_len())
        };
        let width = config.heads * config.head_size;
        for index in 0..config.layers {
            let layer = format!("model.layers.{index}");
            heads = heads.max(block(&format!("{layer}.self_attn.o_proj"), width)?);
            let one = format!("{layer}.mlp.{}", DENSE[2]);
            match (config.experts_of(index), &config.experts) {
                (None, None) => ffn = ffn.max(block(&one, config.ffn)?),
                (None, Some(Experts { dense_ffn, .. })) => dense = dense.max(block(&one, *dense_ffn)?),
                (Some(Experts { count, names, shared: size, .. }), _) => {
                    for e in 0..*count {
                        let down = format!("{layer}.{}.experts.{e}.{}", names.block, names.parts[2]);
                        ffn = ffn.max(block(&down, config.ffn)?);
                    }
                    if let Some(size) = size {
                        let down = format!("{layer}.{}.{SHARED}.{}", names.block, DENSE[2]);
                        shared = shared.max(block(&down, *size)?);
                    }
                }
            }
        }
        // Block lengths are powers of two, so the largest holds whole ones of the others.
        Ok(Grain { heads: heads / gcd(heads, config.head_size), ffn, shared_ffn: shared, dense_ffn: dense })
    }

    fn split(&self, config: &ModelConfig, ranks: usize) -> Option<Vec<Shard>> {
        let ffn = shares(config.ffn, self.ffn, ranks)?;
        let perhaps = |size: usize, grain| match size {
            0 => Some(vec![0..0; ranks]),
            size => shares(size, grain, ranks),
        };
        let shared = perhaps(shared_ffn(config), self.shared_ffn)?;
        let dense = perhaps(dense_ffn(config), self.dense_ffn)?;
        let vocab = shares(config.vocab, 1, ranks)?;
        let group = config.heads / config.kv_heads;
        let heads = split_heads(config.kv_heads, group, self.heads, ranks)?;
        let kv_heads = |heads: &Range<usize>| heads.start / group..heads.end.div_ceil(group);
        let parts = heads.into_iter().zip(ffn).zip(shared).zip(dense).zip(vocab).enumerate();
        let shard = |(rank, ((((heads, ffn), shared), dense), vocab))| Shard {
            rank,
            ranks,
            kv_heads: Part { of: config.kv_heads, taken: kv_heads(&heads) },
            heads: Part { of: config.heads, taken: heads },
            ffn: Part { of: config.ffn, taken: ffn },
            shared_ffn: Part { of: shared_ffn(config), taken: shared },
            dense_ffn: Part { of: dense_ffn(config), taken: dense },
            vocab: Part { of: config.vocab, taken: vocab },
        };
        Some(parts.map(shard).collect())
    }
}

/// Feed-forward size of the expert for all rows; 0 where there is none.
fn shared_ffn(config: &ModelConfig) -> usize {
    config.experts.as_ref().and_then(|experts| experts.shared).unwrap_or(0)
}

/// Feed-forward size of layers without experts in a model that has some; 0 where there are none.
fn dense_ffn(config: &ModelConfig) -> usize {
    config.experts.as_ref().map_or(0, |experts| experts.dense_ffn)
}

fn gcd(a: usize, b: usize) -> usize {
    match b {
        0 => a,
        _ => gcd(b, a % b),
    }
}

/// `size` in consecutive parts as even as multiples of `grain` can be, larger ones first. `None` where there are too few.
fn shares(size: usize, grain: usize, parts: usize) -> Option<Vec<Range<usize>>> {
    let n = size / grain;
    if n < parts || !size.is_multiple_of(grain) {
        return None;
    }
    let start = |i: usize| (i * (n / parts) + i.min(n % parts)) * grain;
    Some((0..parts).map(|i| start(i)..start(i + 1)).collect())
}

/// Query heads of each rank, in multiples of `grain`: whole groups where there are enough of them, else each group is
/// split over some ranks.
fn split_heads(kv_heads: usize, group: usize, grain: usize, ranks: usize) -> Option<Vec<Range<usize>>> {
    if ranks <= kv_heads {
        let whole = grain / gcd(grain, group) * group;
        return shares(kv_heads * group, whole, ranks);
    }
    let of_group = |kv: usize, ranks: Range<usize>| {
        let split = shares(group, grain, ranks.len())?.into_iter();
        Some(split.map(move |part| kv * group + part.start..kv * group + part.end))
    };
    let ranks_of = shares(ranks, 1, kv_heads)?;
    let split: Option<Vec<_>> = ranks_of.into_iter().enumerate().map(|(kv, ranks)| of_group(kv, ranks)).collect();
    Some(split?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Consecutive parts that begin at 0, end at `size` and are not empty, cut at multiples of `grain`.
    #[track_caller]
    fn check_parts(parts: &[Range<usize>], size: usize, grain: usize) {
        let cuts: Vec<usize> = parts.iter().map(|part| part.start).chain([size]).collect();
        assert_eq!((cuts[0], parts.last().unwrap().end), (0, size));
        assert!(parts.windows(2).all(|two| two[0].end == two[1].start), "{parts:?}");
        assert!(cuts.is_sorted_by(|a, b| a < b) && cuts.iter().all(|cut| cut.is_multiple_of(grain)), "{parts:?}");
    }

    #[test]
    fn shares_are_even_but_for_one_grain() {
        for (size, grain, parts) in [(1536, 32, 4), (11_008, 256, 2), (11_008, 256, 43), (49_152, 1, 7), (5, 1, 5)] {
            let shares = shares(size, grain, parts).unwrap();
            check_parts(&shares, size, grain);
            let (first, last) = (shares[0].len(), shares[parts - 1].len());
            assert!(first == last || first == last + grain, "{shares:?}");
        }
        assert_eq!(shares(768, 256, 4), None);
        assert_eq!(shares(100, 32, 2), None);
    }

    /// For many numbers of heads: whole groups on one rank, or a rank within one group.
    #[test]
    fn heads_of_a_rank_form_groups_of_one_size() {
        let mut split = 0;
        for (kv_heads, group, grain, ranks) in (1..9).flat_map(|k| {
            (1..9).flat_map(move |g| [1, 2, 4].map(|grain| (1..20).map(move |n| (k, g, grain, n)))).flatten()
        }) {
            let Some(heads) = split_heads(kv_heads, group, grain, ranks) else {
                assert!(ranks > kv_heads * group / grain || grain > 1, "{kv_heads} × {group} over {ranks}");
                continue;
            };
            assert_eq!(heads.len(), ranks);
            check_parts(&heads, kv_heads * group, grain);
            for part in heads {
                let whole = part.start % group == 0 && part.end % group == 0;
                assert!(whole || part.start / group == (part.end - 1) / group, "{part:?} of groups of {group}");
            }
            split += 1;
        }
        assert!(split > 500, "{split} splits");
    }
}

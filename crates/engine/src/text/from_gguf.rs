//! A `tokenizers` tokenizer from the keys of a GGUF file.
//!
//! `gpt2`: byte-level BPE with the file's merges, after the splits that its pre-tokenizer names.
//! `llama`: sentence pieces with scores, as BPE: a piece that two others make up is a merge, and a higher score merges
//! first (the conversion that transformers does from slow to fast tokenizers).

use crate::weights::Metadata;
use crate::Result;
use std::collections::HashMap;
use tokenizers::decoders::{byte_fallback::ByteFallback, byte_level::ByteLevel, fuse::Fuse, strip::Strip};
use tokenizers::models::bpe::{BpeBuilder, Merges};
use tokenizers::normalizers::{self, NormalizerWrapper, Prepend, Replace};
use tokenizers::pre_tokenizers::{sequence::Sequence, split::Split, split::SplitPattern, PreTokenizerWrapper};
use tokenizers::{decoders, AddedToken, DecoderWrapper, SplitDelimiterBehavior, Tokenizer};

/// `tokenizer.ggml.token_type`.
mod kind {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
}

/// How `tokenizer.ggml.pre` splits text before merging.
struct Splits {
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces the one before left.
    patterns: &'static [&'static str],
    /// A piece that is a token is not built from merges.
    whole_first: bool,
    /// Prompts begin with BOS unless the file says otherwise.
    bos: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Source: the models' own `tokenizer.json`, and llama.cpp `llama-vocab.cpp` for which name means which.
const SPLITS: [Splits; 7] = [
    Splits { names: &["gpt-2"], patterns: &[GPT2], whole_first: false, bos: false },
    Splits {
        names: &["smollm", "starcoder", "refact", "command-r"],
        patterns: &[r"\p{N}", GPT2],
        whole_first: false,
        bos: false,
    },
    Splits {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_first: true,
        bos: true,
    },
    Splits {
        names: &["qwen2", "deepseek-r1-qwen"],
        patterns: &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_first: false,
        bos: false,
    },
    Splits {
        names: &["tekken"],
        patterns: &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
        whole_first: true,
        bos: true,
    },
    Splits {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥\u{800}-一가-\u{d7ff}]+", r"\p{N}"],
        whole_first: false,
        bos: false,
    },
    Splits {
        names: &["default"],
        patterns: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
            r"\p{N}+",
            "[0-9][0-9][0-9]",
        ],
        whole_first: false,
        bos: false,
    },
];

/// One printable character per byte, no space put in front, no splits of its own.
fn bytes() -> ByteLevel {
    ByteLevel::new(false, true, false)
}

impl Splits {
    fn pre_tokenizer(&self) -> tokenizers::Result<Sequence> {
        let split = |pattern: &&str| {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            Ok(Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?.into())
        };
        let mut steps = self.patterns.iter().map(split).collect::<tokenizers::Result<Vec<PreTokenizerWrapper>>>()?;
        steps.push(bytes().into());
        Ok(Sequence::new(steps))
    }
}

/// The tokenizer, and what goes before and after a prompt.
pub fn build(metadata: &Metadata) -> Result<(Tokenizer, [Vec<u32>; 2])> {
    let pieces = Pieces::read(metadata)?;
    let key = "tokenizer.ggml.model";
    let (mut tokenizer, bos) = match metadata.need(key, metadata.text(key)?)? {
        "gpt2" => byte_level(metadata, &pieces)?,
        "llama" => sentence_pieces(metadata, &pieces)?,
        other => {
            return Err(metadata.error(format_args!("{key} {other:?} is not supported; supported are gpt2, llama")))
        }
    };
    tokenizer.add_tokens(pieces.added()).map_err(|e| metadata.error(e))?;
    let around = |name: &str, by_default| -> Result<Vec<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        match metadata.flag(&format!("tokenizer.ggml.add_{name}_token"))?.unwrap_or(by_default) {
            true => Ok(vec![metadata.need(&key, metadata.token(&key)?)?]),
            false => Ok(Vec::new()),
        }
    };
    Ok((tokenizer, [around("bos", bos)?, around("eos", false)?]))
}

/// The vocabulary: token texts in the order of their ids, and their types.
struct Pieces<'a> {
    tokens: &'a [String],
    kinds: &'a [i64],
}

impl<'a> Pieces<'a> {
    fn read(metadata: &'a Metadata) -> Result<Self> {
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata.need(key, metadata.texts(key)?)?;
        let kinds = metadata.ints("tokenizer.ggml.token_type")?.unwrap_or(&[]);
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            let (n, m) = (kinds.len(), tokens.len());
            return Err(metadata.error(format_args!("tokenizer.ggml.token_type lists {n} types for {m} tokens")));
        }
        Ok(Pieces { tokens, kinds })
    }

    fn kind(&self, id: usize) -> i64 {
        self.kinds.get(id).copied().unwrap_or(kind::NORMAL)
    }

    fn vocabulary<V: FromIterator<(String, u32)>>(&self) -> V {
        self.tokens.iter().cloned().zip(0..).collect()
    }

    /// Tokens that are recognised in text before anything else.
    fn added(&self) -> Vec<AddedToken> {
        let added = |(id, token): (usize, &String)| {
            let special = match self.kind(id) {
                kind::CONTROL | kind::UNKNOWN => true,
                kind::USER_DEFINED => false,
                _ => return None,
            };
            Some(AddedToken::from(token.clone(), special).normalized(false))
        };
        self.tokens.iter().enumerate().filter_map(added).collect()
    }
}

fn byte_level(metadata: &Metadata, pieces: &Pieces) -> Result<(Tokenizer, bool)> {
    let failed = |e: tokenizers::Error| metadata.error(format_args!("its tokenizer cannot be built: {e}"));
    let splits = splits(metadata)?;
    let key = "tokenizer.ggml.merges";
    let merge = |line: &String| {
        let pair = line.split_once(' ').map(|(left, right)| (left.to_owned(), right.to_owned()));
        pair.ok_or_else(|| metadata.error(format_args!("{key} has {line:?}, which is not two tokens")))
    };
    let merges = metadata.need(key, metadata.texts(key)?)?.iter().map(merge).collect::<Result<Merges>>()?;
    let bpe = BpeBuilder::new().vocab_and_merges(pieces.vocabulary::<tokenizers::models::bpe::Vocab>(), merges);
    let mut tokenizer = Tokenizer::new(bpe.ignore_merges(splits.whole_first).build().map_err(failed)?);
    tokenizer.with_pre_tokenizer(Some(splits.pre_tokenizer().map_err(failed)?));
    tokenizer.with_decoder(Some(bytes()));
    Ok((tokenizer, splits.bos))
}

fn splits(metadata: &Metadata) -> Result<&'static Splits> {
    let key = "tokenizer.ggml.pre";
    let name = metadata.text(key)?.unwrap_or("default");
    SPLITS.iter().find(|splits| splits.names.contains(&name)).ok_or_else(|| {
        let known: Vec<_> = SPLITS.iter().flat_map(|splits| splits.names).copied().collect();
        metadata.error(format_args!("{key} {name:?} is not supported; supported are {}", known.join(", ")))
    })
}

fn sentence_pieces(metadata: &Metadata, pieces: &Pieces) -> Result<(Tokenizer, bool)> {
    let failed = |e: tokenizers::Error| metadata.error(format_args!("its tokenizer cannot be built: {e}"));
    let key = "tokenizer.ggml.scores";
    let scores = metadata.need(key, metadata.floats(key)?)?;
    let unknown = metadata.size("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let Some(unknown) = pieces.tokens.get(unknown).filter(|_| scores.len() == pieces.tokens.len()) else {
        let (n, m) = (scores.len(), pieces.tokens.len());
        return Err(metadata.error(format_args!("{n} scores and unknown token {unknown} do not go with {m} tokens")));
    };
    let vocabulary = pieces.vocabulary::<tokenizers::models::bpe::Vocab>();
    let bpe = BpeBuilder::new().vocab_and_merges(vocabulary, merges_by_score(pieces, scores));
    let bpe = bpe.unk_token(unknown.clone()).fuse_unk(true).byte_fallback(true);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(failed)?);
    let space_first = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normal: Vec<NormalizerWrapper> = vec![Replace::new(" ", "▁").map_err(failed)?.into()];
    let mut decode: Vec<DecoderWrapper> =
        vec![Replace::new("▁", " ").map_err(failed)?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if space_first {
        normal.insert(0, Prepend::new("▁".into()).into());
        decode.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_normalizer(Some(normalizers::Sequence::new(normal))).map_err(failed)?;
    tokenizer.with_decoder(Some(decoders::sequence::Sequence::new(decode)));
    Ok((tokenizer, true))
}

/// All ways to make a piece of two others, the piece with the highest score first; of equal scores the longest left,
/// then the longest right part. Only normal pieces take part: control and byte pieces never come from text.
fn merges_by_score(pieces: &Pieces, scores: &[f32]) -> Merges {
    let normal = || pieces.tokens.iter().enumerate().filter(|&(id, _)| pieces.kind(id) == kind::NORMAL);
    let ids: HashMap<&str, usize> = normal().map(|(id, token)| (token.as_str(), id)).collect();
    let mut merges = Vec::new();
    for (id, token) in normal() {
        let halves = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
        let mut made: Vec<_> = halves.filter_map(|(l, r)| Some((*ids.get(l)?, *ids.get(r)?, l, r))).collect();
        made.sort_unstable();
        merges.extend(made.into_iter().map(|(_, _, l, r)| (scores[id], l, r)));
    }
    let rank = |(score, l, r): &(f32, &str, &str)| (*score, l.chars().count(), r.chars().count());
    merges.sort_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        b.0.total_cmp(&a.0).then((b.1, b.2).cmp(&(a.1, a.2)))
    });
    merges.into_iter().map(|(_, l, r)| (l.to_owned(), r.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::SPLITS;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    /// The pieces of `text`, byte-level (`Ġ` is a space, `Ċ` a line feed), with `|` between them.
    fn split(name: &str, text: &str) -> String {
        let splits = SPLITS.iter().find(|splits| splits.names.contains(&name)).expect("a name of the table");
        let mut pieces = PreTokenizedString::from(text);
        splits.pre_tokenizer().unwrap().pre_tokenize(&mut pieces).unwrap();
        let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
        pieces.iter().map(|(piece, ..)| *piece).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn each_name_splits_as_its_model_does() {
        let text = "Hello world's 1234!\n\n  x";
        assert_eq!(split("gpt-2", text), "Hello|Ġworld|'s|Ġ1234|!|ĊĊĠ|Ġx");
        assert_eq!(split("smollm", text), "Hello|Ġworld|'s|Ġ|1|2|3|4|!|ĊĊĠ|Ġx");
        assert_eq!(split("llama-bpe", text), "Hello|Ġworld|'s|Ġ|123|4|!ĊĊ|Ġ|Ġx");
        assert_eq!(split("qwen2", text), "Hello|Ġworld|'s|Ġ|1|2|3|4|!ĊĊ|Ġ|Ġx");
        assert_eq!(split("tekken", "helloWorld don't 12 a/b"), "hello|World|Ġdon|'t|Ġ|1|2|Ġa|/b");
        assert_eq!(split("deepseek-coder", text), "Hello|Ġworld|'|s|Ġ|1|2|3|4|!|Ċ|Ċ|Ġ|Ġx");
        assert_eq!(split("default", text), "Hello|Ġworld|'|s|Ġ|123|4|!|ĊĊĠ|Ġx");
    }
}

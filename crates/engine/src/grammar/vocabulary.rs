//! The tokens that are text, as a trie over their bytes.
//!
//! Law: special tokens and tokens without bytes are not in it, so no constraint ever allows them.

use super::jump::NextBytes;
use crate::text::Tokenizer;
use std::sync::Arc;

/// A tokenizer's tokens in the order of their bytes, and the trie of those bytes.
pub struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    /// Ids by bytes.
    tokens: Vec<u32>,
    /// In preorder: a node's subtree follows it.
    nodes: Vec<Node>,
    /// Bytes of the longest token.
    depth: usize,
    /// Whether a token is this byte alone.
    single: [bool; 256],
}

/// The end of a token's first `depth + 1` bytes, `byte` being the last.
struct Node {
    byte: u8,
    depth: u16,
    /// Index of the node after the subtree.
    after: u32,
    /// The tokens that end here are `tokens[first..end]`.
    first: u32,
    end: u32,
}

/// Where a byte leads.
pub enum Step<S> {
    /// To a state.
    To(S),
    /// Out of what states describe.
    Beyond,
    /// Nowhere.
    Never,
}

/// Longer tokens are left out: no text needs them.
const MAX_TOKEN_BYTES: usize = 1000;

impl Vocabulary {
    /// Of all tokens that are text.
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let mut tokens: Vec<u32> = (0..tokenizer.vocab() as u32).filter(|&token| is_text(&tokenizer, token)).collect();
        tokens.sort_by_key(|&token| tokenizer.token_bytes(token));
        let mut vocabulary =
            Vocabulary { tokenizer: tokenizer.clone(), tokens, nodes: Vec::new(), depth: 0, single: [false; 256] };
        let mut path = Vec::new();
        for i in 0..vocabulary.tokens.len() {
            let bytes = tokenizer.token_bytes(vocabulary.tokens[i]);
            vocabulary.insert(i as u32, bytes, &mut path);
            if let &[byte] = bytes {
                vocabulary.single[usize::from(byte)] = true;
            }
        }
        vocabulary.close(&mut path, 0);
        vocabulary
    }

    /// Adds the next token in order; `path` holds the nodes of the last one.
    fn insert(&mut self, i: u32, bytes: &[u8], path: &mut Vec<usize>) {
        let same = path.iter().zip(bytes).take_while(|(&node, &byte)| self.nodes[node].byte == byte).count();
        self.close(path, same);
        for (depth, &byte) in bytes.iter().enumerate().skip(same) {
            path.push(self.nodes.len());
            self.nodes.push(Node { byte, depth: depth as u16, after: 0, first: i, end: i });
        }
        self.nodes[path[bytes.len() - 1]].end = i + 1;
        self.depth = self.depth.max(bytes.len());
    }

    /// Ends the subtrees of the nodes beyond the first `keep` of the path.
    fn close(&mut self, path: &mut Vec<usize>, keep: usize) {
        for node in path.drain(keep..) {
            self.nodes[node].after = self.nodes.len() as u32;
        }
    }

    /// Sets the bits of the tokens whose bytes lead from `start` to a state; `step` is `None` where they do not.
    /// Bit `t % 32` of word `t / 32` is token `t`.
    pub fn walk<S: Copy>(&self, start: S, step: impl Fn(S, u8) -> Option<S>, mask: &mut [u32]) {
        let mut states = vec![start; self.depth + 1];
        let mut at = 0;
        while let Some(node) = self.nodes.get(at) {
            let depth = usize::from(node.depth);
            let Some(next) = step(states[depth], node.byte) else {
                at = node.after as usize;
                continue;
            };
            states[depth + 1] = next;
            for &token in &self.tokens[node.first as usize..node.end as usize] {
                mask[token as usize / 32] |= 1 << (token % 32);
            }
            at += 1;
        }
    }

    /// Hands over the tokens whose bytes lead from `start` to a state, and those that lead beyond, which no further byte
    /// changes. Gives the number of nodes passed.
    pub fn divide<S: Copy>(
        &self,
        start: S,
        mut step: impl FnMut(S, u8) -> Step<S>,
        mut within: impl FnMut(u32),
        mut beyond: impl FnMut(u32),
    ) -> usize {
        let mut states = vec![start; self.depth + 1];
        let (mut at, mut n_passed) = (0, 0);
        while let Some(node) = self.nodes.get(at) {
            n_passed += 1;
            let depth = usize::from(node.depth);
            match step(states[depth], node.byte) {
                Step::To(next) => {
                    states[depth + 1] = next;
                    self.tokens[node.first as usize..node.end as usize].iter().for_each(|&token| within(token));
                    at += 1;
                }
                Step::Beyond => {
                    self.subtree(at).iter().for_each(|&token| beyond(token));
                    at = node.after as usize;
                }
                Step::Never => at = node.after as usize,
            }
        }
        n_passed
    }

    /// The tokens that end at a node or in its subtree.
    fn subtree(&self, node: usize) -> &[u32] {
        let Node { after, first, .. } = self.nodes[node];
        let end = self.nodes.get(after as usize).map_or(self.tokens.len(), |node| node.first as usize);
        &self.tokens[first as usize..end]
    }

    /// Whether some token begins with `bytes` and goes on by a byte of `next`.
    pub fn goes_beyond(&self, bytes: &[u8], next: &NextBytes) -> bool {
        let mut children = (0, self.nodes.len());
        for &byte in bytes {
            match self.children(children).find(|&(at, _)| self.nodes[at].byte == byte) {
                Some((at, after)) => children = (at + 1, after),
                None => return false,
            }
        }
        self.children(children).any(|(at, _)| next[usize::from(self.nodes[at].byte)])
    }

    /// The roots of the subtrees within a range of nodes, with the ends of the subtrees.
    fn children(&self, (first, end): (usize, usize)) -> impl Iterator<Item = (usize, usize)> + '_ {
        let subtree = move |at: usize| (at < end).then(|| (at, self.nodes[at].after as usize));
        std::iter::successors(subtree(first), move |&(_, after)| subtree(after))
    }

    /// Bytes of the longest token.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The tokenizer whose tokens these are.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Words of a mask over all ids.
    pub fn mask_len(&self) -> usize {
        self.tokenizer.vocab().div_ceil(32)
    }

    /// The bytes with which the allowed tokens begin.
    pub fn first_bytes(&self, mask: &[u32]) -> NextBytes {
        let mut first = [false; 256];
        for (root, _) in self.children((0, self.nodes.len())) {
            let mut tokens = self.subtree(root).iter();
            first[usize::from(self.nodes[root].byte)] = tokens.any(|&t| mask[t as usize / 32] >> (t % 32) & 1 == 1);
        }
        first
    }

    /// Whether a text may hold `byte` wherever a constraint wants it: some token is this byte alone.
    pub fn spells(&self, byte: u8) -> bool {
        self.single[usize::from(byte)]
    }

    /// The tokens that are text, by their bytes.
    pub fn texts(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.tokens.iter().map(|&token| (token, self.bytes(token)))
    }

    /// What a token adds to a text.
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.tokenizer.token_bytes(token)
    }

    /// Tokens that end a generation.
    pub fn eos(&self) -> &[u32] {
        self.tokenizer.eos()
    }

    /// Sets the bits of the tokens that end a generation.
    pub fn allow_end(&self, mask: &mut [u32]) {
        self.eos().iter().for_each(|&token| mask[token as usize / 32] |= 1 << (token % 32));
    }

    /// Clears the bits of the tokens that end a generation.
    pub fn forbid_end(&self, mask: &mut [u32]) {
        self.eos().iter().for_each(|&token| mask[token as usize / 32] &= !(1 << (token % 32)));
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.tokenizer.vocab()
    }
}

fn is_text(tokenizer: &Tokenizer, token: u32) -> bool {
    let control = tokenizer.is_special(token) || tokenizer.eos().contains(&token);
    !control && (1..=MAX_TOKEN_BYTES).contains(&tokenizer.token_bytes(token).len())
}

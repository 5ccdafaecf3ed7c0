/**
 * Token ids of word lists, straight from the vocabulary in a GGUF file: no engine's tokenizer is asked, and all engines
 * get the same ids. Law: the longest piece that the vocabulary has is taken, again and again.
 */
import { readHeader } from './gguf.mjs';

/** How vocabularies spell the space before a word and the end of a line, by tokenizer. */
const spellings = {
  gpt2: { ' ': 'Ġ', '\n': 'Ċ' },
  llama: { ' ': '▁', '\n': '<0x0A>' },
};

/** Characters of a piece that is looked for. */
const LONGEST = 32;

/**
 * @param {string} modelPath  read when the first text is encoded
 * @returns {import('./prompts.mjs').Encode}
 */
export function encoder(modelPath) {
  let vocabulary;
  return (text, start) => {
    vocabulary ??= readVocabulary(modelPath);
    return [...(start ? vocabulary.before : []), ...longestPieces(vocabulary.ids, vocabulary.spell(text))];
  };
}

function readVocabulary(modelPath) {
  const { entries } = readHeader(modelPath);
  const setting = (name) => entries[`tokenizer.ggml.${name}`]?.value;
  const spelling = spellings[setting('model')];
  if (!spelling) throw new Error(`${modelPath}: vocabularies of the kind "${setting('model')}" are not known here`);
  return {
    ids: new Map(setting('tokens').items.map((token, id) => [token, id])),
    before: setting('add_bos_token') ? [setting('bos_token_id')] : [],
    spell: (text) => text.replace(/[ \n]/g, (space) => spelling[space]),
  };
}

/** @param {Map<string, number>} ids */
export function longestPieces(ids, text) {
  const pieces = [];
  for (let from = 0, to; from < text.length; from = to) {
    for (to = Math.min(text.length, from + LONGEST); to > from && !ids.has(text.slice(from, to)); to--);
    if (to === from) throw new Error(`the vocabulary has no piece for "${text.slice(from, from + 8)}"`);
    pieces.push(ids.get(text.slice(from, to)));
  }
  return pieces;
}

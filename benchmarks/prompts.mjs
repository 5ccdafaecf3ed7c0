/** Prompts made of word lists. Law: the same index gives the same prompt for ever, and no two share more than a word at the start. */

/** @typedef {(text: string, start: boolean) => number[]} Encode  tokens of a text; with those before any prompt if it is the start */

const names = words(`Ada Bruno Clara David Elena Felix Greta Hugo Irene Jonas Karen Laura Martin Nina Oscar Paula
  Quentin Rosa Simon Tara Ulrich Vera Walter Xavier Yolanda Zoe Anton Bella Carlos Diana Edgar Fiona George Helen
  Ivan Julia Kevin Linda Marcus Nora`);
const trades = words(`baker miller sailor doctor farmer painter singer teacher builder writer hunter potter tailor`);
const adjectives = words(`old quiet green heavy narrow bright cold sudden gentle broken golden hidden simple distant
  early famous hungry little modern open strange warm yellow`);
const nouns = words(`river letter garden window mountain station teacher market engine island lamp picture road ship
  village winter bridge doctor forest harbor kitchen castle morning planet song table tower valley horse`);
const verbs = words(`found carried painted forgot followed watched repaired measured opened remembered sold counted
  described cleaned visited hid moved`);
const places = [
  'near the sea',
  'after the rain',
  'before dinner',
  'in the north',
  'on the hill',
  'at the border',
  'by night',
];

/** Sentences in a prompt of W4: with an English vocabulary about 256 tokens. */
const SENTENCES = 23;
/** A sentence has at least so many tokens, whatever the vocabulary of words. */
const TOKENS_IN_SENTENCE = 8;

/**
 * `count` prompts of about 256 tokens that share no prefix to speak of.
 * @param {number} count
 * @returns {string[]}
 */
export function distinctPrompts(count) {
  return Array.from({ length: count }, (_, index) => `${story(index, SENTENCES)} Then`);
}

/**
 * The start of a prompt that is exactly `count` tokens long.
 * @param {Encode} encode
 */
export function opening(encode, index, count) {
  return encode(story(index, Math.ceil(count / TOKENS_IN_SENTENCE)), true).slice(0, count);
}

/** Like {@link opening}, to follow other text. */
export function passage(encode, index, count) {
  return encode(`\n${story(index, Math.ceil(count / TOKENS_IN_SENTENCE))}`, false).slice(0, count);
}

function story(index, sentences) {
  const pick = picker(index);
  const sentence = () =>
    `The ${pick(adjectives)} ${pick(nouns)} ${pick(verbs)} the ${pick(adjectives)} ${pick(nouns)} ${pick(places)}.`;
  const hero = `${names[index % names.length]} the ${trades[Math.floor(index / names.length) % trades.length]}`;
  return `${hero} told us a story. ${Array.from({ length: sentences }, sentence).join(' ')}`;
}

/** `items` in an order that the seed decides (Fisher and Yates). */
export function shuffled(items, seed) {
  const pick = picker(seed);
  const rest = [...items];
  return items.map(() => rest.splice(rest.indexOf(pick(rest)), 1)[0]);
}

/**
 * Draws from lists by a linear congruential generator (constants: Numerical Recipes, section 7.1); the seed is spread
 * over all bits first (Knuth's multiplicative hash, TAOCP 6.4), as draws come from the high ones.
 */
function picker(seed) {
  let state = Math.imul(seed + 1, 2654435761);
  return (list) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return list[Math.floor((state / 2 ** 32) * list.length)];
  };
}

function words(text) {
  return text.split(/\s+/);
}

/** Prompts made of word lists. Law: the same index gives the same prompt for ever, and no two share more than a word at the start. */

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

/** Sentences in a prompt: with an English vocabulary about 256 tokens. */
const SENTENCES = 23;

/**
 * `count` prompts of about 256 tokens that share no prefix to speak of.
 * @param {number} count
 * @returns {string[]}
 */
export function distinctPrompts(count) {
  return Array.from({ length: count }, (_, index) => prompt(index));
}

function prompt(index) {
  const pick = picker(index);
  const sentence = () =>
    `The ${pick(adjectives)} ${pick(nouns)} ${pick(verbs)} the ${pick(adjectives)} ${pick(nouns)} ${pick(places)}.`;
  const hero = `${names[index % names.length]} the ${trades[Math.floor(index / names.length) % trades.length]}`;
  const story = Array.from({ length: SENTENCES }, sentence).join(' ');
  return `${hero} told us a story. ${story} Then`;
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

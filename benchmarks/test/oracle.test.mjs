/** The ideal cache: worked out by hand, and held against every other way to evict. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { oracleHitRate } from '../oracle.mjs';

const asking = (...prompts) => prompts.map((prompt) => ({ prompt: [...prompt], outputIds: [] }));

test('with room for all, what was seen is not computed again, but for the last token', () => {
  assert.equal(oracleHitRate(asking('abcd', 'abcd'), 100), 3 / 8);
  assert.equal(oracleHitRate(asking('abcd', 'abxy', 'abxyz'), 100), (2 + 4) / 13);
  assert.equal(oracleHitRate(asking('abcd', 'bcd'), 100), 0);
});

test('outputs are kept too', () => {
  const turns = [
    { prompt: [1, 2], outputIds: [3, 4] },
    { prompt: [1, 2, 3, 4, 5], outputIds: [6] },
  ];
  assert.equal(oracleHitRate(turns, 100), 4 / 7);
});

test('a full cache keeps what is wanted soonest, and its start before its end', () => {
  assert.equal(oracleHitRate(asking('abcd', 'wxyz', 'abcd'), 4), 0);
  assert.equal(oracleHitRate(asking('abcd', 'wxyz', 'abcd'), 6), 2 / 12);
  assert.equal(oracleHitRate(asking('abcd', 'wx', 'wxyz', 'abcd'), 5), (2 + 1) / 14);
});

/** Most hits over all ways to choose what stays beside a request that is served: any part of the tree that there is room for. */
function best(prompts, capacity, held = new Set()) {
  if (prompts.length === 0) return 0;
  const [prompt, ...rest] = prompts;
  const path = Array.from(prompt, (_, i) => prompt.slice(0, i + 1));
  const missing = path.slice(0, -1).findIndex((prefix) => !held.has(prefix));
  const hits = missing < 0 ? path.length - 1 : missing;
  const options = partsOf([...new Set([...held, ...path])], path, capacity);
  return hits + Math.max(...options.map((part) => best(rest, capacity, part)));
}

/** Sets of these prefixes, each with all of its own prefixes, for which there is room beside `path`. */
function partsOf(prefixes, path, capacity) {
  const whole = (part) => [...part].every((prefix) => prefix.length === 1 || part.has(prefix.slice(0, -1)));
  const fits = (part) => new Set([...part, ...path]).size <= capacity;
  const all = Array.from(
    { length: 2 ** prefixes.length },
    (_, bits) => new Set(prefixes.filter((_, i) => bits & (1 << i))),
  );
  return all.filter((part) => whole(part) && fits(part));
}

for (const prompts of [
  ['ab', 'cd', 'ab', 'cd'],
  ['abc', 'de', 'abd', 'abc'],
  ['aa', 'ab', 'ba', 'aab'],
]) {
  test(`no other choice has more hits: ${prompts.join(' ')}`, () => {
    const total = prompts.join('').length;
    const roomy = Math.max(...prompts.map(({ length }) => length));
    for (let capacity = roomy; capacity < 6; capacity++) {
      const hits = oracleHitRate(asking(...prompts), capacity) * total;
      assert.equal(Math.round(hits), best(prompts, capacity));
    }
  });
}

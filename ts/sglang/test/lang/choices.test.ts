/** Choosing: an option is judged by its own tokens only, and not by how many there are. */
import test from 'ava';
import fc from 'fast-check';
import { addedTokens, best, nearestChoice, scoresOf } from '../../src/lang/choices.ts';

const tokens = (...ids: number[]) => ids.map((tokenId) => ({ tokenId, logprob: -tokenId }));

test('added tokens follow the common beginning; a merged token belongs to the option', (t) => {
  t.deepEqual(addedTokens(tokens(1, 2), tokens(1, 2, 3, 4)), tokens(3, 4));
  t.deepEqual(addedTokens(tokens(1, 2), tokens(1, 9, 4)), tokens(9, 4));
  t.deepEqual(addedTokens(tokens(1, 2, 3), tokens(1, 2)), []);
  t.deepEqual(addedTokens([], tokens(5)), tokens(5));
});

const rows: readonly (readonly [options: number[][], normalized: number, greedy: number])[] = [
  [[[-1], [-2]], 0, 0],
  [
    [
      [-1, -5],
      [-2, -2],
    ],
    1,
    0,
  ],
  [
    [
      [-1, -5],
      [-1, -2, -9],
    ],
    0,
    1,
  ],
  [[[-3], [-1, -1, -1, -1, -1]], 1, 1],
  [[[-1], [-1, -0.5]], 1, 1],
];
for (const [options, normalized, greedy] of rows) {
  test(`${JSON.stringify(options)}: by mean ${normalized}, greedily ${greedy}`, (t) => {
    t.is(best(scoresOf('token_length_normalized', options)), normalized);
    t.is(best(scoresOf('greedy_token_selection', options)), greedy);
  });
}

test('unconditional likelihood: what the prompt does not make likelier does not count', (t) => {
  const scores = scoresOf('unconditional_likelihood_normalized', [[-1, -1], [-2]], [[-1, -1], [-6]]);
  t.deepEqual(scores, [0, 4]);
});

test('the score of an option does not depend on its length if its tokens are equally likely', (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 }), (a, b) => {
      const [x, y] = scoresOf('token_length_normalized', [Array(a).fill(-2), Array(b).fill(-2)]);
      return x === y;
    }),
  );
  t.pass();
});

const answers: readonly (readonly [answer: string, choice: string])[] = [
  ['calculator', 'calculator'],
  [' "Web Browser".', 'web browser'],
  ['web browser', 'web browser'],
  ['I would take the calculator.', 'calculator'],
  ['the web, then the calculator', 'web'],
  ['calclator', 'calculator'],
];
for (const [answer, choice] of answers) {
  test(`${JSON.stringify(answer)} means ${choice}`, (t) => {
    const choices = ['calculator', 'web', 'web browser'];
    t.is(choices[nearestChoice(answer, choices)], choice);
  });
}

/** Cases of select that every backend of texts must decide alike, on `tools`. */
import type { SelectMethod } from '../../src/backends/backend.ts';

export const selectCases: readonly {
  title: string;
  prompt: string;
  choices: readonly [string, ...string[]];
  method?: SelectMethod;
  expected: string;
}[] = [
  {
    title: 'by mean: a longer option of likelier tokens wins',
    prompt: 'Use a',
    choices: [' calculator', ' slide rule'],
    expected: ' slide rule',
  },
  {
    title: 'greedily: the first token decides',
    prompt: 'Use a',
    choices: [' calculator', ' slide rule', ' browser rule'],
    method: 'greedy_token_selection',
    expected: ' browser rule',
  },
  {
    title: 'an unlikely end of the prompt does not count, so length does not dilute it',
    prompt: 'Use a ',
    choices: ['web browser browser browser', 'web'],
    expected: 'web',
  },
  {
    title: 'a token merged with the end of the prompt belongs to the option',
    prompt: 'Use a ',
    choices: ['calculator', 'zzz'],
    expected: 'calculator',
  },
  {
    title: 'what is likely anyway does not count unconditionally',
    prompt: 'Pick:',
    choices: [' rule', 'x browser'],
    method: 'unconditional_likelihood_normalized',
    expected: 'x browser',
  },
  { title: 'an empty prompt', prompt: '', choices: ['webweb', 'web rule'], expected: 'web rule' },
];

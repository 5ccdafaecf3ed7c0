/** ReAct (Yao et al., 2022): thoughts and actions take turns; the calculator is real, and its answer enters the prompt. */
import { fn, gen, select } from 'sglang';
import { runAsMain } from '../backend.ts';

const MAX_STEPS = 4;

/** Sums and products of whole numbers, such as `3 * (4 + 5)`. */
export function calculate(expression: string): number {
  const tokens = expression.match(/\d+|[-+*/()]/g) ?? [];
  const atom = (): number => {
    const token = tokens.shift();
    if (token === '-') return -atom();
    if (token !== '(') return Number(token);
    const inner = sum();
    tokens.shift();
    return inner;
  };
  const product = (): number => {
    let value = atom();
    while (tokens[0] === '*' || tokens[0] === '/') value = tokens.shift() === '*' ? value * atom() : value / atom();
    return value;
  };
  const sum = (): number => {
    let value = product();
    while (tokens[0] === '+' || tokens[0] === '-')
      value = tokens.shift() === '+' ? value + product() : value - product();
    return value;
  };
  return sum();
}

const examples = `Question: A box holds 12 eggs. How many eggs are in 7 boxes?
Thought: I need to calculate 12 * 7.
Action: calculate[12 * 7]
Observation: 84
Thought: I know the answer, it is 84.
Action: finish[84]

Question: Tom has 15 coins and finds 28 more. How many coins does he have?
Thought: I need to calculate 15 + 28.
Action: calculate[15 + 28]
Observation: 43
Thought: I know the answer, it is 43.
Action: finish[43]

`;

// #region program
export const reactAgent = fn(async (s, { question }: { question: string }) => {
  s`${examples}Question: ${question}\n`;
  for (let step = 1; step <= MAX_STEPS; step++) {
    const t = s`Thought:${gen('thought', { stop: '\n', maxTokens: 40 })}\nAction: ${select('tool', ['calculate', 'finish'])}[`;
    if ((await t.get('tool')) === 'finish') break;
    const { expression } = (await t`${gen('expression', { regex: /[0-9]+( [-+*] [0-9]+){1,3}\]/, stop: ']' })}`).vars;
    s`]\nObservation: ${calculate(expression)}\n`;
  }
  return s`${gen('answer', { regex: /[0-9]+\]/, stop: ']' })}]`;
});
// #endregion program

export async function main(): Promise<void> {
  const question = 'A car of a train has 64 seats. How many seats are in 8 cars?';
  const state = await reactAgent.run({ question }, { temperature: 0 });
  console.log(state.text().slice(examples.length));
}

await runAsMain(import.meta.url, main);

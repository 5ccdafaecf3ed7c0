/**
 * Tiny models with random weights write what they are constrained to, and others judge: JavaScript's RegExp and ajv. A
 * part of the constraints by default; `SGLANG_PROOF=2000` is the number of generations of the whole.
 */
import { Ajv2020 } from 'ajv/dist/2020.js';
import test from 'ava';
import { SglangError } from '../../src/engine/errors.ts';
import type { SamplingParams } from '../../src/engine/types.ts';
import { tinyEngine } from '../engine/fixtures.ts';
import { patterns } from './patterns.ts';
import { schemas } from './schemas.ts';

const generations = Number(process.env['SGLANG_PROOF'] ?? 80);

/** Evenly chosen: all where there are enough generations, else every so many. */
function chosen<T>(all: readonly T[], count: number): T[] {
  return Array.from({ length: count }, (_, i) => all[Math.floor((i * all.length) / count) % all.length]!);
}

/** How each generation ended: finished texts, and the counts of those that the limit or the last check ended. */
async function written(asked: readonly Partial<SamplingParams>[]) {
  const engine = await tinyEngine({ contextLength: 512 });
  try {
    const run = async (constraint: Partial<SamplingParams>, seed: number) => {
      try {
        const params = { ...constraint, temperature: 1.5, seed, maxNewTokens: 400 };
        const { text, meta } = await engine.generate({ prompt: 'Write: ', samplingParams: params });
        return meta.finishReason.type === 'stop' ? text : 'cut off';
      } catch (error) {
        if (error instanceof SglangError && error.message.includes('does not satisfy it')) return undefined;
        throw error;
      }
    };
    return await Promise.all(asked.map(run));
  } finally {
    await engine.close();
  }
}

test('finished texts match their patterns', async (t) => {
  t.is(patterns.length, 200);
  const asked = chosen(patterns, generations / 2);
  const texts = await written(asked.map((regex) => ({ regex })));
  const finished = texts.filter((text, i) => {
    if (text === 'cut off') return false;
    t.regex(text!, new RegExp(`^(?:${asked[i]!})$`, 'u'));
    return true;
  });
  t.true(finished.length > texts.length * 0.8, `${finished.length} of ${texts.length} finished`);
});

test('finished values satisfy their schemas', async (t) => {
  t.is(schemas.length, 200);
  const ajv = new Ajv2020({ strict: false });
  const asked = chosen(schemas, generations / 2);
  const texts = await written(asked.map((schema) => ({ jsonSchema: JSON.stringify(schema) })));
  const finished = texts.filter((text, i) => {
    if (text === undefined || text === 'cut off') return false;
    const value: unknown = JSON.parse(text);
    t.true(ajv.validate(asked[i]!, value), `${text} of ${JSON.stringify(asked[i])}: ${ajv.errorsText()}`);
    return true;
  });
  t.true(finished.length > texts.length * 0.7, `${finished.length} of ${texts.length} finished`);
});

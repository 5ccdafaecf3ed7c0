/** Server-sent events, whatever way the bytes are cut. */
import test from 'ava';
import fc from 'fast-check';
import { sseData } from '../../src/backends/sse-parser.ts';

async function parsed(chunks: readonly Uint8Array[]): Promise<string[]> {
  const events: string[] = [];
  for await (const data of sseData(
    (async function* () {
      yield* chunks;
    })(),
  ))
    events.push(data);
  return events;
}
const bytes = (text: string) => new TextEncoder().encode(text);

const rows: readonly (readonly [stream: string, events: string[]])[] = [
  ['data: a\n\n', ['a']],
  ['data:a\r\n\r\ndata: b\r\rdata:  c\n\n', ['a', 'b', ' c']],
  ['data: one\ndata: two\n\n', ['one\ntwo']],
  [': comment\nevent: x\nid: 7\ndata: a\nretry: 1\n\n', ['a']],
  ['data\n\n', ['']],
  ['database: a\n\n\n\n', []],
  ['\uFEFFdata: a\n\n', ['a']],
  ['data: a\n\ndata: unfinished\n', ['a']],
  ['data: a\n\ndata: unfinished', ['a']],
  ['data: a\r\n\r', ['a']],
];
for (const [stream, events] of rows) {
  test(`${JSON.stringify(stream)} is ${JSON.stringify(events)}`, async (t) =>
    t.deepEqual(await parsed([bytes(stream)]), events));
}

test('events do not depend on how the bytes are cut', async (t) => {
  const line = fc.string({ unit: fc.constantFrom('a', ' ', ':', 'é', '漢', '🙂', 'data'), maxLength: 6 });
  const event = fc.tuple(fc.array(line, { minLength: 1, maxLength: 3 }), fc.constantFrom('\n', '\r\n', '\r'));
  await fc.assert(
    fc.asyncProperty(
      fc.array(event, { maxLength: 5 }),
      fc.array(fc.nat(40), { maxLength: 12 }),
      async (events, cuts) => {
        const stream = bytes(
          events.map(([lines, end]) => lines.map((text) => `data: ${text}${end}`).join('') + end).join(''),
        );
        const places = [...new Set([0, ...cuts.map((cut) => Math.min(cut, stream.length)), stream.length])].sort(
          (a, b) => a - b,
        );
        const chunks = places.slice(1).map((end, i) => stream.subarray(places[i], end));
        t.deepEqual(
          await parsed(chunks),
          events.map(([lines]) => lines.join('\n')),
        );
      },
    ),
    { numRuns: 300 },
  );
});

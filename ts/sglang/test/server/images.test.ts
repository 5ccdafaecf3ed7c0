/** Pictures in requests: they reach the engine as bytes, in order, fetched by the rules for strangers. */
import test from 'ava';
import type { ImageInput } from '../../src/engine/types.ts';
import { FakeEngine } from './fake-engine.ts';
import { startServer } from './harness.ts';

class SeeingEngine extends FakeEngine {
  override readonly model = { ...new FakeEngine().model, takesImages: true, chatTemplate: 'chatml' };
}

const [a, b] = [Uint8Array.of(1, 2), Uint8Array.of(3)];
const url = (bytes: Uint8Array) => `data:image/png;base64,${Buffer.from(bytes).toString('base64')}`;
const seen = (images: readonly ImageInput[] | undefined) => images?.map((image) => [...(image as Uint8Array)]);
const short = { sampling_params: { max_new_tokens: 1 } };

test('one prompt has all its pictures, of a list each prompt has its own', async (t) => {
  const { post, engine } = await startServer(t, {}, new SeeingEngine());
  await post('/generate', { text: 'x', image_data: url(a), ...short });
  await post('/generate', { text: 'x', image_data: [url(a), Buffer.from(b).toString('base64')], ...short });
  await post('/generate', { text: ['x', 'y'], image_data: [[url(a), url(b)], url(b)], ...short });
  const each = engine.requests.map(({ images }) => seen(images));
  t.deepEqual(each, [[[1, 2]], [[1, 2], [3]], [[1, 2], [3]], [[3]]]);
});

test('parts of messages keep their order', async (t) => {
  const { post, engine } = await startServer(t, {}, new SeeingEngine());
  const content = [
    { type: 'text', text: 'see' },
    { type: 'image_url', image_url: { url: url(a), detail: 'low' } },
    { type: 'text', text: 'and' },
    { type: 'image_url', image_url: { url: url(b) } },
  ];
  const { status } = await post('/v1/chat/completions', { messages: [{ role: 'user', content }], max_tokens: 1 });
  t.is(status, 200);
  const request = engine.requests[0]!;
  t.deepEqual(seen(request.images), [[1, 2], [3]]);
  const types = (request.messages![0]!.content as readonly { type: string }[]).map(({ type }) => type);
  t.deepEqual(types, ['text', 'image_url', 'text', 'image_url']);
});

const refusals: readonly (readonly [what: string, body: object, message: RegExp])[] = [
  [
    'a file of the server',
    { text: 'x', image_data: 'file:///etc/passwd' },
    /expected an http\(s\) URL, a data URL or base64/,
  ],
  [
    'a neighbour of the server',
    { text: 'x', image_data: 'http://169.254.169.254/latest' },
    /an address of this machine or its network/,
  ],
  ['too few entries', { text: ['x', 'y'], image_data: [url(a)] }, /expected a list of 2, one entry per prompt, got 1/],
  ['a number', { text: 'x', image_data: 7 }, /image_data: expected a string or a list/],
];
for (const [what, body, message] of refusals) {
  test(`refused: ${what}`, async (t) => {
    const { post } = await startServer(t, {}, new SeeingEngine());
    const { status, json } = await post('/generate', body);
    t.is(status, 400);
    t.regex(json.error.message, message);
    t.is(json.error.param, 'image_data');
  });
}

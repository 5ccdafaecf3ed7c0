/** What prompts begin with, and when a batch computes that ahead of its rows. */
import test from 'ava';
import fc from 'fast-check';
import { commonStart, plainText } from '../../src/lang/prompt.ts';
import { FakeBackend, fn, gen, image, type Backend, type Role, type Turn } from '../../src/index.ts';

const turn = (role: Role | null, open: boolean, ...content: Turn['content']): Turn => ({ role, content, open });

for (const [what, prompts, expected] of [
  ['nothing of none', [], []],
  ['all of one', [[turn('user', false, 'a')]], [turn('user', false, 'a')]],
  ['nothing of unlike roles', [[turn('user', false, 'a')], [turn('system', false, 'a')]], []],
  [
    'whole turns and the start of the next',
    [
      [turn('system', false, 'be'), turn('user', false, 'abc'), turn('assistant', true)],
      [turn('system', false, 'be'), turn('user', false, 'abd'), turn('assistant', true)],
    ],
    [turn('system', false, 'be'), turn('user', true, 'ab')],
  ],
  [
    'a turn that is closed in one of them',
    [[turn(null, true, 'ab')], [turn(null, false, 'ab')]],
    [turn(null, true, 'ab')],
  ],
  [
    'pictures and the text after them',
    [[turn('user', false, { image: 'a.png' }, 'xy')], [turn('user', false, { image: 'a.png' }, 'xz')]],
    [turn('user', true, { image: 'a.png' }, 'x')],
  ],
  [
    'no other picture',
    [[turn('user', false, 'q', { image: 'a.png' })], [turn('user', false, 'q', { image: 'b.png' })]],
    [turn('user', true, 'q')],
  ],
  ['no half of a character', [[turn(null, true, 'a😀')], [turn(null, true, 'a😁')]], [turn(null, true, 'a')]],
] as const satisfies readonly (readonly [string, readonly Turn[][], readonly Turn[]])[]) {
  test(`the common start is ${what}`, (t) => {
    t.deepEqual<readonly Turn[], readonly Turn[]>(commonStart(prompts), expected);
  });
}

test('the common start of texts is their longest common prefix', (t) => {
  const letters = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 6 });
  fc.assert(
    fc.property(fc.array(letters, { minLength: 1, maxLength: 5 }), (texts) => {
      const start = plainText(commonStart(texts.map((text) => [turn(null, true, ...(text === '' ? [] : [text]))])));
      const isShared = (prefix: string) => texts.every((text) => text.startsWith(prefix));
      t.true(isShared(start));
      t.false(texts[0]!.length > start.length && isShared(texts[0]!.slice(0, start.length + 1)));
    }),
  );
});

const rules = 'Answer in one word, and be kind to whoever asks, whatever the question. ';
const rows = ['red', 'blue', 'green'].map((color) => ({ color }));
const row = fn((s, { color }: { color: string }) => s.system(rules).user(`Is ${color} nice?`).assistant(gen('a')));

test('a batch computes the beginning of its prompts once, before any row goes on', async (t) => {
  const backend = new FakeBackend();
  const states = await row.runBatch(rows, { backend });
  t.deepEqual(
    backend.calls.map(({ kind, prompt }) => [kind, prompt.slice(0, 200)]),
    [
      ['warm', `system: ${rules}\nuser: Is `],
      ...rows.map(({ color }) => ['stream', `system: ${rules}\nuser: Is ${color} nice?\nassistant:`]),
    ],
  );
  const alone = await row.run(rows[1]!, { backend: new FakeBackend() });
  t.is(states[1]!.vars.a, alone.vars.a);
});

test('no row waits for a body that takes its time', async (t) => {
  const backend = new FakeBackend();
  let release = () => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  const program = fn(async (s, { n }: { n: number }) => {
    if (n > 0) await gate;
    const state = s`${rules}${n}${gen('a')}`;
    await state.get('a');
    release();
    return state;
  });
  const states = await program.runBatch([{ n: 0 }, { n: 1 }], { backend });
  t.is(states.length, 2);
  t.deepEqual(
    backend.calls.map(({ kind }) => kind),
    ['stream', 'stream'],
  );
});

test('nothing is computed ahead for one row, for little, or where the backend cannot', async (t) => {
  const kinds = async (program: typeof row, list: typeof rows, backend = new FakeBackend()) => {
    await program.runBatch(list, { backend });
    return backend.calls.map(({ kind }) => kind);
  };
  t.deepEqual(await kinds(row, rows.slice(0, 1)), ['stream']);
  t.deepEqual(
    await kinds(
      fn((s, { color }: { color: string }) => s`Is ${color}?${gen('a')}`),
      rows.slice(1),
    ),
    ['stream', 'stream'],
  );
  const cold: Backend = Object.assign(new FakeBackend(), { warm: undefined });
  t.deepEqual(await kinds(row, rows.slice(1), cold as FakeBackend), ['stream', 'stream']);
});

test('a failure of computing ahead is no failure of the rows, and an abort ends the wait', async (t) => {
  const failing = Object.assign(new FakeBackend(), { warm: () => Promise.reject(new Error('busy')) });
  t.is((await row.runBatch(rows, { backend: failing })).length, 3);
  const hanging = Object.assign(new FakeBackend(), { warm: () => new Promise<void>(() => {}) });
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error('enough')), 20);
  await t.throwsAsync(row.runBatch(rows, { backend: hanging, signal: controller.signal }), { message: /enough/ });
});

test('pictures are compared by what they are', async (t) => {
  const backend = new FakeBackend();
  const bytes = new Uint8Array([1]);
  const look = fn((s, { q }: { q: string }) => s.user(image(bytes), `${rules}${q}`).assistant(gen('a')));
  await look.runBatch([{ q: 'x' }, { q: 'y' }], { backend });
  t.deepEqual(backend.calls[0]!.turns, [turn('user', true, { image: bytes }, rules)]);
});

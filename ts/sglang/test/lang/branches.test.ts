/** Forks: when branches start, what they share, and what becomes of their results. */
import test from 'ava';
import { FakeBackend, fn, gen, type Backend } from '../../src/index.ts';

const echo = () => new FakeBackend({ replies: [[/(?:)/, (prompt) => `<${prompt.length}>`]] });

test('a branch starts from the prompt at the fork, not from what comes after', async (t) => {
  const program = fn(async (s) => {
    s`head${gen('x')}`;
    const [a] = s.fork(1);
    s.append` later`;
    const branch = await a` branch`;
    t.is(branch.text(), 'head<4> branch');
    return s;
  });
  t.is((await program.run({}, { backend: echo() })).text(), 'head<4> later');
});

test('branches inherit variables, and get waits for them', async (t) => {
  const program = fn(async (s) => {
    const [a, b] = s`${gen('x')}`.fork(2);
    t.is(await a.get('x'), '<0>');
    t.deepEqual((await b`${gen('y')}`).vars, { x: '<0>', y: '<3>' });
    return s;
  });
  t.deepEqual((await program.run({}, { backend: echo() })).vars, { x: '<0>' } as never);
});

test('branches run side by side', async (t) => {
  let open = 0;
  let most = 0;
  const reply = async () => {
    most = Math.max(most, ++open);
    await new Promise((resolve) => setTimeout(resolve, 5));
    open--;
    return 'x';
  };
  const backend = new FakeBackend({ replies: [[/(?:)/, reply]] });
  await fn((s) => {
    const forks = s`head`.fork(8);
    for (const fork of forks) fork.append(gen('x'));
    return forks.join().then((results) => results[0]!);
  }).run({}, { backend });
  t.is(most, 8);
});

test('join gives results in the order of the branches', async (t) => {
  const program = fn(async (s) => {
    const forks = s`h`.fork(4);
    forks.forEach((fork, i) => fork`${'.'.repeat(i)}${gen('n')}`);
    const results = await forks.join<{ n: string }>();
    return s`${results.map(({ vars }) => vars.n).join()}`;
  });
  t.is((await program.run({}, { backend: echo() })).text(), 'h<1>,<2>,<3>,<4>');
});

test('forkMap: a branch per item, results in order, none for none', async (t) => {
  const program = fn(async (s) => {
    const results = await s`h`.forkMap(['a', 'bb', 'ccc'], (branch, item, i) => branch`${i}${item}${gen('n')}`);
    t.deepEqual(await s.forkMap([], (branch) => branch), []);
    return s`${results.map((result) => result.get('n')).join()}`;
  });
  t.is((await program.run({}, { backend: echo() })).text(), 'h<3>,<4>,<5>');
});

test('copy runs on a branch and leaves the prompt as it is', async (t) => {
  const program = fn(async (s) => {
    const length = await s`abc`.copy(async (c) => (await c`def${gen('n')}`).text().length);
    return s`${length}`;
  });
  t.is((await program.run({}, { backend: echo() })).text(), 'abc9');
});

test('the common part is warmed once for several branches, never for one or for nothing', async (t) => {
  const backend = echo();
  await fn(async (s) => {
    await s.fork(3).join();
    await s`head`.fork(1).join();
    await s.fork(3).join();
    return s;
  }).run({}, { backend });
  t.deepEqual(
    backend.calls.map(({ kind, prompt }) => [kind, prompt]),
    [['warm', 'head']],
  );
});

test('an empty prompt can be forked, and so can a turn that is open', async (t) => {
  const program = fn((s) =>
    s.user(async (u) => {
      const [a, b] = u`q`.fork(2);
      const [x, y] = await Promise.all([a`1${gen('n')}`, b`22${gen('n')}`]);
      return u`${x.vars.n}${y.vars.n}`;
    }),
  );
  t.is((await program.run({}, { backend: echo() })).text(), 'user: q<8><9>\n');
});

for (const n of [0, -1, 1.5]) {
  test(`fork(${n}) is refused`, async (t) => {
    const run = fn((s) => s.fork(n)[0]!).run({}, { backend: echo() });
    await t.throwsAsync(async () => run, { message: new RegExp(`n is a positive integer, not ${n}`) });
  });
}

test('many branches do not look like a leak of listeners', async (t) => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => warnings.push(warning);
  process.on('warning', onWarning);
  const backend: Backend = {
    kind: 'listening',
    async *stream(_, { signal }) {
      signal!.addEventListener('abort', () => {});
      await new Promise((resolve) => setTimeout(resolve, 5));
      yield {
        text: 'x',
        meta: { promptTokens: 0, completionTokens: 1, cachedTokens: 0, finishReason: 'stop', matched: null },
      };
    },
    select: () => Promise.reject(new Error('not asked')),
    warm: async (_, { signal }) => signal!.addEventListener('abort', () => {}),
    render: async () => 'text',
  };
  const run = fn((s) => s.forkMap(Array(50).fill(0), (branch) => branch`${gen('x')}`).then((results) => results[0]!));
  await run.run({}, { backend, signal: new AbortController().signal });
  await new Promise((resolve) => setTimeout(resolve, 5));
  process.off('warning', onWarning);
  t.deepEqual(warnings, []);
});

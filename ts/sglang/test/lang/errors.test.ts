/** What goes wrong is told once, where it is awaited, with what the program knew; nothing hangs and nothing is left. */
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import test from 'ava';
import { z } from 'zod';
import {
  type Backend,
  Engine,
  FakeBackend,
  fn,
  gen,
  image,
  OpenAI,
  ProgramError,
  RuntimeEndpoint,
  select,
  setDefaultBackend,
  SglangError,
  type State,
} from '../../src/index.ts';

const boom = new Error('boom');
const failing = () =>
  new FakeBackend({
    replies: [
      ['a', '1'],
      ['b', boom],
    ],
  });
const caught = async (run: PromiseLike<unknown>) => {
  try {
    await run;
  } catch (error) {
    return error as ProgramError;
  }
  throw new Error('nothing was thrown');
};

test('a failed generation rejects with its place, its cause and the variables so far', async (t) => {
  const error = await caught(fn((s) => s`a${gen('x')}b${gen('y')}c${gen('z')}`).run({}, { backend: failing() }));
  t.true(error instanceof ProgramError);
  t.is(error.message, 'gen("y"): boom');
  t.is(error.cause, boom);
  t.deepEqual(error.vars, { x: '1' });
});

test('a variable that every object has is none of a program', async (t) => {
  const backend = failing();
  const asks = fn(async (s) => s`${await (s as unknown as State<{ toString: string }>).get('toString')}`);
  t.is((await caught(asks.run({}, { backend }))).message, 'there is no variable "toString"; there are: none');
  const result: { get(name: string): unknown } = await fn((s) => s`a${gen('x')}`).run({}, { backend });
  t.is(result.get('toString'), undefined);
});

test('a run is caught and ended like a promise', async (t) => {
  const run = fn((s) => s`b${gen('y')}`).run({}, { backend: failing() });
  t.is(await run.catch((error: Error) => error.message), 'gen("y"): boom');
  let isOver = false;
  await t.throwsAsync(run.finally(() => void (isOver = true)));
  t.true(isOver);
});

test('a failed state stays failed, and get of an earlier variable still answers', async (t) => {
  const program = fn(async (s) => {
    const state = s`a${gen('x')}b${gen('y')}`;
    const first = await caught(state.get('y'));
    t.is(await caught(state`more`.text()), first);
    t.is(await state.get('x'), '1');
    return state;
  });
  t.is((await caught(program.run({}, { backend: failing() }))).message, 'gen("y"): boom');
});

test('a failed branch harms only those who await it', async (t) => {
  const program = fn(async (s) => {
    const [a, b] = s`head `.fork(2);
    const bad = a`b${gen('x')}`;
    const good = await b`a${gen('x')}`;
    t.is((await caught(bad)).message, 'gen("x"): boom');
    return s`${good.vars.x}`;
  });
  t.is((await program.run({}, { backend: failing() })).text(), 'head 1');
});

type Asked = State<{ a: string }>;
const usesOfOuter: Record<string, (outer: Asked, inner: Asked) => unknown> = {
  'added to and returned': (outer) => outer`hi`,
  returned: (outer) => outer,
  'waited for': async (outer) => void (await outer),
  'read from': async (outer) => void (await outer.get('a')),
  'added to after a wait': async (outer, inner) => {
    await inner.get('a');
    outer`hi`;
  },
  'added to in a program that it calls': (outer, inner) => fn(() => outer`hi`)(inner),
  'added to in a branch': (outer, inner) => inner.forkMap([1], () => outer`hi`),
  'forked from': (outer) => void outer.fork(2),
};
for (const [use, body] of Object.entries(usesOfOuter)) {
  const told = 'inside the body of a block or a program, use the state that the body is given';
  test(`the outer state cannot be ${use} in the body of a block or of a program`, async (t) => {
    const backend = new FakeBackend({ replies: [['a', '1']] });
    const block = fn((s) => {
      const outer = s`a${gen('a')}`;
      return outer.user((inner) => body(outer, inner));
    });
    t.is((await caught(block.run({}, { backend }))).message, told);
    const calling = fn((s) => {
      const outer = s`a${gen('a')}`;
      return fn(async (inner) => void (await body(outer, inner as unknown as Asked)) as never)(outer);
    });
    t.is((await caught(calling.run({}, { backend }))).message, told);
  });
}

test('a state can be added to while a block of it runs, and by what its body started once it is over', async (t) => {
  const backend = new FakeBackend({ replies: [['a', '1']] });
  let late: Promise<unknown> | undefined;
  const program = fn(async (s) => {
    const blocked = s.user(async (u) => {
      await u`a${gen('a')}`;
      late = (async () => {
        await sleep(20);
        s`late`;
      })();
    });
    await sleep(1);
    await blocked`soon `.text();
    await late;
    return s;
  });
  t.is((await program.run({}, { backend })).text(), 'user: a1\nsoon late');
});

test('errors of the body carry the variables too', async (t) => {
  const program = fn(async (s) => {
    await s`a${gen('x')}`.get('x');
    throw boom;
  });
  const error = await caught(program.run({}, { backend: failing() }));
  t.deepEqual([error.message, error.cause, error.vars], ['boom', boom, { x: '1' }]);
});

test('rejections that are awaited late or never do not end the process', async (t) => {
  const seen: unknown[] = [];
  const onRejection = (reason: unknown) => seen.push(reason);
  process.on('unhandledRejection', onRejection);
  const backend = failing();
  const program = fn(async (s) => {
    const state = s`b${gen('x')}`;
    void [
      state.get('x'),
      state.text(),
      state.messages(),
      state.meta('x'),
      state.fork(2).join(),
      state.copy(async (c) => c),
    ];
    void s.get('y' as never);
    void state.forkMap([1], (branch) => branch`b${gen('y')}`);
    return state;
  });
  const run = program.run({}, { backend });
  void program.runBatch([{}, {}], { backend });
  await new Promise((resolve) => setTimeout(resolve, 20));
  process.off('unhandledRejection', onRejection);
  t.deepEqual(seen, []);
  t.is((await caught(run)).message, 'gen("x"): boom');
});

test('a value that does not fit its schema says where', async (t) => {
  const program = fn((s) => s`Q${gen('city', { schema: z.object({ size: z.object({ km2: z.number() }) }) })}`);
  const reply = (text: string) => ({ backend: new FakeBackend({ replies: [['Q', text]] }) });
  t.regex(
    (await caught(program.run({}, reply('{"size": {"km2": "big"}}')))).message,
    /^gen\("city"\): .*at size\.km2: /,
  );
  t.regex((await caught(program.run({}, reply('{"size": {"km')))).message, /not JSON .*cut off at maxTokens/);
});

test('a typed value that is none says so', async (t) => {
  const backend = new FakeBackend({ replies: [['n=', 'many']] });
  const error = await caught(fn((s) => s`n=${gen('n', { type: 'int' })}`).run({}, { backend }));
  t.is(error.message, 'gen("n"): the text "many" does not match /^[-+]?\\d+$/');
});

test('arguments that are no object are refused at once, in a batch with the place', async (t) => {
  const program = fn((s, { question }: { question: string }) => s`${question}`);
  const expected = /takes its arguments as one object, such as \{ question: '…' \}; got "What\?"/;
  t.throws(() => program.run('What?' as never), { instanceOf: TypeError, message: expected });
  t.throws(() => program.bind('What?' as never), { instanceOf: TypeError, message: expected });
  t.throws(() => program.run([1] as never), { message: /got a list/ });
  const onState = fn((s) => program.run(s as never) as never);
  t.regex((await caught(onState.run({}, { backend: failing() }))).message, /got a state \(call program\(state, args\)/);
  const error = await caught(program.runBatch([{ question: 'x' }, 'What?' as never], { backend: failing() }));
  t.regex(error.message, /^item 1: a program takes/);
});

test('mistakes that only types would find are told where they are made', async (t) => {
  const program = fn((s) => s`a${gen('x')}`);
  const backend = failing();
  t.throws(() => program.run({}, { backend, max_new_tokens: 1 } as never), {
    message: /run: .*did you mean maxTokens\?/,
  });
  t.throws(() => program.run({}, { backend: 'openai' as never }), { message: /backend: expected an Engine/ });
  t.throws(() => (program.run({}, { backend }) as never as { vars: object }).vars, { message: /\(await run\)\.vars/ });
  await t.throwsAsync(Engine.create('tiny' as never), { message: /Engine.create takes an object, such as/ });
  const list = { q: 1 } as never;
  t.regex((await caught(program.runBatch(list, { backend }))).message, /runBatch takes a list/);
  t.regex((await caught(program.runBatch([{}], { backend, topp: 1 } as never))).message, /runBatch: .* mean topP\?/);
  const misspelt = { backend, concurency: 1 } as never;
  t.regex((await caught(program.runBatch([{}], misspelt))).message, /runBatch: .* mean concurrency\?/);
});

const refused: readonly (readonly [what: string, build: () => unknown, message: RegExp])[] = [
  ['a look-ahead', () => gen('x', { regex: /a(?=b)/ }), /look-ahead at position 1 of \/a\(\?=b\)\//],
  ['a look-behind', () => gen('x', { regex: '(?<!a)b' }), /look-behind at position 0/],
  ['a back-reference', () => gen('x', { regex: /(a)\1/ }), /back-reference at position 3/],
  ['a named back-reference', () => gen('x', { regex: /(?<n>a)\k<n>/ }), /back-reference at position 7/],
  [
    'two constraints',
    () => gen('x', { regex: /a/, ebnf: 'root ::= "a"' } as never),
    /regex and ebnf exclude each other/,
  ],
  ['EBNF as Lark', () => gen('x', { lark: 'root ::= "a"' }), /"::=" is EBNF's/],
  ['choices and a constraint', () => gen('x', { choices: ['a'], type: 'int' } as never), /choices exclude/],
  [
    'an unknown type',
    () => gen('x', { type: 'date' } as never),
    /unknown type "date"; known: int, float, bool, string/,
  ],
  [
    'an unknown option',
    () => gen('x', { max_tokens: 1 } as never),
    /gen\("x"\): there is no option max_tokens; did you mean maxTokens\?/,
  ],
  ['another unknown option', () => select('x', ['a'], { foo: 1 } as never), /no option foo; there are: maxTokens, /],
  ['choices in one text', () => select('x', 'ab' as never), /choices are a list of strings/],
  ['a program of no function', () => fn('x' as never), /fn makes a program of a function \(s, args\) => …, not x/],
  ['no choices', () => select('x', [] as never), /there are none/],
  ['an empty choice', () => select('x', ['a', '']), /choice 2 is ""/],
  ['equal choices', () => select('x', ['a', 'b', 'a']), /choice 3 is "a"/],
  [
    'a limit in words',
    () => gen('x', { maxTokens: '5' as never }),
    /gen\("x"\): maxTokens: expected a whole number, 0 or more, got "5"/,
  ],
  ['a negative limit', () => gen('x', { maxTokens: -1 }), /maxTokens: expected a whole number, 0 or more, got -1/],
  ['a hot temperature', () => gen('x', { temperature: NaN }), /temperature: expected a number, got NaN/],
  [
    'a stop that is no text',
    () => gen('x', { stop: 5 as never }),
    /stop: expected a string or a list of strings, got 5/,
  ],
  ['a regex that is none', () => gen('x', { regex: 5 as never }), /regex: expected a RegExp or its source, got 5/],
  [
    'a JSON Schema',
    () => gen('x', { schema: { type: 'object' } as never }),
    /schema: expected a Standard Schema, such as zod's, got \{"type"/,
  ],
  [
    'a controller',
    () => gen('x', { signal: new AbortController() as never }),
    /expected an AbortSignal, got an object of AbortController/,
  ],
  ['options in words', () => gen('x', 'hot' as never), /gen\("x"\): options are an object, .*, not "hot"/],
  ['no options', () => select('x', ['a'], null as never), /options are an object, .*, not null/],
  [
    'an unknown method',
    () => select('x', ['a'], { method: 'greedy' as never }),
    /method: expected token_length_normalized or .*, got "greedy"/,
  ],
  ['a picture that is none', () => image(5 as never), /image: expected a path, .*, got 5/],
  ['an expression in a plain text', () => `${gen('x')}`, /an expression is no text: write s\.user`…/],
  [
    'a backend that is none',
    () => setDefaultBackend('http://x' as never),
    /setDefaultBackend: backend: expected an Engine, .*, got "http:/,
  ],
  ['a backend to come', () => setDefaultBackend(Promise.resolve() as never), /got a promise \(await it first\)/],
  [
    'a server without an address',
    () => new RuntimeEndpoint('localhost:30000'),
    /expected the URL of a server, .*, got "localhost:30000"/,
  ],
  [
    'an API without a model',
    () => new OpenAI({ model: 'x' } as never),
    /new OpenAI\(model, options\): expected the name of a model, got \{"model"/,
  ],
  ['an empty name', () => gen(''), /a variable's name/],
  ['a schema without JSON form', () => gen('x', { schema: z.date() }), /gen\("x"\): schema: /],
];
for (const [what, build, message] of refused) {
  test(`${what} is refused when the program is built`, (t) => {
    t.throws(build, { message });
  });
}

test('what is allowed is not refused', (t) => {
  for (const regex of [/(?:a|b)/, /(?<name>a)/, '(?P<name>a)', /[(?=]/, /\(\?=/, /\\1/, /a\$/])
    t.notThrows(() => gen('x', { regex }));
});

const badParts: readonly (readonly [part: unknown, message: RegExp])[] = [
  [undefined, /part 2 of a prompt is undefined/],
  [Promise.resolve('x'), /part 2 of a prompt is a promise \(await it first\)/],
  [['x'], /part 2 of a prompt is an array/],
  [true, /part 2 of a prompt is of type boolean/],
];
for (const [part, message] of badParts) {
  test(`a part that is ${String(message).slice(24, -1)} is refused`, async (t) => {
    t.regex((await caught(fn((s) => s`x${part as string}`).run({}, { backend: failing() }))).message, message);
  });
}

test('a state is no part of a prompt', async (t) => {
  const program = fn((s) => s.user(s as never));
  t.regex(
    (await caught(program.run({}, { backend: failing() }))).message,
    /a state \(await it, then use its variables\)/,
  );
});

test('turns do not stand in turns', async (t) => {
  const program = fn((s) => s.user((u) => u.assistant('x')));
  t.is(
    (await caught(program.run({}, { backend: failing() }))).message,
    'a turn of role assistant inside one of role user',
  );
});

test('unknown variables, no backend, a backend that breaks off', async (t) => {
  const unknown = fn(async (s) => s`${await s`a${gen('x')}`.get('z' as 'x')}`);
  t.is((await caught(unknown.run({}, { backend: failing() }))).message, 'there is no variable "z"; there are: x');
  t.regex((await caught(fn((s) => s`${gen('x')}`).run())).message, /no backend: call setDefaultBackend/);
  const broken: Backend = { kind: 'broken', stream: async function* () {}, select: () => Promise.reject(boom) };
  t.regex((await caught(fn((s) => s`${gen('x')}`).run({}, { backend: broken }))).message, /ended its stream without/);
  t.is((await caught(fn((s) => s`${select('x', ['a'])}`).run({}, { backend: broken }))).message, 'select("x"): boom');
});

/** Never answers and does not heed its signal. */
const deaf: Backend = {
  kind: 'deaf',
  stream: () => ({ [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) }),
  select: () => new Promise(() => {}),
};

for (const [level, start] of [
  ['run', (signal: AbortSignal) => fn((s) => s`${gen('x')}`).run({}, { backend: deaf, signal })],
  ['gen', (signal: AbortSignal) => fn((s) => s`${gen('x', { signal })}`).run({}, { backend: deaf })],
  ['select', (signal: AbortSignal) => fn((s) => s`${select('x', ['a', 'b'], { signal })}`).run({}, { backend: deaf })],
  ['batch', (signal: AbortSignal) => fn((s) => s`${gen('x')}`).runBatch([{}, {}], { backend: deaf, signal })],
  ['body', (signal: AbortSignal) => fn(() => new Promise<never>(() => {})).run({}, { backend: deaf, signal })],
] as const) {
  test(`an abort of a ${level} rejects at once with its reason`, async (t) => {
    const controller = new AbortController();
    const run = start(controller.signal);
    setTimeout(() => controller.abort(boom), 5);
    t.is((await caught(run)).cause, boom);
  });
}

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** Nothing here but the language keeps the signals: what a function that waits has once seen, it may hold. */
const hundredMs = () => AbortSignal.timeout(100);
const timedOut = [
  () => fn((s) => s`${gen('x')}`).run({}, { backend: deaf, signal: hundredMs() }),
  () => fn((s) => s`${gen('x', { signal: hundredMs() })}`).run({}, { backend: deaf }),
  () => fn((s) => s`${gen('x')}`).runBatch([{}], { backend: deaf, signal: hundredMs() }),
];

test('a timeout comes though nothing else holds its signal', async (t) => {
  const outcomes = timedOut.map((start) => Promise.race([caught(start()), sleep(5_000, new Error('nothing came'))]));
  await sleep(1);
  collectGarbage();
  t.deepEqual(
    (await Promise.all(outcomes)).map(({ name }) => name),
    Array(3).fill('TimeoutError'),
  );
});

test('run.abort stops it, and a run with an aborted signal asks nothing', async (t) => {
  const run = fn((s) => s`${gen('x')}`).run({}, { backend: deaf });
  run.abort(boom);
  t.is((await caught(run)).cause, boom);
  const backend = failing();
  await caught(fn((s) => s`a${gen('x')}`).run({}, { backend, signal: AbortSignal.abort(boom) }));
  t.deepEqual(backend.calls, []);
});

test('without a reason of its own an abort is an AbortError, a timeout a TimeoutError; text and variables are kept', async (t) => {
  const backend: Backend = {
    ...deaf,
    async *stream(turns, options) {
      if (turns.at(-1)!.content.includes('a')) return yield* failing().stream(turns, options);
      yield { text: 'begun' };
      yield* deaf.stream(turns, options);
    },
  };
  const program = fn((s) => s`a${gen('x')}`.user('!')`then${gen('y')}`);
  const run = program.run({}, { backend });
  for await (const { name } of run.events()) if (name === 'y') break;
  run.abort();
  const error = await caught(run);
  t.is(error.name, 'AbortError');
  t.deepEqual(error.vars, { x: '1' });
  const kept: string[] = [];
  await t.throwsAsync(
    async () => {
      for await (const delta of run.textStream('y')) kept.push(delta);
    },
    { is: error },
  );
  t.deepEqual(kept, ['begun']);
  const awake = setInterval(() => {}, 1000); // the timer of a signal does not keep the process alive
  t.teardown(() => clearInterval(awake));
  t.is((await caught(program.run({}, { backend: deaf, signal: AbortSignal.timeout(5) }))).name, 'TimeoutError');
  const batch = program.runBatch([{}, {}], { backend: deaf, signal: AbortSignal.abort() });
  t.is((await caught(batch)).name, 'AbortError');
});

test('a run that fails stops its branches', async (t) => {
  let signal: AbortSignal | undefined;
  const backend: Backend = {
    ...deaf,
    stream: (_, options) => {
      signal = options.signal;
      return deaf.stream([], {});
    },
  };
  const program = fn(async (s) => {
    void s.fork(1)[0]!`${gen('x')}`;
    await new Promise((resolve) => setTimeout(resolve, 5));
    throw boom;
  });
  await caught(program.run({}, { backend }));
  t.true(signal?.aborted);
});

test('calling a program without a state says how to start it', (t) => {
  const program = fn((s) => s`${image('x.png')}`);
  t.throws(() => program({} as never), { message: /program\.run\(args\)/ });
  t.true(new SglangError('unsupported', 'x').status === 400);
});

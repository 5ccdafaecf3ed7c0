/**
 * The types of programs, compiled and never run. Law: every `@ts-expect-error` marks a mistake that the compiler must
 * find; where it no longer does, this file does not compile.
 */
import { expectTypeOf } from 'expect-type';
import { z } from 'zod';
import { aiSdkBackend, createSglang } from '../../src/backends/ai-sdk.ts';
import {
  Anthropic,
  Engine,
  FakeBackend,
  OpenAI,
  RuntimeEndpoint,
  Speculative,
  assistant,
  fn,
  gen,
  genInt,
  genString,
  image,
  select,
  user,
  type Backend,
  type BatchError,
  type Meta,
  type OutputLogprob,
  type Program,
  type Result,
  type RunOptions,
  type State,
} from '../../src/index.ts';

type VarsOfProgram<P> = P extends { run(...args: never[]): PromiseLike<Result<infer V>> } ? V : never;
type Tool = 'calculator' | 'web browser';

// Several turns.
const multiTurn = fn((s, q: { q1: string; q2: string }) =>
  s.system`You are a helpful assistant.`
    .user(q.q1)
    .assistant(gen('answer1', { maxTokens: 256 }))
    .user(q.q2)
    .assistant(gen('answer2', { maxTokens: 256 })),
);
expectTypeOf(multiTurn).toEqualTypeOf<Program<{ q1: string; q2: string }, { answer1: string; answer2: string }>>();
// @ts-expect-error an argument is missing
void multiTurn.run({ q1: '' });
// @ts-expect-error arguments are needed
void multiTurn.run();
// @ts-expect-error there is no such variable
void multiTurn.run({ q1: '', q2: '' }).then((result) => result.get('answer3'));
// @ts-expect-error nor is there its text
multiTurn.run({ q1: '', q2: '' }).textStream('answer3');
// @ts-expect-error there is no such sampling option
void multiTurn.run({ q1: '', q2: '' }, { max_tokens: 3 });

// Control flow: what only some branches bind is optional.
const controlFlow = fn(async (s, { question }: { question: string }) => {
  const t = s`To answer ${question}, I need a ${select('tool', ['calculator', 'web browser'])}. `;
  const tool = await t.get('tool');
  expectTypeOf(tool).toEqualTypeOf<Tool>();
  // @ts-expect-error not one of the choices
  if (tool === 'hammer') return t;
  if (tool === 'calculator') return t`The math expression is${gen('expression')}`;
  return t`The website url is${gen('url')}`;
});
expectTypeOf<VarsOfProgram<typeof controlFlow>>().toEqualTypeOf<{ tool: Tool; expression?: string; url?: string }>();

// Parallelism.
const tips = fn(async (s) => {
  const head = s`Two tips.`;
  const [a, b] = head.fork(2);
  const [t1, t2] = await Promise.all([a`1:${gen('tip')}`, b`2:${gen('tip', { type: 'int' })}`]);
  expectTypeOf(t1.vars).toEqualTypeOf<Readonly<{ tip: string }>>();
  expectTypeOf(t2.vars.tip).toEqualTypeOf<number>();
  // @ts-expect-error branches do not bind in the prompt they come from
  void head.get('tip');
  const [only] = head.fork(1);
  expectTypeOf(only).toEqualTypeOf<State<{}>>();
  expectTypeOf(await head.fork(4).join()).toEqualTypeOf<Result<{}>[]>();
  expectTypeOf(head.fork(5)).toExtend<State<{}>[]>();
  expectTypeOf(await head.forkMap([1], (branch, item) => branch`${item}${gen('x')}`)).toEqualTypeOf<
    Result<{ x: string }>[]
  >();
  expectTypeOf(await head.copy(async (c) => (await c`${genInt('n')}`).vars.n)).toEqualTypeOf<number>();
  expectTypeOf(await head.fork(2).join<{ tip: string }>()).toEqualTypeOf<Result<{ tip: string }>[]>();
  return head`${t1.vars.tip} In summary${gen('summary')}`;
});
expectTypeOf<VarsOfProgram<typeof tips>>().toEqualTypeOf<{ summary: string }>();

// A branch that returns early does not hide what the others bind.
const early = fn((s, { more }: { more: boolean }) => (more ? s`${gen('x')}${gen('y')}` : s`${gen('x')}`));
expectTypeOf<VarsOfProgram<typeof early>>().toEqualTypeOf<{ x: string; y?: string }>();

void tips.run();
void tips.run({}, { temperature: 0 });

// Values.
const City = z.object({ name: z.string(), size: z.string().transform(Number) });
const values = fn((s) =>
  s(
    image('x.png'),
    gen('city', { schema: City }),
    gen('i', { type: 'int' }),
    gen('b', { type: 'bool' }),
    genString('s'),
  ),
);
expectTypeOf<VarsOfProgram<typeof values>>().toEqualTypeOf<{
  city: { name: string; size: number };
  i: number;
  b: boolean;
  s: string;
}>();
gen('x', { choices: ['a', 'b'] });
expectTypeOf(fn((s) => s`${gen('g', { lark: 'start: "a"' })}`).run())
  .resolves.toHaveProperty('vars')
  .toEqualTypeOf<Readonly<{ g: string }>>();
// @ts-expect-error one constraint at most
gen('x', { type: 'int', regex: /a/ });
// @ts-expect-error nor two notations
gen('x', { ebnf: 'root ::= "a"', lark: 'start: "a"' });
// @ts-expect-error there is no such type
gen('x', { type: 'date' });
// @ts-expect-error there must be a choice
select('x', []);
// @ts-expect-error a schema is a Standard Schema
gen('x', { schema: { type: 'object' } });

// Parts.
fn((s) => {
  // @ts-expect-error a promise is no part
  void s`${Promise.resolve('x')}`;
  // @ts-expect-error nor is undefined
  s(undefined);
  // @ts-expect-error nor is an object
  void s.user`${{ a: 1 }}`;
  return s`${1} ${'x'} ${gen('y')}`;
});

// Roles as expressions and as blocks.
const blocks = fn((s) =>
  s(user('hi'), assistant`Well, ${gen('a')}`)
    .user(async (u) => {
      expectTypeOf(await u.get('a')).toEqualTypeOf<string>();
      return u`${genInt('n')}`;
    })
    .assistant((b) => void b`text`),
);
expectTypeOf<VarsOfProgram<typeof blocks>>().toEqualTypeOf<{ a: string; n: number }>();

// Programs in programs, and with arguments given ahead.
const outer = fn(async (s) => {
  const { vars } = await controlFlow(s`Start.`, { question: 'x' });
  expectTypeOf(vars.tool).toEqualTypeOf<Tool>();
  expectTypeOf(vars.url).toEqualTypeOf<string | undefined>();
  // @ts-expect-error its argument is missing
  controlFlow(s);
  return tips(s)`${gen('end')}`;
});
expectTypeOf<VarsOfProgram<typeof outer>>().toEqualTypeOf<{ summary: string; end: string }>();
expectTypeOf(multiTurn.bind({ q1: '' })).toEqualTypeOf<Program<{ q2: string }, { answer1: string; answer2: string }>>();
// @ts-expect-error not an argument
multiTurn.bind({ q3: '' });

// Arguments are one object.
interface Question {
  question?: string;
}
void fn((s, { question = 'x' }: Question) => s`${question}${gen('y')}`).run();
// @ts-expect-error not a text
fn((s, question: string) => s`${question}${gen('x')}`);
// @ts-expect-error nor a number
fn((s, n: number) => s`${n}`);
// @ts-expect-error nor a list
fn((s, [question]: string[]) => s`${question!}`);
// @ts-expect-error a text is no object with that name
void multiTurn.run('What?');

// Runs, batches and streams.
expectTypeOf(tips.runBatch([{}])).toEqualTypeOf<Promise<Result<{ summary: string }>[]>>();
expectTypeOf(tips.runBatch([{}], { settled: true })).resolves.items.toEqualTypeOf<
  PromiseSettledResult<Result<{ summary: string }>>
>();
expectTypeOf(tips.run().textStream('summary')).toEqualTypeOf<AsyncIterable<string>>();
expectTypeOf(tips.run().events()).toEqualTypeOf<AsyncIterable<{ name: 'summary' | null; delta: string }>>();
expectTypeOf<RunOptions['signal']>().toEqualTypeOf<AbortSignal | undefined>();
expectTypeOf<Meta['logprobs']>().toEqualTypeOf<OutputLogprob[] | undefined>();
expectTypeOf<Meta['speculated']>().toEqualTypeOf<true | undefined>();
expectTypeOf<BatchError['results']>().items.toEqualTypeOf<Result<Record<string, unknown>> | undefined>();
expectTypeOf<Backend>().toExtend<RunOptions['backend']>();
for (const backend of [OpenAI, Anthropic, RuntimeEndpoint, Speculative, FakeBackend, Engine])
  expectTypeOf(backend.prototype).toExtend<Backend>();
expectTypeOf(aiSdkBackend).returns.toExtend<Backend>();
expectTypeOf(createSglang).parameter(0).toEqualTypeOf<Backend>();
// @ts-expect-error a backend is what a model of the AI SDK becomes
void tips.run({}, { backend: createSglang(new FakeBackend())('m') });
// @ts-expect-error a program returns a state
fn(async (s) => void s`x`);

// A name that is bound again has the type of its last value.
const again = fn((s) => s`${gen('x')} ${gen('y')}`.append(genInt('x')));
expectTypeOf<VarsOfProgram<typeof again>>().toEqualTypeOf<{ x: number; y: string }>();
const inBlock = fn((s) => s`${gen('x')}`.user((u) => u`${genInt('x')}`));
expectTypeOf<VarsOfProgram<typeof inBlock>>().toEqualTypeOf<{ x: number }>();
const called = fn((s) => again(s`${select('x', ['a', 'b'])}${gen('z')}`));
expectTypeOf<VarsOfProgram<typeof called>>().toEqualTypeOf<{ x: number; y: string; z: string }>();

// So has one in a function for any state.
const asking = async <S extends object>(s: State<S>) => 2 * (await s`${genInt('x')}`.get('x'));
expectTypeOf(asking<{ x: string }>).returns.resolves.toEqualTypeOf<number>();

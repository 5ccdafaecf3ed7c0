/** `sglang chat`, typed into a terminal and fed from a pipe. */
import { PassThrough } from 'node:stream';
import test from 'ava';
import { chat } from '../../src/cli/chat.ts';
import { FakeBackend, type Backend, type Delta } from '../../src/index.ts';

const replies = [
  ['name is Ada', 'Hello, Ada.'],
  ['my name?', 'Ada.'],
  ['fail', new Error('out of ink')],
] as const;

/** A chat; `type` writes and `said` waits until the output has the text. */
function start(backend: Backend, { isTTY = false, system = undefined as string | undefined } = {}) {
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  let shown = '';
  let arrived = () => {};
  for (const stream of [stdout, stderr]) {
    stream.on('data', (chunk: Buffer) => {
      shown += chunk.toString();
      arrived();
    });
  }
  const saved: string[][] = [];
  const history = { lines: ['an older line'], save: (lines: string[]) => void saved.push([...lines]) };
  const streams = { stdin, stdout: Object.assign(stdout, { isTTY }) as never, stderr: stderr as never };
  const end = chat({ backend, system, sampling: { temperature: 0 }, history, ...streams });
  const said = async (text: string) => {
    while (!shown.includes(text)) await new Promise<void>((resolve) => (arrived = resolve));
  };
  return { stdin, said, end, saved, shown: () => shown };
}

test('from a pipe: answers only, each with the turns before it', async (t) => {
  const backend = new FakeBackend({ replies });
  const { stdin, end, shown } = start(backend, { system: 'Be brief.' });
  stdin.end('My name is Ada.\n\nWhat is my name?\n');
  await end;
  t.is(shown(), 'Hello, Ada.\nAda.\n');
  t.is(
    backend.calls[1]!.prompt,
    'system: Be brief.\nuser: My name is Ada.\nassistant: Hello, Ada.\nuser: What is my name?\nassistant:',
  );
  t.like(backend.calls[0]!.options, { temperature: 0, maxTokens: 1024 });
});

test('a question that fails leaves the conversation as it was; /clear forgets it; /exit ends it', async (t) => {
  const backend = new FakeBackend({ replies });
  const { stdin, end, shown } = start(backend);
  stdin.write('My name is Ada.\nfail\nWhat is my name?\n/clear\nWhat is my name?\n/nonsense\n/exit\nnot heard\n');
  await end;
  t.regex(shown(), /^Hello, Ada\.\nsglang: out of ink\nAda\.\nAda\.\nthere is no \/nonsense/);
  const prompts = backend.calls.map(({ prompt }) => prompt);
  t.deepEqual(prompts.slice(2), [
    'user: My name is Ada.\nassistant: Hello, Ada.\nuser: What is my name?\nassistant:',
    'user: What is my name?\nassistant:',
  ]);
});

/** Begins to answer, and goes on only where nobody stops it. */
class Slow extends FakeBackend {
  override async *stream(...[turns, options]: Parameters<Backend['stream']>): AsyncGenerator<Delta, void> {
    yield { text: 'One, two, ' };
    await new Promise((resolve) => options.signal!.addEventListener('abort', resolve));
    options.signal!.throwIfAborted();
    yield* super.stream(turns, options);
  }
}

test('on a terminal: Ctrl-C ends the answer and keeps it, then the line, then the chat', async (t) => {
  const { stdin, said, end, saved, shown } = start(new Slow(), { isTTY: true });
  await said('> ');
  stdin.write('Count.\r');
  await said('One, two, ');
  stdin.write('\x03');
  await said('One, two, \n');
  stdin.write('half a li\x03/help\r');
  await said('/clear   forget');
  stdin.write('\x03');
  await end;
  t.notRegex(shown(), /sglang:/);
  t.deepEqual(saved[0], ['Count.', 'an older line']);
  t.deepEqual(saved.at(-1), ['/help', 'Count.', 'an older line']);
});

test('the arrow key brings back lines of earlier chats', async (t) => {
  const backend = new FakeBackend();
  const { stdin, said, end } = start(backend, { isTTY: true });
  await said('> ');
  stdin.write('\x1b[A\r');
  while (backend.calls.length === 0) await new Promise(setImmediate);
  t.regex(backend.calls[0]!.prompt, /an older line/);
  stdin.write('/exit\r');
  await end;
});

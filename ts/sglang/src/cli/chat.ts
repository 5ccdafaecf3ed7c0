/**
 * `sglang chat`: a conversation in the terminal. Laws: Ctrl-C ends the answer and keeps what was said, and ends the chat
 * where there is no answer; a failed question leaves the conversation as it was.
 */
import { createInterface, type Interface } from 'node:readline';
import type { Backend, GenerateOptions, Turn } from '../backends/backend.ts';
import { abortablePieces } from '../lang/abort.ts';
import type { ChatHistory } from './chat-history.ts';

export interface ChatCall {
  backend: Backend;
  system: string | undefined;
  sampling: Pick<GenerateOptions, 'temperature' | 'maxTokens'>;
  stdin: NodeJS.ReadableStream;
  stdout: NodeJS.WriteStream;
  stderr: NodeJS.WriteStream;
  history: ChatHistory;
}

const DEFAULT_MAX_TOKENS = 1024;
const HELP = `/clear   forget the conversation
/help    these lines
/exit    end; so does Ctrl-D. Ctrl-C ends the answer.
`;

/** Talks until the input ends or `/exit`. */
export async function chat(call: ChatCall): Promise<void> {
  const { stdin, stdout, history } = call;
  const terminal = stdout.isTTY === true;
  const lines = createInterface({ input: stdin, output: stdout, terminal, prompt: '> ', history: history.lines });
  lines.on('history', history.save);
  const conversation = new Conversation(call);
  lines.on('SIGINT', () => conversation.stop() || clearOrClose(lines));
  if (terminal) stdout.write('/help tells what there is besides talking.\n');
  const ask = () => terminal && lines.prompt();
  ask();
  for await (const line of lines) {
    if (!(await conversation.hear(line.trim()))) return lines.close();
    ask();
  }
  if (terminal) stdout.write('\n');
}

function clearOrClose(lines: Interface): void {
  if (lines.line === '') lines.close();
  else lines.write(null, { ctrl: true, name: 'u' });
}

class Conversation {
  readonly #call: ChatCall;
  #turns: readonly Turn[];
  #answering: AbortController | undefined;

  constructor(call: ChatCall) {
    this.#call = call;
    this.#turns = this.#start();
  }

  /** Takes a line of the user; false ends the chat. */
  async hear(line: string): Promise<boolean> {
    if (line === '/exit') return false;
    if (line === '/help') this.#call.stdout.write(HELP);
    else if (line === '/clear') this.#turns = this.#start();
    else if (line.startsWith('/')) this.#call.stderr.write(`there is no ${line}; /help tells what there is\n`);
    else if (line !== '') await this.#answer(line);
    return true;
  }

  /** Ends the answer under way; whether there was one. */
  stop(): boolean {
    this.#answering?.abort();
    return this.#answering !== undefined;
  }

  #start(): readonly Turn[] {
    const { system } = this.#call;
    return system === undefined ? [] : [turn('system', system)];
  }

  async #answer(question: string): Promise<void> {
    const { backend, sampling, stdout, stderr } = this.#call;
    const { signal } = (this.#answering = new AbortController());
    const asked = [...this.#turns, turn('user', question)];
    const prompt = [...asked, { ...turn('assistant', ''), open: true }];
    const options = { maxTokens: DEFAULT_MAX_TOKENS, ...defined(sampling), signal };
    let answer = '';
    try {
      for await (const { text } of abortablePieces(backend.stream(prompt, options), signal)) {
        answer += text;
        stdout.write(text);
      }
    } catch (error) {
      if (!signal.aborted) {
        stderr.write(`${answer === '' ? '' : '\n'}sglang: ${(error as Error).message}\n`);
        return;
      }
    } finally {
      this.#answering = undefined;
    }
    stdout.write('\n');
    this.#turns = [...asked, turn('assistant', answer)];
  }
}

function turn(role: 'system' | 'user' | 'assistant', text: string): Turn {
  return { role, content: text === '' ? [] : [text], open: false };
}

function defined<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Partial<T>;
}

/**
 * Every flag, once: from this table come the help, the environment variables, the checks and the types of the options.
 * A flag's option name is its name in camelCase, its variable `SGLANG_` and its name in capitals.
 */
import { Command, Option } from 'commander';
import { schedulePolicies } from '../engine/types.ts';

export interface Flag {
  readonly name: string;
  /** Other spellings. */
  readonly aliases?: readonly string[];
  readonly kind: 'text' | 'integer' | 'number' | 'switch';
  /** What it configures; a command takes whole groups. */
  readonly group: 'engine' | 'server' | 'sampling' | 'generate' | 'backend' | 'run' | 'chat';
  readonly help: string;
  readonly default?: string | number;
  readonly choices?: readonly string[];
  /** Smallest and largest number. */
  readonly range?: readonly [number, number];
}

const count = [1, Number.MAX_SAFE_INTEGER] as const;
const anyWhole = [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER] as const;

export const flags = [
  {
    name: 'model-path',
    aliases: ['model'],
    kind: 'text',
    group: 'engine',
    default: 'smollm2-135m-instruct',
    help: 'a GGUF file, a folder, a named model, or a hub id such as org/name or org/name:Q4_K_M',
  },
  { name: 'revision', kind: 'text', group: 'engine', help: 'branch, tag or commit of a hub id' },
  {
    name: 'mmproj',
    kind: 'text',
    group: 'engine',
    help: 'the GGUF file of the vision tower, or none (default: the only mmproj*.gguf in the folder or repository)',
  },
  {
    name: 'tokenizer-path',
    kind: 'text',
    group: 'engine',
    help: "the tokenizer, where it is not the model's own: a folder, a file or a hub id",
  },
  {
    name: 'device',
    kind: 'text',
    group: 'engine',
    choices: ['auto', 'cpu'],
    default: 'auto',
    help: 'where to compute',
  },
  {
    name: 'dtype',
    kind: 'text',
    group: 'engine',
    choices: ['auto', 'float32'],
    default: 'auto',
    help: 'number format of the weights; auto: quantized ones (BF16 too with AMX) as stored, 16-bit floats as integers of 14 bits',
  },
  {
    name: 'quantization',
    kind: 'text',
    group: 'engine',
    choices: ['q8_0', 'q4_0', 'q4_1', 'q4_k'],
    help: 'quantize weights that are stored as floats while loading',
  },
  {
    name: 'kv-cache-dtype',
    kind: 'text',
    group: 'engine',
    choices: ['auto', 'float32', 'float16', 'bfloat16', 'int16', 'q8_0'],
    default: 'auto',
    help: 'number format of the KV cache',
  },
  {
    name: 'context-length',
    kind: 'integer',
    group: 'engine',
    range: count,
    help: "longest sequence in tokens (default: the model's)",
  },
  {
    name: 'max-total-tokens',
    kind: 'integer',
    group: 'engine',
    range: count,
    help: 'size of the KV cache in tokens (default: 8 sequences of full length, as far as memory allows)',
  },
  {
    name: 'max-running-requests',
    kind: 'integer',
    group: 'engine',
    range: count,
    help: 'requests computed at once (default: 64)',
  },
  {
    name: 'max-queued-requests',
    kind: 'integer',
    group: 'engine',
    range: count,
    help: 'requests that may wait; more get 503 (default: 4096)',
  },
  {
    name: 'chunked-prefill-size',
    kind: 'integer',
    group: 'engine',
    range: count,
    help: 'most prompt tokens computed in one step; half of them beside streams (default: 256)',
  },
  {
    name: 'schedule-policy',
    kind: 'text',
    group: 'engine',
    choices: schedulePolicies,
    default: 'lpm',
    help: 'who runs first: longest prefix match, first come first served, the heaviest subtree, or by lot',
  },
  { name: 'disable-radix-cache', kind: 'switch', group: 'engine', help: 'keep no prefixes for later requests' },
  {
    name: 'tp',
    aliases: ['tp-size', 'tensor-parallel-size'],
    kind: 'integer',
    group: 'engine',
    range: [1, 64],
    help: 'ranks that share the model, each with its part of every layer (default: 1)',
  },
  {
    name: 'threads',
    kind: 'integer',
    group: 'engine',
    range: [1, 1024],
    help: 'compute threads, of all ranks together (default: physical cores)',
  },
  {
    name: 'chat-template',
    kind: 'text',
    group: 'engine',
    help: 'a file with a Jinja template, or the name of a built-in one',
  },
  {
    name: 'random-seed',
    kind: 'integer',
    group: 'engine',
    range: anyWhole,
    help: 'makes requests without a seed reproducible',
  },

  { name: 'host', kind: 'text', group: 'server', default: '127.0.0.1', help: 'address to listen on; 0.0.0.0 is all' },
  {
    name: 'port',
    kind: 'integer',
    group: 'server',
    range: [0, 65_535],
    default: 30_000,
    help: 'port to listen on; 0 takes a free one',
  },
  {
    name: 'served-model-name',
    kind: 'text',
    group: 'server',
    help: 'name of the model in the API (default: its path)',
  },
  { name: 'api-key', kind: 'text', group: 'server', help: 'require this key as "Authorization: Bearer <key>"' },
  { name: 'cors-origin', kind: 'text', group: 'server', help: 'origin whose pages may call the server, or *' },
  { name: 'strict-model', kind: 'switch', group: 'server', help: 'refuse requests that name another model' },
  { name: 'stream-output', kind: 'switch', group: 'server', help: '/generate streams new text only, not all so far' },
  {
    name: 'log-level',
    kind: 'text',
    group: 'server',
    choices: ['silent', 'error', 'warn', 'info', 'debug'],
    default: 'info',
    help: 'what is logged, to stderr',
  },
  { name: 'radix-text', kind: 'switch', group: 'server', help: 'let /radix?text=true show the text of cached prompts' },
  { name: 'log-requests', kind: 'switch', group: 'server', help: 'one log line per request' },
  { name: 'enable-metrics', kind: 'switch', group: 'server', help: 'accepted for scripts; /metrics is always there' },

  {
    name: 'max-new-tokens',
    kind: 'integer',
    group: 'sampling',
    range: [0, Number.MAX_SAFE_INTEGER],
    help: 'most tokens to generate (default: 128)',
  },
  { name: 'temperature', kind: 'number', group: 'sampling', range: [0, Infinity], help: '0 is greedy (default: 1)' },
  {
    name: 'chat',
    kind: 'switch',
    group: 'generate',
    help: "the prompt is a user's message, put into the chat template",
  },

  {
    name: 'base-url',
    kind: 'text',
    group: 'backend',
    help:
      'ask a server in place of a model in this process: http://localhost:30000, or an API like OpenAI’s at …/v1 ' +
      '(with --model-path as its name of the model, and the key from SGLANG_API_KEY or OPENAI_API_KEY)',
  },

  {
    name: 'input',
    kind: 'text',
    group: 'run',
    help: 'JSON Lines, an object of arguments each (default: one run without)',
  },
  {
    name: 'output',
    kind: 'text',
    group: 'run',
    help: 'where finished rows are kept as JSON Lines; the same command goes on where it broke off (default: print them)',
  },
  { name: 'export', kind: 'text', group: 'run', help: 'which program of the file (default: the only one, or default)' },
  { name: 'concurrency', kind: 'integer', group: 'run', range: count, help: 'rows that run at once (default: 64)' },
  { name: 'trace', kind: 'text', group: 'run', help: 'write what happened, and when, as an HTML page; - prints it' },

  { name: 'system', kind: 'text', group: 'chat', help: 'what the model is told first' },
] as const satisfies readonly Flag[];

/** Flags of the original whose function does not exist here yet: refused by name, so that none is ignored. */
const notYet =
  'dp-size mem-fraction-static stream-interval schedule-conservativeness ' +
  'disable-regex-jump-forward allow-local-files watchdog-timeout enable-lora lora-paths max-loras-per-batch';

type Camel<S extends string> = S extends `${infer A}-${infer B}` ? `${A}${Capitalize<Camel<B>>}` : S;
type ValueOf<F extends Flag> = F extends { kind: 'switch' }
  ? boolean
  : F extends { kind: 'text'; choices: readonly (infer C)[] }
    ? C
    : F extends { kind: 'text' }
      ? string
      : number;
type Given<F extends Flag> = F extends { default: string | number } ? ValueOf<F> : ValueOf<F> | undefined;
type Named = (typeof flags)[number];

/** The options that the flags of a group give; undefined where there is neither a value nor a default. */
export type Options<G extends Flag['group']> = { [F in Extract<Named, { group: G }> as Camel<F['name']>]: Given<F> };

/** A mistake in how the command was called. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Declares the flags of the groups on a command, and those that are to be refused. */
export function addFlags(command: Command, groups: readonly Flag['group'][]): Command {
  for (const flag of inGroups(groups)) {
    for (const [i, name] of [flag.name, ...(flag.aliases ?? [])].entries()) {
      const option = new Option(
        flag.kind === 'switch' ? `--${name}` : `--${name} <value>`,
        i === 0 ? helpOf(flag) : '',
      );
      if (flag.kind !== 'switch') option.argParser((text: string) => parse(flag, text, `--${name}`));
      command.addOption(i === 0 ? option : option.hideHelp());
    }
  }
  for (const name of notYet.split(' ')) {
    command.addOption(new Option(`--${name} [value]`).hideHelp()).on(`option:${name}`, () => {
      throw new UsageError(`--${name}: not supported yet`);
    });
  }
  return command;
}

/** The values of one group: from the command line, else the environment, else the defaults. */
export function readFlags<G extends Flag['group']>(command: Command, group: G, env: NodeJS.ProcessEnv): Options<G> {
  const given = command.opts<Record<string, unknown>>();
  const value = (flag: Flag) => {
    const spelled = [flag.name, ...(flag.aliases ?? [])].map((name) => given[camelCase(name)]);
    return spelled.find((one) => one !== undefined) ?? fromEnvironment(flag, env) ?? flag.default;
  };
  return Object.fromEntries(inGroups([group]).map((flag) => [camelCase(flag.name), value(flag)])) as Options<G>;
}

function inGroups(groups: readonly Flag['group'][]): readonly Flag[] {
  return flags.filter(({ group }) => groups.includes(group));
}

function camelCase(name: string): string {
  return name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}

function variable({ name }: Flag): string {
  return `SGLANG_${name.toUpperCase().replaceAll('-', '_')}`;
}

function helpOf(flag: Flag): string {
  const notes = [
    ...(flag.choices ? [`one of ${flag.choices.join(', ')}`] : []),
    ...(flag.default === undefined ? [] : [`default ${flag.default}`]),
    `env ${variable(flag)}`,
  ];
  return `${flag.help} [${notes.join('; ')}]`;
}

function fromEnvironment(flag: Flag, env: NodeJS.ProcessEnv): unknown {
  const text = env[variable(flag)];
  return text === undefined || text === '' ? undefined : parse(flag, text, variable(flag));
}

function parse(flag: Flag, text: string, at: string): string | number | boolean {
  const refuse = (expected: string): never => {
    throw new UsageError(`${at}: expected ${expected}, got "${text}"`);
  };
  if (flag.kind === 'switch') {
    const choice = ['0', '1', 'false', 'true'].indexOf(text);
    return choice < 0 ? refuse('1, 0, true or false') : choice % 2 === 1;
  }
  if (flag.kind === 'text') {
    return !flag.choices || flag.choices.includes(text) ? text : refuse(`one of ${flag.choices.join(', ')}`);
  }
  const [min, max] = flag.range ?? [-Infinity, Infinity];
  const value = text.trim() === '' ? NaN : Number(text);
  const isRight = value >= min && value <= max && (flag.kind === 'number' || Number.isInteger(value));
  return isRight ? value : refuse(`a ${flag.kind === 'integer' ? 'whole ' : ''}number${rangeOf(min, max)}`);
}

function rangeOf(min: number, max: number): string {
  if (max < Number.MAX_SAFE_INTEGER) return ` in [${min}, ${max}]`;
  return min > Number.MIN_SAFE_INTEGER ? ` ≥ ${min}` : '';
}

/**
 * Backends of APIs, whose models follow a JSON Schema but no grammar. Laws: schemas of objects are asked for as they
 * are; all else (types of the language, choices, lists) as the value in an object, which is what APIs take. An answer
 * without an end is an error.
 */
import { SglangError } from '../engine/errors.ts';
import { nearestChoice } from '../lang/choices.ts';
import { refuseMethod, refuseUnsupported, type UnsupportedOptions } from './api-options.ts';
import type { Backend, Content, Delta, GenerateOptions, GenMeta, Selection, SelectOptions, Turn } from './backend.ts';
import { choiceRoom, choiceTurns, valueSchemas, valueText, wholeOf, wrapped } from './json-values.ts';

/** What an event of an API's stream tells; log-probabilities are those of its own text. */
export type News = Partial<GenMeta> & { text?: string };

/** With a schema the answer is JSON that fits it. */
export type Asked = [turns: readonly Turn[], options: GenerateOptions, schema?: object];
export type ToChoose = [turns: readonly Turn[], options: GenerateOptions, choices: readonly string[]];

export abstract class SchemaBackend implements Backend {
  abstract readonly kind: string;
  /** What to use in place of a constraint that the API has not. */
  protected readonly instead: string = 'use choices, type or schema, or a RuntimeEndpoint or Engine';
  /** Of `select`, where the caller gives none. */
  protected readonly choiceTemperature: number | undefined;
  /** Whether values are asked for within an object. */
  protected readonly wraps: boolean = true;

  /** `api` is its name in errors, `supported` the options it has a field for. */
  constructor(
    readonly api: string,
    readonly supported: Parameters<typeof refuseUnsupported>[2],
    readonly unsupported: UnsupportedOptions,
  ) {}

  /** Goes on with a prompt. */
  protected abstract answer(...asked: Asked): AsyncIterable<News>;

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { valueType, jsonSchema, ...rest } = options;
    const schema = (this.wraps && valueType && valueSchemas[valueType]) || (jsonSchema && JSON.parse(jsonSchema));
    if (!schema || !this.wraps) yield* this.complete(turns, options, schema);
    else if (schema.type === 'object') yield* this.complete(turns, { ...options, stop: [] }, schema);
    else yield await this.#value(turns, valueType ? { ...rest, regex: undefined } : rest, schema);
  }

  async select(
    turns: readonly Turn[],
    choices: readonly string[],
    { method, temperature = this.choiceTemperature, signal }: SelectOptions,
  ): Promise<Selection> {
    refuseMethod(this.api, method, this.unsupported);
    const options = { temperature, signal, maxTokens: choiceRoom(choices) };
    const { text, meta } = await this.choose(turns, options, choices);
    return { index: nearestChoice(unquoted(text), choices), scores: null, meta };
  }

  /** One of the choices, or a text near to it. */
  protected choose(...[turns, options, choices]: ToChoose): Promise<Required<Delta>> {
    return this.#value(choiceTurns(turns, choices), options, { type: 'string', enum: choices });
  }

  protected refuse(options: GenerateOptions): void {
    refuseUnsupported(this.api, options, this.supported, this.unsupported, this.instead);
  }

  /** Puts together what the events of an answer tell. */
  protected async *complete(...asked: Asked): AsyncGenerator<Delta, void> {
    this.refuse(asked[1]);
    const counts = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 };
    const meta: GenMeta = { ...counts, finishReason: 'abort', matched: null };
    for await (const { text, outputLogprobs, ...known } of this.answer(...asked)) {
      if (text) yield { text };
      if (outputLogprobs) (meta.outputLogprobs ??= []).push(...outputLogprobs);
      Object.assign(meta, known);
    }
    if (meta.finishReason === 'abort') throw new SglangError('engine_closed', `${this.api}: the answer broke off`);
    yield { text: '', meta };
  }

  async #value(turns: readonly Turn[], options: GenerateOptions, schema: object): Promise<Required<Delta>> {
    const { text, meta } = await wholeOf(this.complete(turns, { ...options, stop: [] }, wrapped(schema)));
    return { text: valueText(text), meta };
  }
}

/** What a JSON string says; any other text as it is. */
function unquoted(text: string): string {
  try {
    return String(JSON.parse(text));
  } catch {
    return text;
  }
}

/** Content as APIs take it: a text alone as it is, all else as a list of parts. */
export async function textOrParts(
  content: readonly Content[],
  toPart: (piece: Content) => Promise<object>,
): Promise<string | object[]> {
  const [first] = content;
  return content.length === 1 && typeof first === 'string' ? first : Promise.all(content.map(toPart));
}

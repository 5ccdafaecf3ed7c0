/**
 * Backends of models that follow a JSON Schema but no grammar. Law: schemas of objects are asked for as they are; of all
 * else (types of the language, choices, lists) as the value in an object, which is what APIs take.
 */
import { nearestChoice } from '../lang/choices.ts';
import { refuseMethod, refuseUnsupported, type UnsupportedOptions } from './api-options.ts';
import type { Backend, Delta, GenerateOptions, Selection, SelectOptions, Turn } from './backend.ts';
import { choiceRoom, choiceTurns, valueSchemas, valueText, wholeOf, wrapped } from './json-values.ts';

const INSTEAD = 'use choices, type or schema, or a RuntimeEndpoint or Engine';

export abstract class SchemaBackend implements Backend {
  abstract readonly kind: string;
  /** Of `select`, where the caller gives none. */
  protected readonly choiceTemperature: number | undefined;

  /** `api` is its name in errors, `supported` the options it has a field for. */
  constructor(
    readonly api: string,
    readonly supported: Parameters<typeof refuseUnsupported>[2],
    readonly unsupported: UnsupportedOptions,
  ) {}

  /** Goes on with a prompt; with a schema the text is JSON that fits it. */
  protected abstract complete(turns: readonly Turn[], options: GenerateOptions, schema?: object): AsyncIterable<Delta>;

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta, void> {
    const { valueType, jsonSchema } = options;
    if (valueType) return yield await this.#value(turns, { ...options, regex: undefined }, valueSchemas[valueType]);
    if (jsonSchema === undefined) return yield* this.#asked(turns, options);
    const schema = JSON.parse(jsonSchema) as { type?: string };
    if (schema.type === 'object') yield* this.#asked(turns, { ...options, stop: [] }, schema);
    else yield await this.#value(turns, { ...options, jsonSchema: undefined }, schema);
  }

  async select(
    turns: readonly Turn[],
    choices: readonly string[],
    { method, temperature = this.choiceTemperature, signal }: SelectOptions,
  ): Promise<Selection> {
    refuseMethod(this.api, method, this.unsupported);
    const options = { temperature, signal, maxTokens: choiceRoom(choices) };
    const { text, meta } = await this.#value(choiceTurns(turns, choices), options, { type: 'string', enum: choices });
    return { index: nearestChoice(text, choices), scores: null, meta };
  }

  async #value(turns: readonly Turn[], options: GenerateOptions, schema: object): Promise<Required<Delta>> {
    const { text, meta } = await wholeOf(this.#asked(turns, { ...options, stop: [] }, wrapped(schema)));
    return { text: valueText(text, 'enum' in schema), meta };
  }

  async *#asked(turns: readonly Turn[], options: GenerateOptions, schema?: object): AsyncGenerator<Delta, void> {
    refuseUnsupported(this.api, options, this.supported, this.unsupported, INSTEAD);
    yield* this.complete(turns, options, schema);
  }
}

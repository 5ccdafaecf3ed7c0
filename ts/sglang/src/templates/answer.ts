/**
 * Answers in which a model may call tools. Law: names are chosen among the tools and arguments satisfy the tool's
 * schema, token by token; between calls the model writes what it wants. A call is made of several generations, each of
 * which continues the text of the one before, so their common beginning comes from the cache.
 */
import { SglangError } from '../engine/errors.ts';
import type { GenerateMeta, Logprobs } from '../engine/types.ts';
import type { CallForm, Calls } from './tools.ts';

export type PartMeta = Pick<GenerateMeta, 'finishReason' | 'promptTokens' | 'completionTokens' | 'cachedTokens'>;

/** A piece of one generation; the last carries `meta`. */
export interface PartPiece {
  text: string;
  outputLogprobs?: Logprobs;
  meta?: PartMeta;
}

/** What one generation has to be; the answer's own text has `stop`, parts of calls a grammar and no limits of their own. */
export type PartOptions = { stop: string[]; stopTokenIds: number[] } | { regex: string } | { jsonSchema: string };

/** The model that writes an answer. */
export interface Writer {
  /** Goes on from the answer's text so far, for which `spent` tokens were generated in `parts` generations. */
  write(answer: string, options: PartOptions, spent: number, parts: number): AsyncIterable<PartPiece>;
  /** The token that a text is, where it is one; a special token ends a text without being seen in it. */
  tokenOf(text: string): number | undefined;
}

/** News of an answer; the last carries `meta`. */
export interface AnswerPiece {
  /** More of the answer's own text; may be empty. */
  content?: string;
  /** A call begins. */
  begins?: { index: number; id: string; name: string };
  /** More of the arguments of a call. */
  goesOn?: { index: number; arguments: string };
  logprobs?: Logprobs | undefined;
  /** Of the whole answer; `called` where it ended with calls. */
  meta?: PartMeta & { called: boolean };
}

/** Parts of an answer draw differently, and so do the up to 128 answers to one request. */
export function seedOfPart(seed: number | undefined, parts: number): number | undefined {
  return seed === undefined ? undefined : seed + 128 * parts;
}

/** One answer of `writer`, by what `calls` allows. */
export async function* answerWithCalls(writer: Writer, calls: Calls): AsyncGenerator<AnswerPiece, void> {
  const answer = new Answer(writer);
  if (!calls.required) {
    yield* answer.free(calls.form.announced);
    if (!answer.isAnnounced) return yield answer.end(false);
  }
  answer.write(calls.form.open + calls.form.begin);
  let index = 0;
  do yield* answer.oneCall(calls, index++);
  while (!answer.isCutOff && calls.parallel && (yield* answer.another(calls.form)));
  yield answer.end(true);
}

/** The text of an answer so far, and what was spent on it. */
class Answer {
  readonly #writer: Writer;
  #text = '';
  #first: PartMeta | undefined;
  #last: PartMeta | undefined;
  #completionTokens = 0;
  #parts = 0;
  #announced = false;

  constructor(writer: Writer) {
    this.#writer = writer;
  }

  /** The free text ended where it turns to calls. */
  get isAnnounced(): boolean {
    return this.#announced;
  }

  /** The tokens were used up, or the request was aborted. */
  get isCutOff(): boolean {
    return this.#last !== undefined && this.#last.finishReason.type !== 'stop';
  }

  write(text: string): void {
    this.#text += text;
  }

  /** The answer's own text, up to one of the texts that announce a call. White space before it is left out. */
  async *free(announced: readonly string[]): AsyncGenerator<AnswerPiece, void> {
    const ids = announced.flatMap((text) => this.#writer.tokenOf(text) ?? []);
    let held = '';
    for await (const { text, outputLogprobs } of this.#generate({ stop: [...announced], stopTokenIds: ids })) {
      this.write(text);
      const content = (held + text).trimEnd();
      held = (held + text).slice(content.length);
      yield { content, logprobs: outputLogprobs };
    }
    const reason = this.#last!.finishReason;
    const matched = reason.type === 'stop' ? reason.matched : null;
    this.#announced = announced.includes(matched as string) || ids.includes(matched as number);
    if (!this.#announced) yield { content: held };
  }

  /** A name and arguments, unless the answer is cut off. */
  async *oneCall({ form, callable }: Calls, index: number): AsyncGenerator<AnswerPiece, void> {
    let tool = callable[0]!;
    if (callable.length === 1) this.write(tool.name);
    else {
      const name = yield* this.#whole({ regex: callable.map((one) => escaped(one.name)).join('|') });
      if (this.isCutOff) return;
      tool = callable.find((one) => one.name === name)!;
    }
    yield { begins: { index, id: `call_${crypto.randomUUID().replaceAll('-', '').slice(0, 24)}`, name: tool.name } };
    this.write(form.middle);
    try {
      for await (const { text, outputLogprobs } of this.#generate({ jsonSchema: JSON.stringify(tool.parameters) })) {
        this.write(text);
        yield { goesOn: { index, arguments: text }, logprobs: outputLogprobs };
      }
    } catch (error) {
      throw inTermsOf(tool.at, error);
    }
    this.write(form.end);
  }

  /** Whether the model begins another call. */
  async *another({ between, begin, close }: CallForm): AsyncGenerator<AnswerPiece, boolean> {
    const more = between + begin;
    return more === (yield* this.#whole({ regex: `(${escaped(more)})${close === '' ? '?' : `|${escaped(close)}`}` }));
  }

  end(called: boolean): AnswerPiece {
    const { finishReason } = this.#last!;
    const { promptTokens, cachedTokens } = this.#first!;
    return { meta: { finishReason, promptTokens, cachedTokens, completionTokens: this.#completionTokens, called } };
  }

  async *#whole(options: PartOptions): AsyncGenerator<AnswerPiece, string> {
    let whole = '';
    for await (const { text, outputLogprobs } of this.#generate(options)) {
      whole += text;
      yield { logprobs: outputLogprobs };
    }
    this.write(whole);
    return whole;
  }

  async *#generate(options: PartOptions): AsyncGenerator<PartPiece, void> {
    for await (const piece of this.#writer.write(this.#text, options, this.#completionTokens, this.#parts++)) {
      if (piece.meta) {
        this.#first ??= piece.meta;
        this.#last = piece.meta;
        this.#completionTokens += piece.meta.completionTokens;
      }
      yield piece;
    }
  }
}

/** A schema that is refused is named as the request names it. */
function inTermsOf(at: string, error: unknown): unknown {
  const field = 'sampling_params.json_schema';
  if (!(error instanceof SglangError) || error.param !== field) return error;
  return new SglangError(error.code, error.message.replace(field, at), at);
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&').replaceAll('\n', '\\n');
}

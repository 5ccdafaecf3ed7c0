/**
 * Answers in which a model may call tools. Law: names are chosen among the tools and arguments satisfy the tool's
 * schema, token by token; between calls the model writes what it wants. A call is made of several generations, each of
 * which continues the text of the one before, so their common beginning comes from the cache.
 */
import { randomUUID } from 'node:crypto';
import { SglangError } from '../engine/errors.ts';
import type { GenerateChunk, GenerateMeta, GenerateRequest, Logprobs, SamplingParams } from '../engine/types.ts';
import { submit } from './calls.ts';
import type { Call } from './calls.ts';
import type { CallForm, Calls } from './tools.ts';

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
  meta?: GenerateMeta & { called: boolean };
}

/** One answer to `request.prompt`. */
export async function* answerWithCalls(
  call: Call,
  request: GenerateRequest & { prompt: string },
  calls: Calls,
  rid: string,
): AsyncGenerator<AnswerPiece, void> {
  const answer = new Answer(call, request, rid);
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
  readonly #call: Call;
  readonly #request: GenerateRequest & { prompt: string };
  readonly #rid: string;
  readonly #startedAt = performance.now();
  #text = '';
  #first: GenerateMeta | undefined;
  #last: GenerateMeta | undefined;
  #completionTokens = 0;
  #parts = 0;
  #announced = false;

  constructor(call: Call, request: GenerateRequest & { prompt: string }, rid: string) {
    this.#call = call;
    this.#request = request;
    this.#rid = rid;
  }

  /** The free text ended where it turns to calls. */
  get isAnnounced(): boolean {
    return this.#announced;
  }

  /** The tokens were used up. */
  get isCutOff(): boolean {
    return this.#last?.finishReason.type === 'length';
  }

  write(text: string): void {
    this.#text += text;
  }

  /** The answer's own text, up to one of the texts that announce a call. White space before it is left out. */
  async *free(announced: readonly string[]): AsyncGenerator<AnswerPiece, void> {
    const { samplingParams = {} } = this.#request;
    const stop = [samplingParams.stop ?? []].flat();
    const ids = announced.flatMap((text) => this.#tokenOf(text));
    const params = {
      stop: [...stop, ...announced],
      stopTokenIds: [...(samplingParams.stopTokenIds ?? []), ...ids],
      noStopTrim: false,
    };
    let held = '';
    for await (const { text, outputLogprobs } of this.#generate(params)) {
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

  /** A name and arguments, until the tokens are used up. */
  async *oneCall({ form, callable }: Calls, index: number): AsyncGenerator<AnswerPiece, void> {
    let tool = callable[0]!;
    if (callable.length === 1) this.write(tool.name);
    else {
      const name = yield* this.#whole({ regex: callable.map((one) => escaped(one.name)).join('|') });
      if (this.isCutOff) return;
      tool = callable.find((one) => one.name === name)!;
    }
    yield { begins: { index, id: `call_${randomUUID().replaceAll('-', '').slice(0, 24)}`, name: tool.name } };
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
    const { promptTokens, cachedTokens, id } = this.#first!;
    const e2eLatency = (performance.now() - this.#startedAt) / 1000;
    const completionTokens = this.#completionTokens;
    return { meta: { id, finishReason, promptTokens, cachedTokens, completionTokens, e2eLatency, called } };
  }

  #tokenOf(text: string): number[] {
    const ids = this.#call.engine.tokenize(text, { addSpecialTokens: false });
    return ids.length === 1 ? ids : [];
  }

  /** Parts of an answer draw differently, and so do the up to 128 answers to one request. */
  #seed(): number | undefined {
    const { seed } = this.#request.samplingParams ?? {};
    return seed === undefined ? undefined : seed + 128 * this.#parts++;
  }

  #remaining(): number {
    return (this.#request.samplingParams?.maxNewTokens ?? Infinity) - this.#completionTokens;
  }

  async *#whole(params: SamplingParams): AsyncGenerator<AnswerPiece, string> {
    let whole = '';
    for await (const { text, outputLogprobs } of this.#generate(params)) {
      whole += text;
      yield { logprobs: outputLogprobs };
    }
    this.write(whole);
    return whole;
  }

  /** Goes on from the text so far. Where the answer may stop is no matter of what is constrained. */
  async *#generate(params: SamplingParams): AsyncGenerator<GenerateChunk, void> {
    const { samplingParams = {} } = this.#request;
    const base = params.stop ? samplingParams : { ...samplingParams, ...noneOfOwn };
    const request: GenerateRequest = {
      ...this.#request,
      prompt: this.#request.prompt + this.#text,
      samplingParams: { ...base, ...params, seed: this.#seed(), maxNewTokens: this.#remaining(), n: 1 },
    };
    const { chunks } = submit(this.#call, request, this.#rid);
    for await (const chunk of chunks) {
      if (chunk.meta) {
        this.#first ??= chunk.meta;
        this.#last = chunk.meta;
        this.#completionTokens += chunk.meta.completionTokens;
      }
      yield chunk;
    }
  }
}

/** What is asked of the answer's own text and not of the parts of calls. */
const noneOfOwn: SamplingParams = {
  stop: undefined,
  stopTokenIds: undefined,
  minNewTokens: undefined,
  ignoreEos: undefined,
  regex: undefined,
  jsonSchema: undefined,
  ebnf: undefined,
  lark: undefined,
  structuralTag: undefined,
};

/** A schema that is refused is named as the request names it. */
function inTermsOf(at: string, error: unknown): unknown {
  const field = 'sampling_params.json_schema';
  if (!(error instanceof SglangError) || error.param !== field) return error;
  return new SglangError(error.code, error.message.replace(field, at), at);
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&').replaceAll('\n', '\\n');
}

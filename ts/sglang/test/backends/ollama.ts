import {
  nearestChoice,
  plainText,
  type Backend,
  type Delta,
  type GenerateOptions,
  type Turn,
} from '../../src/index.ts';

/** Models of an Ollama server, by its `/api/chat`. */
export class Ollama implements Backend {
  readonly kind = 'ollama';

  constructor(
    readonly model: string,
    readonly url = 'http://localhost:11434',
  ) {}

  async *stream(turns: readonly Turn[], options: GenerateOptions): AsyncGenerator<Delta> {
    const { maxTokens = 128, temperature, stop, jsonSchema, regex, ebnf, lark, signal } = options;
    if (regex ?? ebnf ?? lark) throw new Error('ollama: no regex and no grammar; use schema');
    const body = {
      model: this.model,
      messages: turns
        .filter(({ content }) => content.length > 0)
        .map((turn) => ({ role: turn.role ?? 'user', content: plainText([{ ...turn, role: null }]) })),
      options: { num_predict: maxTokens, temperature, stop },
      ...(jsonSchema && { format: JSON.parse(jsonSchema) }),
    };
    const response = await fetch(`${this.url}/api/chat`, { method: 'POST', body: JSON.stringify(body), signal });
    if (!response.ok) throw new Error(`ollama: ${response.status}: ${await response.text()}`);
    for await (const { message, done, done_reason, ...counts } of linesOf(response.body!)) {
      if (!done) yield { text: message.content };
      else {
        const { prompt_eval_count: promptTokens = 0, eval_count: completionTokens = 0 } = counts;
        const finishReason = done_reason === 'length' ? 'length' : 'stop';
        const meta = { promptTokens, completionTokens, cachedTokens: 0, finishReason, matched: null } as const;
        yield { text: message.content, meta };
      }
    }
  }

  async select(turns: readonly Turn[], choices: readonly string[], options: { signal?: AbortSignal }) {
    const schema = { type: 'string', enum: choices };
    let answer = '';
    for await (const { text, meta } of this.stream(turns, { ...options, jsonSchema: JSON.stringify(schema) })) {
      answer += text;
      if (meta) return { index: nearestChoice(answer, choices), scores: null, meta };
    }
    throw new Error('ollama: the answer broke off');
  }
}

async function* linesOf(bytes: AsyncIterable<Uint8Array>) {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of bytes) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = lines.pop()!;
    for (const line of lines) yield JSON.parse(line);
  }
}

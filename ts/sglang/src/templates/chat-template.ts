/**
 * Chat templates in Jinja. Law: messages are rendered by the model's own template and nothing else; what a template
 * refuses is the caller's mistake and says so in the template's words.
 */
import { SglangError } from '../engine/errors.ts';
import type { ChatMessage, ModelCard } from '../engine/types.ts';
import { IMAGE_MARK } from '../lang/prompt.ts';
import { familyNamed, familyOf } from './families.ts';
import { parse, run } from './python-jinja.ts';
import { strftime } from './strftime.ts';
import { formOf, shownHistory } from './tools.ts';

export interface RenderOptions {
  /** Opens an assistant turn at the end. Default: true, unless the last message is continued. */
  addGenerationPrompt?: boolean;
  /** The text ends inside the last message, which the model goes on with. */
  continueFinalMessage?: boolean;
  /** Definitions of tools, in the OpenAI shape. */
  tools?: readonly unknown[];
  /** More variables of the template. */
  variables?: Readonly<Record<string, unknown>>;
}

export interface SpecialTokens {
  bosToken?: string | null;
  eosToken?: string | null;
}

/** Put after the last message to find where it ends; no tokenizer or template gives it a meaning. */
const END_MARK = '\u{F8FF}end\u{F8FF}';

/** What Jinja and transformers give every chat template. */
const builtIns: Readonly<Record<string, unknown>> = {
  ...{ true: true, false: false, none: null, True: true, False: false, None: null },
  raise_exception: (message: string) => {
    throw new Error(message);
  },
  range: (first: number, end?: number, step = 1) => {
    const [start, stop] = end === undefined ? [0, first] : [first, end];
    return Array.from({ length: Math.max(0, Math.ceil((stop - start) / step)) }, (_, i) => start + i * step);
  },
  strftime_now: (format: string) => strftime(new Date(), format),
};

/** A compiled template with the special tokens of its model. */
export class ChatTemplate {
  readonly #template: ReturnType<typeof parse>;
  readonly #tokens: { bos_token: string; eos_token: string };
  #takesParts: boolean | undefined;

  constructor(source: string, { bosToken, eosToken }: SpecialTokens = {}) {
    this.#tokens = { bos_token: bosToken ?? '', eos_token: eosToken ?? '' };
    this.#template = told('chat_template', 'chat template does not parse', () => parse(source));
  }

  /** The prompt of a conversation. */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    const { continueFinalMessage = false, addGenerationPrompt = !continueFinalMessage, tools, variables } = options;
    const given = continueFinalMessage ? withEndMark(messages) : messages;
    const text = this.#run(this.#shaped(given), {
      add_generation_prompt: addGenerationPrompt,
      tools: tools ?? null,
      ...variables,
    });
    return continueFinalMessage ? upToEndMark(text) : text;
  }

  #run(messages: readonly unknown[], variables: Record<string, unknown>): string {
    const all = { ...builtIns, ...this.#tokens, ...variables, messages };
    return told('messages', 'chat template', () => run(this.#template, all));
  }

  /** Contents as this template takes them: text, or lists of parts. */
  #shaped(messages: readonly ChatMessage[]): readonly unknown[] {
    return messages.map((message) => ({ ...message, content: this.#content(message.content) }));
  }

  #content(content: ChatMessage['content']): unknown {
    if (content === null || content === undefined) return '';
    this.#takesParts ??= this.#probeParts();
    if (!this.#takesParts) return contentText(content);
    return typeof content === 'string' ? [{ type: 'text', text: content }] : content.map(withType);
  }

  /** Whether text is lost when it is given as a string and kept when given as a part. */
  #probeParts(): boolean {
    const shows = (content: unknown) => {
      try {
        return this.#run([{ role: 'user', content }], { add_generation_prompt: false, tools: null }).includes(END_MARK);
      } catch {
        return false;
      }
    };
    return !shows(END_MARK) && shows([{ type: 'text', text: END_MARK }]);
  }
}

/** Text of a message; pictures are marks. */
function contentText(content: ChatMessage['content']): string {
  if (typeof content === 'string') return content;
  return content.map((part) => (part.type === 'text' ? part.text : IMAGE_MARK)).join('');
}

/** Templates know pictures as `image`. */
function withType(part: Exclude<ChatMessage['content'], string>[number]): unknown {
  return part.type === 'text' ? part : { ...part, type: 'image' };
}

function withEndMark(messages: readonly ChatMessage[]): ChatMessage[] {
  const last = messages.at(-1);
  if (!last)
    throw new SglangError('bad_request', 'continue_final_message: there is no message to continue', 'messages');
  const content =
    typeof last.content === 'string'
      ? last.content + END_MARK
      : [...last.content, { type: 'text' as const, text: END_MARK }];
  return [...messages.slice(0, -1), { ...last, content }];
}

function upToEndMark(text: string): string {
  const end = text.lastIndexOf(END_MARK);
  if (end >= 0) return text.slice(0, end);
  throw new SglangError(
    'bad_request',
    'continue_final_message: the chat template leaves the last message out',
    'messages',
  );
}

function told<T>(param: string, where: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw new SglangError('bad_request', `${where}: ${(error as Error).message}`, param);
  }
}

type TemplateCard = Pick<ModelCard, 'modelPath' | 'chatTemplate' | 'bosToken' | 'eosToken'>;
const compiled = new Map<string, ChatTemplate>();

/** The template of a model: the Jinja it ships, a built-in family named in its place, or the family of its path. */
export function chatTemplateOf({ modelPath, chatTemplate, bosToken, eosToken }: TemplateCard): ChatTemplate {
  const key = JSON.stringify([modelPath, chatTemplate, bosToken, eosToken]);
  let template = compiled.get(key);
  if (!template) {
    const family = chatTemplate === null ? familyOf(modelPath) : familyNamed(chatTemplate);
    const tokens = { bosToken: bosToken ?? family?.bosToken, eosToken: eosToken ?? family?.eosToken };
    template = new ChatTemplate(family?.template ?? chatTemplate!, tokens);
    compiled.set(key, template);
  }
  return template;
}

/** Renders messages with the model's template, earlier calls as it takes them. Throws `bad_request` where it refuses them. */
export function renderChat(model: TemplateCard, messages: readonly ChatMessage[], options: RenderOptions = {}): string {
  return chatTemplateOf(model).render(shownHistory(messages, formOf(model)), options);
}

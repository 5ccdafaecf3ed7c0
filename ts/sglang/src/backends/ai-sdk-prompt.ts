/**
 * Prompts of the AI SDK as turns. Law: with tools, an Engine is shown the conversation as its chat template writes calls
 * of tools; any other backend has them explained in the system turn and written as text.
 */
import type { LanguageModelV3Message, LanguageModelV3ToolResultPart } from '@ai-sdk/provider';
import { SglangError } from '../engine/errors.ts';
import type { ChatMessage, EngineLike } from '../engine/types.ts';
import { Prompt } from '../lang/prompt.ts';
import { answered, explained, forms, shownTools, written, type Calls } from '../templates/tools.ts';
import type { Backend, Content, Turn } from './backend.ts';

type Part = Exclude<LanguageModelV3Message['content'], string>[number];

/** The prompt with a turn at its end that the answer stands in: the last one, if it is the assistant's. */
export function turnsOf(prompt: readonly LanguageModelV3Message[]): Turn[] {
  const turns = prompt.map(({ role, content }): Turn => ({
    role: role === 'tool' ? 'user' : role,
    content: typeof content === 'string' ? [content] : content.map(contentOf),
    open: false,
  }));
  const last = turns.at(-1);
  if (last?.role === 'assistant') turns[turns.length - 1] = { ...last, open: true };
  else turns.push({ role: 'assistant', content: [], open: true });
  return turns;
}

/** Gives the turns for a begun answer. */
export function turnsWithTools(
  backend: Backend,
  prompt: readonly LanguageModelV3Message[],
  calls: Calls,
): (answer: string) => readonly Turn[] {
  const continued = (turns: readonly Turn[]) => (answer: string) => {
    const whole = new Prompt(turns);
    if (answer !== '') whole.append(answer);
    return whole.turns();
  };
  const ownForm = isEngine(backend) && calls.form !== forms.generic && !prompt.some(hasFiles);
  if (!ownForm) return continued(turnsOf(withExplanation(prompt, calls)));
  const { messages, variables } = shownTools(prompt.flatMap(chatMessages), calls);
  const continueFinalMessage = prompt.at(-1)?.role === 'assistant';
  const text = backend.applyChatTemplate(messages, { continueFinalMessage, variables });
  return continued([{ role: null, content: [text], open: true }]);
}

/** The token that `text` is, where the backend knows and it is one. */
export function tokenOf(backend: Backend, text: string): number | undefined {
  const ids = isEngine(backend) ? backend.tokenize(text, { addSpecialTokens: false }) : [];
  return ids.length === 1 ? ids[0] : undefined;
}

function isEngine(backend: Backend): backend is Backend & Pick<EngineLike, 'applyChatTemplate' | 'tokenize'> {
  return 'applyChatTemplate' in backend && 'tokenize' in backend;
}

function hasFiles({ content }: LanguageModelV3Message): boolean {
  return typeof content !== 'string' && content.some((part) => part.type === 'file');
}

function withExplanation(prompt: readonly LanguageModelV3Message[], { tools }: Calls): LanguageModelV3Message[] {
  const [first, ...rest] = prompt;
  const explanation = explained(tools);
  if (first?.role !== 'system') return [{ role: 'system', content: explanation }, ...prompt];
  return [{ ...first, content: `${first.content}\n\n${explanation}` }, ...rest];
}

function contentOf(part: Part, index: number): Content {
  const apart = index > 0 ? '\n' : '';
  if (part.type === 'text') return part.text;
  if (part.type === 'tool-call') return apart + written(part.toolName, JSON.stringify(part.input));
  if (part.type === 'tool-result') return apart + answered(outputText(part));
  if (part.type === 'file' && part.mediaType.startsWith('image/')) {
    const { data, mediaType } = part;
    const isUrl = typeof data !== 'string' || /^(https?|data):/.test(data);
    return { image: isUrl ? data : `data:${mediaType};base64,${data}` };
  }
  const what = part.type === 'file' ? `a file of type ${part.mediaType}` : `a part of type ${part.type}`;
  throw new SglangError('unsupported', `sglang takes text, images and tools in a prompt, not ${what}`, 'prompt');
}

function outputText({ output }: LanguageModelV3ToolResultPart): string {
  if (output.type === 'text' || output.type === 'error-text') return output.value;
  if (output.type === 'execution-denied') return output.reason ?? 'The user does not allow this call.';
  return JSON.stringify(output.value);
}

function chatMessages({ role, content }: LanguageModelV3Message): ChatMessage[] {
  if (typeof content === 'string') return [{ role, content }];
  if (role === 'tool') {
    return content.flatMap((part) =>
      part.type === 'tool-result'
        ? [{ role, content: outputText(part), tool_call_id: part.toolCallId, name: part.toolName }]
        : [],
    );
  }
  const said = content.filter((part) => part.type !== 'tool-call').map((part) => contentOf(part, 0) as string);
  const tool_calls = content.flatMap((part) =>
    part.type === 'tool-call'
      ? [
          {
            id: part.toolCallId,
            type: 'function' as const,
            function: { name: part.toolName, arguments: JSON.stringify(part.input) },
          },
        ]
      : [],
  );
  return [{ role, content: said.join(''), ...(tool_calls.length > 0 && { tool_calls }) }];
}

/**
 * Prompts of turns as text, role by role. What stands between two turns is found by rendering short conversations of
 * marks with the model's template and cutting at the marks. Laws: a whole conversation reads as the template renders
 * it; a longer prompt begins with the text of its prefix, so its KV can be reused. Where a template breaks the second
 * law (it moves or rewrites earlier turns), the second wins.
 */
import type { Content, Role, Turn } from '../backends/backend.ts';
import type { ChatMessage, ImageInput } from '../engine/types.ts';
import { IMAGE_MARK } from '../lang/prompt.ts';
import type { ChatTemplate } from './chat-template.ts';

/** Where a turn stands next to: another turn, plain text outside of any role, or an end of the prompt. */
type Side = Role | 'text' | 'start' | 'end';

/** What a template puts around the turns of one conversation. */
export interface RolePieces {
  /** Text between neighbours. */
  between(before: Side, after: Side): string;
  /** Text of a turn's content at its place: templates trim some roles, and some put white space before an answer. */
  content(role: Role, text: string, open: boolean): string;
}

export interface RenderedPrompt {
  text: string;
  /** In the order of their marks. */
  images: ImageInput[];
}

/** For prompts without roles. */
export const noPieces: RolePieces = { between: () => '', content: (_role, text) => text };

/** The prompt's text, up to the end of its last turn where that is open. */
export function renderTurns(turns: readonly Turn[], pieces: RolePieces): RenderedPrompt {
  const images: ImageInput[] = [];
  let text = '';
  let before: Side = 'start';
  for (const { role, content, open } of turns) {
    const after: Side = role ?? 'text';
    const own = content.map((piece) => contentOf(piece, images)).join('');
    text += pieces.between(before, after) + (role ? pieces.content(role, own, open) : own);
    before = after;
  }
  return { text: turns.at(-1)?.open ? text : text + pieces.between(before, 'end'), images };
}

function contentOf(piece: Content, images: ImageInput[]): string {
  if (typeof piece === 'string') return piece;
  images.push(piece.image);
  return IMAGE_MARK;
}

const derived = new WeakMap<ChatTemplate, RolePieces>();

/** The pieces of a template; found once, as they are needed. */
export function rolePieces(template: ChatTemplate): RolePieces {
  let pieces = derived.get(template);
  if (!pieces) derived.set(template, (pieces = new ProbedPieces(template)));
  return pieces;
}

/** Turns that a strict template wants before a turn of each role. */
const leadIn: Record<Role, readonly Role[]> = {
  system: [],
  user: [],
  assistant: ['user'],
  tool: ['user', 'assistant'],
};
/** Endings that a strict template may want, tried in order. */
const endings: readonly (readonly Role[])[] = [[], ['user'], ['user', 'assistant']];
/** White space that tells a template that trims from one that does not. */
const PAD = '\t\t';

class ProbedPieces implements RolePieces {
  readonly #template: ChatTemplate;
  readonly #known = new Map<string, unknown>();

  constructor(template: ChatTemplate) {
    this.#template = template;
  }

  between(before: Side, after: Side): string {
    return this.#once(`${before}>${after}`, () => {
      const joint = this.#joint(before, after) ?? this.#composed(before, after);
      const gap = after === 'assistant' ? this.#gap() : '';
      return joint.endsWith(gap) ? joint.slice(0, joint.length - gap.length) : joint;
    });
  }

  content(role: Role, text: string, open: boolean): string {
    if (role === 'assistant') return text === '' && open ? '' : /^\s/.test(text) ? text : this.#gap() + text;
    if (!this.#trims(role)) return text;
    return open ? text.trimStart() : text.trim();
  }

  /**
   * White space that the template puts before a given answer but not where it asks for one. A generated answer brings
   * its own.
   */
  #gap(): string {
    return this.#once('gap', () => {
      const given = this.#joint('user', 'assistant');
      const asked = this.#cut(['user'], true)?.at(-1);
      if (given === undefined || asked === undefined || !given.startsWith(asked)) return '';
      const rest = given.slice(asked.length);
      return rest.trim() === '' ? rest : '';
    });
  }

  /** What the template itself puts between the two, if it takes them as neighbours. */
  #joint(before: Side, after: Side): string | undefined {
    return this.#once(`joint ${before}>${after}`, () => {
      if (after === 'end') return isRole(before) ? this.#cut([...leadIn[before], before])?.at(-1) : undefined;
      if (!isRole(after) || before === 'text') return undefined;
      const lead = isRole(before) ? [...leadIn[before], before] : [];
      for (const ending of endings) {
        const joint = this.#cut([...lead, after, ...ending])?.[lead.length];
        if (joint !== undefined) return joint;
      }
      return undefined;
    });
  }

  /** Neighbours that the template does not know or refuses: the end of the one, then the beginning of the other. */
  #composed(before: Side, after: Side): string {
    const suffix = isRole(before) ? this.#suffix(before) : '';
    return suffix + (isRole(after) ? this.#prefix(after) : '');
  }

  #suffix(role: Role): string {
    const atEnd = this.#joint(role, 'end');
    if (atEnd !== undefined) return atEnd;
    const next = this.#joint(role, 'user') ?? '';
    const prefix = role === 'user' ? '' : this.#prefix('user');
    return next.endsWith(prefix) ? next.slice(0, next.length - prefix.length) : next;
  }

  /** How a turn begins that is not the first. */
  #prefix(role: Role): string {
    const previous: Role = role === 'assistant' ? 'user' : 'assistant';
    const joint = this.#joint(previous, role);
    const suffix = this.#joint(previous, 'end') ?? '';
    if (joint?.startsWith(suffix)) return joint.slice(suffix.length);
    return this.#joint('start', role) ?? '';
  }

  #trims(role: Role): boolean {
    return this.#once(`trims ${role}`, () => {
      const roles = [...leadIn[role], role];
      for (const ending of endings) {
        const text = this.#render([...roles, ...ending], false, PAD);
        if (text?.includes(mark(roles.length - 1))) return !text.includes(PAD + mark(roles.length - 1) + PAD);
      }
      return false;
    });
  }

  /** The texts before, between and after the marks; undefined where the template refuses or does not show them all. */
  #cut(roles: readonly Role[], addGenerationPrompt = false): string[] | undefined {
    const text = this.#render(roles, addGenerationPrompt);
    if (text === undefined) return undefined;
    const pieces: string[] = [];
    let from = 0;
    for (const i of roles.keys()) {
      const at = text.indexOf(mark(i), from);
      if (at < 0) return undefined;
      pieces.push(text.slice(from, at));
      from = at + mark(i).length;
    }
    return [...pieces, text.slice(from)];
  }

  #render(roles: readonly Role[], addGenerationPrompt: boolean, pad = ''): string | undefined {
    const messages: ChatMessage[] = roles.map((role, i) => ({ role, content: pad + mark(i) + pad }));
    try {
      return this.#template.render(messages, { addGenerationPrompt });
    } catch {
      return undefined;
    }
  }

  #once<T>(key: string, find: () => T): T {
    if (!this.#known.has(key)) this.#known.set(key, find());
    return this.#known.get(key) as T;
  }
}

function mark(i: number): string {
  return `QZ${i}ZQ`;
}

function isRole(side: Side): side is Role {
  return side !== 'text' && side !== 'start' && side !== 'end';
}

/**
 * A prompt as turns. Laws: turns are replaced, never changed, so a list of them that was handed out stays true; only
 * the last may be open; neighbouring texts are one text.
 */
import type { Content, Role, Turn } from '../backends/backend.ts';
import type { BlockRole, Message } from './types.ts';

/** Stands for a picture in the text of a prompt. */
export const IMAGE_MARK = '<image>';

export class Prompt {
  readonly #turns: Turn[];

  constructor(turns: readonly Turn[] = []) {
    this.#turns = [...turns];
  }

  /** Of the turn that is open. */
  get role(): Role | null {
    const last = this.#turns.at(-1);
    return last?.open ? last.role : null;
  }

  /** Adds to the open turn, or opens a plain one. */
  append(piece: Content): void {
    const last = this.#turns.at(-1);
    if (last?.open) this.#replaceLast({ ...last, content: joined(last.content, piece) });
    else this.#turns.push({ role: null, content: [piece], open: true });
  }

  /** Opens a turn; throws inside the turn of another role. */
  open(role: BlockRole): void {
    const last = this.#turns.at(-1);
    if (last?.open && last.role !== null) throw new Error(`a turn of role ${role} inside one of role ${last.role}`);
    this.close();
    this.#turns.push({ role, content: [], open: true });
  }

  /** Closes the open turn, if there is one. */
  close(): void {
    const last = this.#turns.at(-1);
    if (last?.open) this.#replaceLast({ ...last, open: false });
  }

  turns(): readonly Turn[] {
    return [...this.#turns];
  }

  /** The turns with an open one at the end, which a generation continues. */
  openTurns(): readonly Turn[] {
    const open = this.#turns.at(-1)?.open;
    return open ? this.turns() : [...this.#turns, { role: null, content: [], open: true }];
  }

  #replaceLast(turn: Turn): void {
    this.#turns[this.#turns.length - 1] = turn;
  }
}

function joined(content: readonly Content[], piece: Content): readonly Content[] {
  const last = content.at(-1);
  if (typeof last !== 'string' || typeof piece !== 'string') return [...content, piece];
  return [...content.slice(0, -1), last + piece];
}

/** A turn's content as text. */
export function contentText({ content }: Turn): string {
  return content.map((piece) => (typeof piece === 'string' ? piece : IMAGE_MARK)).join('');
}

/** The prompt without a chat template: `role: content` per line, plain text as it is. */
export function plainText(turns: readonly Turn[]): string {
  return turns
    .map((turn) => {
      const text = contentText(turn);
      return turn.role === null ? text : `${turn.role}:${text === '' ? '' : ' '}${text}${turn.open ? '' : '\n'}`;
    })
    .join('');
}

/** The turns that have a role. */
export function messagesOf(turns: readonly Turn[]): Message[] {
  return turns.flatMap((turn) => (turn.role === null ? [] : [{ role: turn.role, content: contentText(turn) }]));
}

/** What all prompts begin with. Where they part within a turn, that turn is open and holds what they share of it. */
export function commonStart([first = [], ...others]: readonly (readonly Turn[])[]): readonly Turn[] {
  return others.reduce(commonOfTwo, first);
}

function commonOfTwo(a: readonly Turn[], b: readonly Turn[]): readonly Turn[] {
  const at = a.findIndex((turn, i) => !sameTurn(turn, b[i]));
  if (at < 0) return a;
  const [x, y] = [a[at]!, b[at]];
  const content = x.role === y?.role ? commonContent(x.content, y.content) : [];
  return [...a.slice(0, at), ...(content.length > 0 ? [{ role: x.role, content, open: true }] : [])];
}

function sameTurn(a: Turn, b: Turn | undefined): boolean {
  const sameContent =
    a.content.length === b?.content.length && a.content.every((piece, i) => same(piece, b.content[i]));
  return sameContent && a.role === b.role && a.open === b.open;
}

function same(a: Content, b: Content | undefined): boolean {
  return a === b || (typeof a === 'object' && typeof b === 'object' && a.image === b.image);
}

function commonContent(a: readonly Content[], b: readonly Content[]): readonly Content[] {
  const differs = a.findIndex((piece, i) => !same(piece, b[i]));
  const at = differs < 0 ? a.length : differs;
  const [x, y] = [a[at], b[at]];
  const text = typeof x === 'string' && typeof y === 'string' ? commonText(x, y) : '';
  return text === '' ? a.slice(0, at) : [...a.slice(0, at), text];
}

/** Ends between whole characters. */
function commonText(a: string, b: string): string {
  let end = 0;
  while (end < a.length && a[end] === b[end]) end++;
  return a.slice(0, end).replace(/[\uD800-\uDBFF]$/, '');
}

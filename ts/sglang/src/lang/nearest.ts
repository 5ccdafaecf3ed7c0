/** The name that somebody who wrote another one probably meant. */
import { SglangError } from '../engine/errors.ts';

/** The one of an option's `names` that `name` was meant to be. */
export function optionMeant(name: string, names: readonly string[]): string | undefined {
  return nearest(name.replaceAll('_', ''), names);
}

/** The error about an option that there is none of; `where` begins the message. */
export function noOption(where: string, name: string, names: readonly string[]): SglangError {
  const meant = optionMeant(name, names);
  const advice = meant ? `did you mean ${meant}?` : `there are: ${names.join(', ')}`;
  return new SglangError('bad_request', `${where}: there is no option ${name}; ${advice}`, name);
}

/** The nearest of `names`, if it is at most a third of its length away. */
export function nearest(text: string, names: readonly string[]): string | undefined {
  const scored = names.map((name) => ({ name, distance: editDistance(text.toLowerCase(), name.toLowerCase()) }));
  const best = scored.sort((one, other) => one.distance - other.distance)[0];
  return best && best.distance <= best.name.length / 3 ? best.name : undefined;
}

/** Insertions, deletions and replacements from `a` to `b`, by rows (Wagner and Fischer, 1974). */
export function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      next.push(Math.min(next[j]! + 1, row[j + 1]! + 1, row[j]! + (b[j] === letter ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length]!;
}

/**
 * Where records are kept: `record/<machine>/<date>.json`, with a plot of the same name. No run overwrites the record of
 * another; trials are kept apart and not by git.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { machineSlug } from './machine.mjs';
import { renderPlot } from './plot.mjs';

const kept = new URL('./record/', import.meta.url);
const trials = new URL('./.trial/', import.meta.url);

/** The path of a new record; the second of a day is called `<date>-2.json`. */
export function recordFile({ trial, machine, date }) {
  return unused(trial ? trials : kept, machine, date.slice(0, 10), '.json');
}

/** Writes the record as far as it goes, and its plot. */
export function saveRecord(file, record) {
  writeFileSync(file, `${JSON.stringify(record, rounded, 1)}\n`);
  writeFileSync(file.replace(/json$/, 'svg'), renderPlot(record));
}

/** Keeps what a bench printed, as `<date>-<name>.txt`. */
export function saveText(machine, date, text, name = 'kernels') {
  const file = unused(kept, machine, `${date.slice(0, 10)}-${name}`, '.txt');
  writeFileSync(file, text);
  return file;
}

/** The path of a file that is not there yet. */
function unused(root, machine, name, ending) {
  const folder = new URL(`${machineSlug(machine)}/`, root);
  mkdirSync(folder, { recursive: true });
  let file = new URL(`${name}${ending}`, folder);
  for (let n = 2; existsSync(file); n++) file = new URL(`${name}-${n}${ending}`, folder);
  return fileURLToPath(file);
}

/** Digits that noise decides are left out. */
function rounded(_key, value) {
  return typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
}

export function readRecord(path) {
  return JSON.parse(readFileSync(path, 'utf8'));
}

/** The record with the latest date, of whatever machine. */
export function newestRecord() {
  const files = existsSync(kept)
    ? readdirSync(kept, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.json'))
    : [];
  if (files.length === 0) throw new Error('there is no record yet: `npm run bench` makes one');
  const records = files.map((file) => readRecord(new URL(file, kept)));
  return records.toSorted((a, b) => a.date.localeCompare(b.date)).at(-1);
}

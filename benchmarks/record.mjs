/** Where records are kept: `record/<machine>/<date>.json`. A record is never overwritten; trials are kept apart and not by git. */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { machineSlug } from './machine.mjs';

const kept = new URL('./record/', import.meta.url);
const trials = new URL('./.trial/', import.meta.url);

/** Writes the record and returns its path; the second of a day is called `<date>-2.json`. */
export function saveRecord(record) {
  const folder = new URL(`${machineSlug(record.machine)}/`, record.trial ? trials : kept);
  mkdirSync(folder, { recursive: true });
  const day = record.date.slice(0, 10);
  let file = new URL(`${day}.json`, folder);
  for (let n = 2; existsSync(file); n++) file = new URL(`${day}-${n}.json`, folder);
  writeFileSync(file, `${JSON.stringify(record, rounded, 1)}\n`);
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

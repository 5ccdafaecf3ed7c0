/** Dates in Python's notation, in English and in local time: what `strftime_now` of chat templates gives. */

const pad = (value: number, length = 2) => String(value).padStart(length, '0');
const name = (date: Date, options: Intl.DateTimeFormatOptions) => date.toLocaleDateString('en-US', options);
const dayOfYear = (date: Date) =>
  Math.round((new Date(date).setHours(12, 0, 0, 0) - new Date(date.getFullYear(), 0, 0, 12).getTime()) / 86_400_000);

const codes: Readonly<Record<string, (date: Date) => string>> = {
  '%': () => '%',
  a: (date) => name(date, { weekday: 'short' }),
  A: (date) => name(date, { weekday: 'long' }),
  b: (date) => name(date, { month: 'short' }),
  B: (date) => name(date, { month: 'long' }),
  d: (date) => pad(date.getDate()),
  H: (date) => pad(date.getHours()),
  I: (date) => pad(date.getHours() % 12 || 12),
  j: (date) => pad(dayOfYear(date), 3),
  m: (date) => pad(date.getMonth() + 1),
  M: (date) => pad(date.getMinutes()),
  p: (date) => (date.getHours() < 12 ? 'AM' : 'PM'),
  S: (date) => pad(date.getSeconds()),
  y: (date) => pad(date.getFullYear() % 100),
  Y: (date) => pad(date.getFullYear(), 4),
};

/** The date by a format; codes that are not known stay as they are. */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(.)/g, (code, letter: string) => codes[letter]?.(date) ?? code);
}

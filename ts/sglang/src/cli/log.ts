/** The server's log: JSON, one object per line, where a program reads it; one plain line per entry on a terminal. */
import { pino } from 'pino';
import type { Logger } from 'pino';

export function createLogger(level: string, stream: NodeJS.WriteStream): Logger {
  return pino(
    { level, enabled: level !== 'silent' },
    stream.isTTY ? { write: (json) => stream.write(plain(json)) } : stream,
  );
}

/** `12:34:56 info request method=GET path=/health status=200 ms=1` */
export function plain(json: string): string {
  const { level, time, msg, pid: _pid, hostname: _host, err, ...fields } = JSON.parse(json) as Record<string, unknown>;
  const clock = new Date(time as number).toISOString().slice(11, 19);
  const pairs = Object.entries(fields).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  const stack = err ? `\n${(err as { stack: string }).stack}` : '';
  return `${[clock, pino.levels.labels[level as number], msg, ...pairs].join(' ')}${stack}\n`;
}

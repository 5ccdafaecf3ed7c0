/** What a terminal shows of the log, and of a load. */
import { Writable } from 'node:stream';
import test from 'ava';
import { progressView } from '../../src/cli/load-progress.ts';
import { createLogger, plain } from '../../src/cli/log.ts';

function terminal() {
  const written: string[] = [];
  const stream = new Writable({ write: (chunk: Buffer, _encoding, done) => (written.push(chunk.toString()), done()) });
  return { written, stream: Object.assign(stream, { isTTY: true, columns: 80 }) as unknown as NodeJS.WriteStream };
}

test('a log entry is one line on a terminal', (t) => {
  const time = Date.UTC(2026, 0, 1, 12, 34, 56);
  const entry = JSON.stringify({ level: 30, time, pid: 1, hostname: 'h', method: 'GET', status: 200, msg: 'request' });
  t.is(plain(entry), '12:34:56 info request method=GET status=200\n');
  const failed = JSON.stringify({ level: 50, time, err: { stack: 'Error: x\n at y' }, msg: 'failed' });
  t.is(plain(failed), '12:34:56 error failed\nError: x\n at y\n');
});

test('a terminal gets plain lines, and levels below the chosen one are left out', (t) => {
  const { written, stream } = terminal();
  const logger = createLogger('warn', stream);
  logger.info('no');
  logger.warn('yes');
  t.is(written.length, 1);
  t.regex(written[0]!, /^\d\d:\d\d:\d\d warn yes\n$/);
});

test('a terminal gets a bar per phase, and is left as it was', (t) => {
  const { written, stream } = terminal();
  const view = progressView(stream);
  view.show({ phase: 'download', doneBytes: 1e6, totalBytes: 10e6 });
  view.show({ phase: 'load', doneBytes: 10e6, totalBytes: 10e6 });
  view.end();
  t.regex(written.join(''), /downloading.*10 MB[^]*loading/);
});

/** The bar of a batch: on a terminal up to the total, elsewhere not a byte. */
import test from 'ava';
import { FakeBackend, fn, gen } from '../../src/index.ts';

const program = fn((s, { n }: { n: number }) => s`${n}${gen('x')}`);

/** What a batch with a bar writes to standard error. */
async function written(isTTY: boolean): Promise<string> {
  const pieces: string[] = [];
  const { write } = process.stderr;
  const { isTTY: really } = process.stderr;
  process.stderr.write = (piece: string | Uint8Array) => pieces.push(String(piece)) > 0;
  process.stderr.isTTY = isTTY as true;
  try {
    await program.runBatch([{ n: 1 }, { n: 2 }, { n: 3 }], { backend: new FakeBackend(), progress: true });
  } finally {
    process.stderr.write = write;
    process.stderr.isTTY = really;
  }
  return pieces.join('');
}

test.serial('a terminal shows a bar that ends at the total', async (t) => {
  t.regex(await written(true), /3\/3/);
});

test.serial('a pipe or a file gets nothing', async (t) => {
  t.is(await written(false), '');
});

/** What is held in memory. */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Bytes in use after a collection of garbage. */
export function heldBytes(): number {
  collect();
  return process.memoryUsage().heapUsed;
}

/** Numbers up to `total`, and the bytes held between the first and the last. */
export function countedPieces(total: number) {
  let first = 0;
  const grown = { bytes: 0 };
  async function* pieces() {
    for (let i = 0; i < total; i++) {
      if (i === 1000) first = heldBytes();
      yield i;
    }
    grown.bytes = heldBytes() - first;
  }
  return { pieces: pieces(), grown };
}

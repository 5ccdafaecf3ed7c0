/**
 * Server-sent events (WHATWG HTML, 9.2.6), as far as data goes. Law: events do not depend on how bytes were cut into
 * chunks, not even within a character or a line end; an event that is not finished by an empty line is dropped.
 */

/** The `data` of each event. */
export async function* sseData(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  let data: string[] = [];
  for await (const line of linesOf(bytes)) {
    const field = /^data(?:: ?(.*))?$/s.exec(line);
    if (field) data.push(field[1] ?? '');
    if (line !== '' || data.length === 0) continue;
    yield data.join('\n');
    data = [];
  }
}

/** Lines that were ended; a CR at the end of a chunk waits for the LF that may follow. */
async function* linesOf(bytes: AsyncIterable<Uint8Array>): AsyncGenerator<string, void> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of bytes) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop()!;
    yield* lines;
  }
  yield* (rest + decoder.decode()).split(/\r\n|\n|\r/).slice(0, -1);
}

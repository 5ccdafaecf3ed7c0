/** A web handler with express: text goes out as it comes, and a client that leaves ends its generation. */
import type { AddressInfo } from 'node:net';
import express from 'express';
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const tell = fn((s, { topic }: { topic: string }) =>
  s.user(`Tell me one thing about ${topic}.`).assistant(gen('story', { maxTokens: 48 })),
);

export const app = express().get('/tell', async (request, response) => {
  const left = new AbortController();
  response.on('close', () => left.abort());
  const run = tell.run({ topic: String(request.query['topic']) }, { temperature: 0, signal: left.signal });
  response.type('text/plain');
  for await (const delta of run.textStream('story')) response.write(delta);
  response.end();
});
// #endregion program

export async function main(): Promise<void> {
  const server = app.listen(0);
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address() as AddressInfo;
  try {
    const response = await fetch(`http://127.0.0.1:${port}/tell?topic=the+sea`);
    let story = '';
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) story += piece;
    console.log(story);
  } finally {
    server.close();
  }
}

await runAsMain(import.meta.url, main);

/** Constrained decoding: the answer matches a regular expression, whatever the model would rather say. */
import { fn, gen } from 'sglang';
import { runAsMain } from '../backend.ts';

// #region program
const IP_ADDRESS = /((25[0-5]|2[0-4]\d|[01]?\d\d?)\.){3}(25[0-5]|2[0-4]\d|[01]?\d\d?)/;

export const dnsServer = fn(
  (s) =>
    s`Q: What is the IP address of the Google DNS servers?\nA: ${gen('answer', { temperature: 0, regex: IP_ADDRESS })}`,
);
// #endregion program

async function main(): Promise<void> {
  console.log((await dnsServer.run()).vars.answer);
}

await runAsMain(import.meta.url, main);

/** Typed extraction: one zod schema is the grammar of the output, the check of its value and the type of the variable. */
import { fn, gen } from 'sglang';
import { z } from 'zod';
import { runAsMain } from '../backend.ts';

// #region program
const Event = z.object({
  day: z.enum(['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']),
  hour: z.int().min(0).max(23),
  place: z.enum(['library', 'school', 'park', 'town hall']),
});

export const extractEvent = fn((s, { mail }: { mail: string }) =>
  s
    .user(`Mail: ${mail}\nGive the day, the hour and the place of the event as JSON.`)
    .assistant(gen('event', { schema: Event, maxTokens: 64 })),
);
// #endregion program

export async function main(): Promise<void> {
  const mail = 'The reading group meets on Friday at 18 o’clock in the library.';
  const { event } = (await extractEvent.run({ mail }, { temperature: 0 })).vars;
  console.log(`${event.day}, ${event.hour}:00, ${event.place}`);
}

await runAsMain(import.meta.url, main);

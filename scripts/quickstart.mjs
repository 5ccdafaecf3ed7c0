/** `npm run quickstart`: sets everything up, then runs the README's program in process and against a server. */
import { setUp, step, run } from './setup.mjs';

try {
  await setUp();
  await step('the README, run', () => run('node', ['--import=tsx', 'examples/quick_start/tour.ts']));
} catch (error) {
  console.error(`\nquickstart failed: ${error.message}`);
  process.exit(1);
}

#!/usr/bin/env node
/** The `sglang` command: hands the arguments to `runCommand` and its answer to the shell. */
import { runCommand } from './commands.ts';

void runCommand(process.argv.slice(2)).then((code) => {
  process.exitCode = code;
});

#!/usr/bin/env node
// A file of its own, since npm links commands before anything is built.
import '../dist/cli.js';

/** Keeps the design: which folder may import which, and that the language runs anywhere (no `node:` modules). */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';

const src = path.join(path.dirname(fileURLToPath(import.meta.url)), '../src');

/** Folders whose modules each folder may import, besides its own. Types may be imported from anywhere. */
const edges: Record<string, string[]> = {
  lang: ['engine/errors.ts'],
  templates: ['lang', 'engine/errors.ts'],
  backends: ['templates', 'engine/errors.ts', 'engine/token-text.ts', 'lang'],
  trace: ['lang'],
  testing: ['backends', 'engine/errors.ts', 'lang'],
  models: ['engine/errors.ts', 'lang/abort.ts', 'lang/nearest.ts'],
  engine: ['backends', 'lang/abort.ts', 'lang/nearest.ts', 'models', 'templates'],
  server: [
    'engine/embedding.ts',
    'engine/errors.ts',
    'engine/image-file.ts',
    'engine/scoring.ts',
    'engine/token-text.ts',
    'models',
    'templates',
  ],
  cli: ['backends', 'engine', 'lang', 'models', 'server', 'trace'],
  'index.ts': ['backends', 'cli/progress.ts', 'engine', 'lang', 'trace'],
};

const files = readdirSync(src, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));

/** Modules that a file imports for more than their types. */
function importsOf(text: string): string[] {
  const statements = text.matchAll(/^(?:import|export)\s+(?!type\b)[^;]*?from\s+'([^']+)'|import\('([^']+)'\)/gm);
  return [...statements].map(([, from, dynamic]) => (from ?? dynamic)!);
}

test('folders import only what lies below them', (t) => {
  for (const file of files) {
    const folder = file.split(path.sep)[0]!;
    for (const imported of importsOf(readFileSync(path.join(src, file), 'utf8')).filter((name) =>
      name.startsWith('.'),
    )) {
      const target = path.relative(src, path.resolve(src, path.dirname(file), imported)).replaceAll(path.sep, '/');
      const own = target.startsWith(`${folder}/`) || target.startsWith('../');
      const allowed = (edges[folder] ?? []).some((edge) => target === edge || target.startsWith(`${edge}/`));
      t.true(own || allowed, `${file} may not import ${target}`);
    }
  }
});

test('the language, the templates and the server-less backends use no node modules', (t) => {
  const pure = files.filter((file) => /^(lang|templates)\//.test(file.replaceAll(path.sep, '/')));
  t.true(pure.length > 5);
  for (const file of pure) {
    const nodes = importsOf(readFileSync(path.join(src, file), 'utf8')).filter((name) => name.startsWith('node:'));
    t.deepEqual(nodes, [], file);
  }
});

test('only native.ts imports the addon, and files begin with their law', (t) => {
  for (const file of files) {
    const text = readFileSync(path.join(src, file), 'utf8');
    t.true(text.startsWith('/**') || text.startsWith('#!'), `${file} does not begin with a module comment`);
    t.true(text.split('\n').length <= 600, `${file} is longer than 600 lines`);
    if (!file.endsWith('native.ts')) t.false(text.includes('bindings-node'), `${file} names the addon`);
  }
});

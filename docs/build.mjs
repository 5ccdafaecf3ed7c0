/**
 * Builds the site: the API's reference, then the pages. Fails where a link is dead, where a page shows a region that no
 * example has, and where the reference has warnings.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const docs = path.dirname(fileURLToPath(import.meta.url));
const start = (...args) => execFileSync('npx', args, { cwd: docs, stdio: 'inherit' });

/** Snippets, `<<< @/path#region`, that would show nothing, or a whole file in place of a region. */
function brokenSnippets() {
  const pages = [...readdirSync(docs), ...readdirSync(path.join(docs, 'guide')).map((name) => `guide/${name}`)];
  return pages
    .filter((name) => name.endsWith('.md'))
    .flatMap((page) =>
      [...readFileSync(path.join(docs, page), 'utf8').matchAll(/^<<< @\/([^#\s{]+)(?:#(\w+))?/gm)]
        .filter(([, file, region]) => !hasRegion(path.join(docs, file), region))
        .map(([snippet]) => `${page}: ${snippet}`),
    );
}

function hasRegion(file, region) {
  return existsSync(file) && (!region || readFileSync(file, 'utf8').includes(`// #region ${region}\n`));
}

const broken = brokenSnippets();
if (broken.length > 0) {
  console.error(`there is no such code:\n  ${broken.join('\n  ')}`);
  process.exit(1);
}
start('typedoc', '--treatWarningsAsErrors', '--logLevel', 'Warn');
start('vitepress', 'build');

/** npm packages of peers, each peer's in a folder of its own in the cache, so that no user of this repository installs them. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { inCache } from './cache.mjs';
import { setUpWith } from './programs.mjs';

const always = ['--ignore-scripts', '--save-exact', '--no-audit', '--no-fund'];

/**
 * Installs what the peer needs and does not have yet.
 * @param {string} peer
 * @param {Record<string, string>} packages  names and exact versions
 * @param {string[]} [flags]                 more of them for npm
 */
export async function installPackages(peer, packages, flags = []) {
  const missing = Object.entries(packages).filter(([name, version]) => installedVersion(peer, name) !== version);
  if (missing.length === 0) return;
  const folder = inCache(peer);
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
  const wanted = Object.entries(packages).map((entry) => entry.join('@'));
  await setUpWith(`installing ${wanted.join(' ')}`, 'npm', ['install', ...always, ...flags, ...wanted], {
    cwd: folder,
  });
}

/** What a file of an installed package exports. */
export function importPackage(peer, file) {
  return import(pathToFileURL(inCache(peer, 'node_modules', file)).href);
}

function installedVersion(peer, name) {
  const manifest = inCache(peer, 'node_modules', name, 'package.json');
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, 'utf8')).version : undefined;
}

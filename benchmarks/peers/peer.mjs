/**
 * What an engine to be measured offers: its module exports `name`, `packages`, `notes` and `load`. Law: where there is a
 * choice, a rival gets the cheaper way, and the record says which.
 *
 * @typedef {object} LoadOptions
 * @property {number} threads
 * @property {number} streams        most generations at a time
 * @property {number} contextLength  tokens of the longest sequence, prompt and output
 *
 * @typedef {object} Peer
 * @property {string} version
 * @property {string} device  what it computes with
 * @property {(request: { prompt: string, maxTokens: number, onToken: () => void }) => Promise<import('../workloads.mjs').Answer>} generate
 *   greedy, exactly `maxTokens` tokens, EOS ignored; calls `onToken` when a token reaches JavaScript
 * @property {() => Promise<unknown>} close
 *
 * @typedef {object} PeerModule
 * @property {string} name
 * @property {Record<string, string>} packages  npm packages and their exact versions
 * @property {string[]} notes                   for the record: how it was made to do the same work
 * @property {(modelPath: string, options: LoadOptions) => Promise<Peer>} load
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';

const here = new URL('./', import.meta.url);
/** Packages of peers live apart from the workspace, so that no user of this repository installs them. */
const folder = new URL('../.peers/', import.meta.url);

/** Names of all peers. */
export function peerNames() {
  const files = readdirSync(here).filter((file) => file.endsWith('.mjs') && file !== 'peer.mjs');
  return files.map((file) => file.slice(0, -'.mjs'.length));
}

/**
 * @param {string} name
 * @returns {Promise<PeerModule>}
 */
export async function peerModule(name) {
  if (!peerNames().includes(name)) throw new Error(`no peer is called "${name}"; there are ${peerNames().join(', ')}`);
  return import(new URL(`${name}.mjs`, here).href);
}

/**
 * Installs what the peer needs and does not have yet.
 * @param {PeerModule} peer
 */
export function install({ name, packages }) {
  const missing = Object.entries(packages).filter(([each, version]) => installedVersion(each) !== version);
  if (missing.length === 0) return;
  mkdirSync(folder, { recursive: true });
  const manifest = new URL('package.json', folder);
  if (!existsSync(manifest)) writeFileSync(manifest, '{ "private": true }\n');
  const wanted = Object.entries(packages).map((entry) => entry.join('@'));
  const flags = ['--ignore-scripts', '--omit=optional', '--save-exact', '--no-audit', '--no-fund'];
  console.log(`installing ${name}: ${wanted.join(' ')}`);
  execFileSync('npm', ['install', ...flags, ...wanted, '--prefix', '.'], { cwd: folder, stdio: 'inherit' });
}

function installedVersion(name) {
  const manifest = new URL(`node_modules/${name}/package.json`, folder);
  return existsSync(manifest) ? JSON.parse(readFileSync(manifest, 'utf8')).version : undefined;
}

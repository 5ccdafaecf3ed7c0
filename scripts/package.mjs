/**
 * `npm run package`: makes the tarballs that npm publishes, in `packages/`: `sglang`, and the package of this platform
 * with the addon in it. `sglang` names the packages of all platforms as optional dependencies; npm installs the one
 * that fits. Another platform may be named, whose addon is built before (`npm run build:native -- --target …`).
 */
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { buildAddon, buildTypeScript, platformName, root, run, step } from './setup.mjs';

const out = path.join(root, 'packages');
const source = JSON.parse(readFileSync(path.join(root, 'ts/sglang/package.json'), 'utf8'));
const MAX_BINARY_BYTES = 30e6;

/** What npm must know of a platform to choose its package. */
const platforms = {
  'linux-x64-gnu': { os: ['linux'], cpu: ['x64'], libc: ['glibc'] },
  'linux-x64-musl': { os: ['linux'], cpu: ['x64'], libc: ['musl'] },
  'linux-arm64-gnu': { os: ['linux'], cpu: ['arm64'], libc: ['glibc'] },
  'darwin-arm64': { os: ['darwin'], cpu: ['arm64'] },
  'darwin-x64': { os: ['darwin'], cpu: ['x64'] },
  'win32-x64-msvc': { os: ['win32'], cpu: ['x64'] },
};

const shared = { version: source.version, license: source.license, engines: source.engines };

async function pack(folder, manifest) {
  cpSync(path.join(root, 'LICENSE'), path.join(folder, 'LICENSE'));
  writeFileSync(path.join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  await run('npm', ['pack', '--silent', '--pack-destination', out], { cwd: folder });
}

async function packPlatform(name) {
  const folder = path.join(out, `sglang-${name}`);
  const binary = `sglang.${name}.node`;
  mkdirSync(folder, { recursive: true });
  cpSync(path.join(root, 'bindings-node', binary), path.join(folder, binary));
  const { size } = statSync(path.join(folder, binary));
  console.log(`   ${binary}: ${(size / 1e6).toFixed(1)} MB`);
  if (size > MAX_BINARY_BYTES) throw new Error(`${binary} has ${size} bytes; at most ${MAX_BINARY_BYTES} are allowed`);
  const description = `The native part of sglang for ${name}.`;
  await pack(folder, {
    name: `sglang-${name}`,
    description,
    ...shared,
    ...platforms[name],
    main: binary,
    files: [binary, 'LICENSE'],
  });
}

async function packMain() {
  const folder = path.join(out, 'sglang');
  mkdirSync(folder, { recursive: true });
  for (const name of ['bin', 'dist']) {
    cpSync(path.join(root, 'ts/sglang', name), path.join(folder, name), { recursive: true });
  }
  cpSync(path.join(root, 'README.md'), path.join(folder, 'README.md'));
  const { devDependencies, scripts, ava, ...manifest } = source;
  const optionalDependencies = Object.fromEntries(
    Object.keys(platforms).map((name) => [`sglang-${name}`, source.version]),
  );
  await pack(folder, { ...manifest, optionalDependencies });
}

const platform = process.argv[2] ?? platformName();
if (!(platform in platforms)) {
  throw new Error(`no platform is called "${platform}"; there are ${Object.keys(platforms).join(', ')}`);
}
if (platform === platformName()) await step('the addon', buildAddon);
await step('the TypeScript package', buildTypeScript);
rmSync(out, { recursive: true, force: true });
await step('tarballs', async () => {
  await packPlatform(platform);
  await packMain();
});

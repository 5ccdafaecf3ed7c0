/**
 * Installs the tarballs of `npm run package` into an empty folder, as a user without Rust would, and uses them: the
 * README's program and the AI SDK's provider, each as an ES module and as CommonJS, a program in TypeScript by
 * `npx sglang run`, and `npx sglang serve`.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { defaultModel, root, run } from './setup.mjs';

const program = `
const state = await multiTurn.run({ q1: 'What is the capital of the United States?', q2: 'List two local attractions.' });
const roles = state.messages().map((message) => message.role).join(' ');
if (roles !== 'system user assistant user assistant') throw new Error('unexpected roles: ' + roles);
if (!state.vars.answer1 || !state.vars.answer2) throw new Error('an answer is empty');
console.log(state.vars.answer1);
await engine.close();
`;
const definitions = `
const engine = await Engine.create({ modelPath: '${defaultModel}' });
setDefaultBackend(engine);
const multiTurn = fn((s, q) =>
  s.system\`You are a helpful assistant.\`
    .user(q.q1).assistant(gen('answer1', { maxTokens: 32, temperature: 0 }))
    .user(q.q2).assistant(gen('answer2', { maxTokens: 32, temperature: 0 })));
`;
/** Loaded by the command itself: nothing that reads TypeScript is installed. */
const typescript = `
import { fn, gen } from 'sglang';
import { FakeBackend } from 'sglang/testing';

export const backend = new FakeBackend({ replies: [['capital', ' Paris']] });
export const capital = fn((s, { of = 'France' }: { of?: string }) => s\`The capital of \${of} is\${gen('capital')}\`);
`;
const names = '{ fn, gen, setDefaultBackend, Engine }';

/** The provider answers for a fake backend. Its types need a package that is not installed here, its code does not. */
const aiSdk = `
const model = createSglang(new FakeBackend({ replies: [['hi', 'hello']] }))('m');
const prompt = [{ role: 'user', content: [{ type: 'text', text: 'hi' }] }];
model.doGenerate({ prompt }).then(({ content: [{ text }] }) => {
  if (text !== 'hello') throw new Error('unexpected answer: ' + text);
});
`;

/** PATH without any folder that has cargo in it. */
function pathWithoutRust() {
  const hasRust = (folder) => {
    try {
      return readdirSync(folder).some((file) => /^(cargo|rustc)(\.exe)?$/.test(file));
    } catch {
      return false;
    }
  };
  return process.env.PATH.split(path.delimiter)
    .filter((folder) => !hasRust(folder))
    .join(path.delimiter);
}

/** Starts the server, asks it for a completion, and stops it. */
async function serveOnce(cwd, env) {
  const port = String(30000 + Math.floor(Math.random() * 20000));
  const server = spawn('npx', ['sglang', 'serve', '--model-path', defaultModel, '--port', port], {
    cwd,
    env,
    stdio: 'inherit',
    detached: true,
  });
  const exited = new Promise((resolve) => server.on('close', resolve));
  try {
    const answer = await askUntilReady(`http://127.0.0.1:${port}/v1/completions`, exited);
    if (typeof answer.choices?.[0]?.text !== 'string') throw new Error(`unexpected answer: ${JSON.stringify(answer)}`);
    console.log(`served: ${JSON.stringify(answer.choices[0].text)}`);
  } finally {
    process.kill(-server.pid, 'SIGTERM');
    await exited;
  }
}

async function askUntilReady(url, exited) {
  let gone = false;
  exited.then(() => (gone = true));
  const body = JSON.stringify({ prompt: 'Say this is a test', max_tokens: 16, temperature: 0 });
  for (let attempt = 0; attempt < 300 && !gone; attempt++) {
    const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body }).catch(
      () => null,
    );
    if (response) return response.json();
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(gone ? 'the server ended before it answered' : 'the server did not answer within a minute');
}

const folder = mkdtempSync(path.join(tmpdir(), 'sglang-package-'));
try {
  await run('node', ['scripts/package.mjs']);
  const tarballs = readdirSync(path.join(root, 'packages')).filter((file) => file.endsWith('.tgz'));
  writeFileSync(path.join(folder, 'package.json'), '{ "private": true }\n');
  const env = { PATH: pathWithoutRust() };
  await run(
    'npm',
    ['install', '--no-audit', '--no-fund', ...tarballs.map((file) => path.join(root, 'packages', file))],
    { cwd: folder, env },
  );
  writeFileSync(path.join(folder, 'program.mjs'), `import ${names} from 'sglang';\n${definitions}${program}`);
  writeFileSync(
    path.join(folder, 'program.cjs'),
    `const ${names} = require('sglang');\n(async () => {${definitions}${program}})();\n`,
  );
  writeFileSync(
    path.join(folder, 'ai-sdk.mjs'),
    `import { createSglang } from 'sglang/ai-sdk';\nimport { FakeBackend } from 'sglang';\n${aiSdk}`,
  );
  writeFileSync(
    path.join(folder, 'ai-sdk.cjs'),
    `const { createSglang } = require('sglang/ai-sdk');\nconst { FakeBackend } = require('sglang');\n${aiSdk}`,
  );
  for (const file of ['ai-sdk.mjs', 'ai-sdk.cjs']) await run('node', [file], { cwd: folder, env });
  await run('node', ['program.mjs'], { cwd: folder, env });
  await run('node', ['program.cjs'], { cwd: folder, env });
  writeFileSync(path.join(folder, 'capital.ts'), typescript);
  await run('npx', ['sglang', 'run', 'capital.ts'], { cwd: folder, env });
  await serveOnce(folder, { ...process.env, ...env });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

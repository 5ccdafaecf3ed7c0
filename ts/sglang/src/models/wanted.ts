/** Which files of a repository make the model that was asked for. */
import { SglangError } from '../engine/errors.ts';
import type { HubId } from './hub.ts';

interface Named {
  readonly path: string;
}

/** What is fetched. Where `main` is set it is the model (of a split file, the first part); else the folder is. */
export interface Wanted<F> {
  readonly files: readonly F[];
  readonly main?: string;
  /** The vision tower of a GGUF file, where it is one of its own. */
  readonly tower?: string;
}

/** The files a model is read from, the same without a vision tower beside it, or only those its tokenizer is read from. */
export type Part = 'model' | 'language' | 'tokenizer';

/**
 * The file that was named, or the GGUF file of the quantization that was; else weights in safetensors or PyTorch's
 * format with all small texts; else the only GGUF file. A split file counts as one. With a GGUF file comes its vision
 * tower, where the repository has just one.
 */
export function wanted<F extends Named>(files: readonly F[], { repo, file }: HubId, part: Part): Wanted<F> {
  const tower = part === 'model' ? towerOf(files) : undefined;
  if (file !== undefined) return namedFile(files, repo, file, tower);
  const top = files.filter(({ path }) => !path.includes('/'));
  const isText = ({ path }: F) => /^([^/]*\.(json|jinja|model)|merges\.txt|1_Pooling\/config\.json)$/.test(path);
  const texts = files.filter(isText);
  if (part === 'tokenizer' && texts.some(({ path }) => isTokenizer(path))) return { files: texts };
  const weights = weightsOf(top);
  if (weights.length > 0) return { files: [...texts, ...weights] };
  const models = splitFiles(ggufsOf(files));
  if (models.length === 1) return whole(models[0]!, tower);
  if (models.length > 1) throw several(repo, models.flat());
  throw notInRepository(`${repo} has no safetensors, PyTorch or GGUF files, only`, files);
}

/** Whether nothing that belongs to a model is missing, as far as names tell: parts of split files, the configuration. */
export function isComplete({ files, main }: Wanted<Named>, part: Part): boolean {
  const names = new Set(files.map(({ path }) => path));
  const hasSiblings = (path: string) => {
    const [, start, n, end] = /^(.*-)\d{5}-of-(\d{5})(\.\w+)$/.exec(path) ?? [];
    if (n === undefined) return true;
    const nth = (i: number) => `${start}${String(i + 1).padStart(5, '0')}-of-${n}${end}`;
    return Array.from({ length: Number(n) }, (_, i) => nth(i)).every((sibling) => names.has(sibling));
  };
  if (part === 'tokenizer') return main !== undefined || [...names].some(isTokenizer);
  return (main !== undefined || names.has('config.json')) && [...names].every(hasSiblings);
}

const isTokenizer = (path: string) => /^tokenizer\.(json|model)$/.test(path);

/** Weights in the standard names, else in any but those that hold the same once more. */
function weightsOf<F extends Named>(top: readonly F[]): F[] {
  const matching = (pattern: RegExp) => top.filter(({ path }) => pattern.test(path));
  const found = [/^model(-\d+-of-\d+)?\.safetensors$/, /^(?!consolidated).*\.safetensors$/]
    .concat(/^(pytorch_model.*|mm_projector)\.bin$/)
    .map(matching);
  return found.find((weights) => weights.length > 0) ?? [];
}

const isTower = ({ path }: Named) => /(^|[-_./])mmproj[^/]*\.gguf$/i.test(path);

/** The vision tower beside the GGUF file of a language model, where it is the only one. */
export function towerOf<F extends Named>(files: readonly F[]): F | undefined {
  const towers = weightsOf(files).length === 0 ? files.filter(isTower) : [];
  return towers.length === 1 ? towers[0] : undefined;
}

/** GGUF files of language models. */
function ggufsOf<F extends Named>(files: readonly F[]): F[] {
  return files.filter((file) => file.path.endsWith('.gguf') && !isTower(file));
}

/** Parts of one split file together, in order. */
function splitFiles<F extends Named>(files: readonly F[]): F[][] {
  const groups = new Map<string, F[]>();
  for (const file of files) {
    const name = file.path.replace(/-\d{5}-of-(\d{5}\.gguf)$/, '-$1');
    groups.set(
      name,
      [...(groups.get(name) ?? []), file].sort((a, b) => (a.path < b.path ? -1 : 1)),
    );
  }
  return [...groups.values()];
}

function namedFile<F extends Named>(files: readonly F[], repo: string, file: string, tower?: F): Wanted<F> {
  const exact = files.filter(({ path }) => path === file);
  if (exact.length === 1) return whole(exact, isTower(exact[0]!) ? undefined : tower);
  const quantized = new RegExp(`(^|[-._/])${file.replaceAll(/\W/g, '\\$&')}([-.][^/]*)?\\.gguf$`, 'i');
  const models = splitFiles(ggufsOf(files).filter(({ path }) => quantized.test(path)));
  if (models.length === 1) return whole(models[0]!, tower);
  if (models.length > 1) throw several(repo, models.flat());
  throw notInRepository(`${repo} has no file "${file}"; it has`, files);
}

function whole<F extends Named>(parts: readonly F[], tower?: F): Wanted<F> {
  return { files: tower ? [...parts, tower] : parts, main: parts[0]!.path, tower: tower?.path };
}

function several(repo: string, files: readonly Named[]): SglangError {
  return notInRepository(`${repo} has several GGUF files; name one as ${repo}:<file or quantization>:`, files);
}

function notInRepository(problem: string, files: readonly Named[]): SglangError {
  return new SglangError('model_not_found', `${problem} ${files.map(({ path }) => path).join(', ')}`, 'model_path');
}

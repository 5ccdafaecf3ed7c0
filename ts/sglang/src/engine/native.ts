/**
 * The addon: the only place that imports it. The platform package that npm installed is preferred, then a build in a
 * clone of the repository.
 */
import { createRequire } from 'node:module';
import type {
  NativeEngine,
  NativeEvent,
  NativeGrammars,
  NativeLoadOptions,
  NativeProgress,
} from '../../../../bindings-node/native.d.ts';
import { SglangError } from './errors.ts';

export type * from '../../../../bindings-node/native.d.ts';

export interface Addon {
  load(
    options: NativeLoadOptions,
    onProgress: (progress: NativeProgress) => void,
    onEvents: (events: NativeEvent[]) => void,
  ): Promise<NativeEngine>;
  NativeGrammars: typeof NativeGrammars;
}

/** Platforms that a package with a prebuilt addon exists for. */
export const platforms = [
  'linux-x64-gnu',
  'linux-arm64-gnu',
  'linux-x64-musl',
  'darwin-arm64',
  'darwin-x64',
  'win32-x64-msvc',
] as const;

/** The name of this platform in package names, e.g. `linux-x64-gnu`. */
export function platformName(): string {
  const { platform, arch } = process;
  if (platform === 'linux') return `linux-${arch}-${isMusl() ? 'musl' : 'gnu'}`;
  return platform === 'win32' ? `win32-${arch}-msvc` : `${platform}-${arch}`;
}

function isMusl(): boolean {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined;
  return report?.header?.glibcVersionRuntime === undefined;
}

/** An error of the addon about a value of a wrong type, in the words of JavaScript; any other one as it is. */
export function inWords(error: unknown): unknown {
  const { message, code = '' } = error as { message: string; code?: string };
  const field = /into rust type `.*` on \w+\.(\w+)$/.exec(message)?.[1];
  if (!field) return error;
  const expected = code.replace('Expected', '').toLowerCase();
  return new SglangError('bad_request', `${field}: expected a value of type ${expected}`, field);
}

/** Loads a model. What fails is a `SglangError`. */
export async function load(...args: Parameters<Addon['load']>): Promise<NativeEngine> {
  try {
    return await addon().load(...args);
  } catch (error) {
    const told = inWords(error);
    throw told instanceof SglangError ? told : new SglangError('load_failed', (told as Error).message);
  }
}

let loaded: Addon | undefined;

/** Loads the addon once; where there is none, the error says which platforms have one. */
export function addon(): Addon {
  loaded ??= findAddon();
  return loaded;
}

function findAddon(): Addon {
  const load = createRequire(import.meta.url);
  const name = platformName();
  // A source file lies in src/engine, a built one in dist: the clone's own build is four or three folders up.
  const local = ['../../..', '../../../..'].map((up) => `${up}/bindings-node/sglang.${name}.node`);
  const failures: string[] = [];
  for (const place of [`sglang-${name}`, ...local]) {
    try {
      return load(place) as Addon;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') failures.push(`${place}: ${String(error)}`);
    }
  }
  throw new SglangError(
    'load_failed',
    `No sglang addon for ${name}. Prebuilt packages exist for: ${platforms.join(', ')}. ` +
      `Install the optional dependency sglang-${name} (npm leaves it out with --omit=optional), or, in a clone of the ` +
      `repository, run "npm run build:native".${failures.length > 0 ? ` Tried: ${failures.join('; ')}` : ''}`,
  );
}

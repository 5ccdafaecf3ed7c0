/**
 * A model in the hub's cache, as Python's `huggingface_hub` lays it out, so that both share it: `blobs/<hash>` is
 * content, `snapshots/<commit>/<path>` links to it, `refs/<revision>` names a commit. Law: a link is made once its
 * content is complete and checked.
 */
import { link, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import { hasSize } from './download.ts';
import type { HubFile } from './hub.ts';

const commitName = /^[0-9a-f]{40}$/;

export class Repository {
  private readonly root: string;

  constructor(cache: string, repo: string) {
    this.root = join(cache, `models--${repo.replace('/', '--')}`);
  }

  /** The commit that the revision stood for when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (commitName.test(revision)) return revision;
    const commit = await readFile(join(this.root, 'refs', revision), 'utf8').catch(() => '');
    return commitName.test(commit.trim()) ? commit.trim() : undefined;
  }

  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const ref = join(this.root, 'refs', revision);
    await mkdir(dirname(ref), { recursive: true });
    await writeFile(ref, commit);
  }

  snapshot(commit: string): string {
    return join(this.root, 'snapshots', commit);
  }

  /** Where the content belongs. */
  blob({ digest }: HubFile): string {
    return join(this.root, 'blobs', digest.hex);
  }

  /** Whether the snapshot has the file; it may lie there without a link, where links are not to be had. */
  has(commit: string, file: HubFile): Promise<boolean> {
    return hasSize(join(this.snapshot(commit), file.path), file.bytes);
  }

  /** Puts a file whose content is complete into the snapshot. */
  async add(commit: string, file: HubFile): Promise<void> {
    const path = join(this.snapshot(commit), file.path);
    await mkdir(dirname(path), { recursive: true });
    const blob = this.blob(file);
    try {
      await symlink(relative(dirname(path), blob), path);
    } catch (error) {
      if (await hasSize(path, file.bytes)) return;
      if ((error as NodeJS.ErrnoException).code !== 'EPERM') throw error;
      await link(blob, path); // Windows, to those who may not make symbolic links.
    }
  }

  /** Paths of files within the snapshot, with `/` between their steps. */
  async paths(commit: string): Promise<string[]> {
    const paths = await readdir(this.snapshot(commit), { recursive: true }).catch(() => []);
    const all = paths.map((path) => path.replaceAll(sep, '/')).sort();
    return all.filter((path) => !all.some((other) => other.startsWith(`${path}/`)));
  }
}

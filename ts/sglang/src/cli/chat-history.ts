/** The lines typed into chats, kept for the arrow keys of the next one. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { cacheFolder } from '../models/cache.ts';

export interface ChatHistory {
  /** Newest first. */
  lines: string[];
  save(lines: string[]): void;
}

/** In the cache folder; where it cannot be read or written, a chat starts without. */
export function chatHistory(env: NodeJS.ProcessEnv): ChatHistory {
  const file = path.join(cacheFolder(env), 'chat-history');
  return {
    lines: read(file),
    save: (lines) => {
      try {
        mkdirSync(path.dirname(file), { recursive: true });
        writeFileSync(file, lines.join('\n'), { mode: 0o600 });
      } catch {
        // A chat goes on without its history.
      }
    },
  };
}

function read(file: string): string[] {
  try {
    return readFileSync(file, 'utf8').split('\n').filter(Boolean);
  } catch {
    return [];
  }
}

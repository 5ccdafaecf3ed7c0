/** How far something long has come: a bar on a terminal, a line now and then elsewhere, nothing for what is done at once. */
import { SingleBar, Presets } from 'cli-progress';

export interface Progress {
  phase: string;
  doneBytes: number;
  totalBytes: number;
}

export interface ProgressView {
  show(progress: Progress): void;
  /** Leaves the terminal as it should be for what follows. */
  end(): void;
}

const verbs: Record<string, string> = { download: 'downloading', load: 'loading' };

export function progressView(stream: NodeJS.WriteStream): ProgressView {
  return stream.isTTY ? bar(stream) : lines(stream);
}

function label(phase: string): string {
  return verbs[phase] ?? phase;
}

const megabytes = (bytes: number) => Math.round(bytes / 1e6);

function bar(stream: NodeJS.WriteStream): ProgressView {
  const format = '{phase} [{bar}] {value}/{total} MB';
  let phase: string | undefined;
  const view = new SingleBar(
    { stream, format, clearOnComplete: true, hideCursor: true, noTTYOutput: false },
    Presets.legacy,
  );
  return {
    show(progress) {
      if (progress.phase !== phase) {
        if (phase !== undefined) view.stop();
        phase = progress.phase;
        view.start(megabytes(progress.totalBytes), 0, { phase: label(phase) });
      }
      view.update(megabytes(progress.doneBytes));
    },
    end: () => view.stop(),
  };
}

/** At the start of a phase and at each quarter of it. */
function lines(stream: NodeJS.WriteStream): ProgressView {
  let told = '';
  return {
    show({ phase, doneBytes, totalBytes }) {
      const quarter = totalBytes > 0 ? Math.floor((doneBytes / totalBytes) * 4) * 25 : 0;
      const line = `${label(phase)}: ${quarter} % of ${megabytes(totalBytes)} MB\n`;
      if (line !== told) stream.write(line);
      told = line;
    },
    end() {},
  };
}

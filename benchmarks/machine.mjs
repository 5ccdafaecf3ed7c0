/** What a measurement depends on besides the code: the CPU, and how much of it others used meanwhile. */
import { readFileSync } from 'node:fs';
import os from 'node:os';

/** Extensions that decide the speed of a model on a CPU. */
const TELLING_FLAG = /^(avx|fma|f16c|amx|asimd|i8mm|bf16|sve)/;

/** Columns of a line of /proc/stat: the time of guests is contained in `user`. See proc(5). */
const STAT_COLUMNS = ['user', 'nice', 'system', 'idle', 'iowait', 'irq', 'softirq', 'steal'];
const RESTING = ['idle', 'iowait'];

/** CPU model, flags and sizes; nothing that names the machine or its owner. */
export function describeMachine() {
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() || os.arch(),
    cores: cpus.length,
    flags: cpuFlags(readIfThere('/proc/cpuinfo') ?? ''),
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.platform()} ${os.arch()}`,
  };
}

/** Telling flags of the first CPU in the text of /proc/cpuinfo, sorted. */
export function cpuFlags(cpuinfo) {
  const line = cpuinfo.match(/^(?:flags|Features)\s*:(.*)$/m)?.[1] ?? '';
  return line
    .split(/\s+/)
    .filter((flag) => TELLING_FLAG.test(flag))
    .sort();
}

/** A folder name for records: `amd-epyc-9b14-2-cores`. */
export function machineSlug({ cpu, cores }) {
  const words = cpu.replace(/\((?:R|TM)\)|\bprocessor\b|\bcpu\b|@.*$|\d+-core/gi, ' ').toLowerCase();
  return `${words} ${cores} cores`.replace(/[^a-z0-9]+/g, '-').replace(/^-/, '');
}

/**
 * Starts watching; `shareOfOthers()` is then a number in [0, 1], or null where the system has no /proc.
 * @param {number} [pid]  another process that works for this one and is not its child that has ended
 */
export function watchCpu(pid) {
  const before = usage(pid);
  return { shareOfOthers: () => shareOfOthers(before, usage(pid)) };
}

/**
 * Share of all CPU time between two readings that neither idled nor was this process's; stolen time is others'.
 * @param {{ stat: string | null, own: number }} before  `own` in ticks
 * @param {{ stat: string | null, own: number }} after
 * @returns {number | null}
 */
export function shareOfOthers(before, after) {
  if (before.stat === null || after.stat === null) return null;
  const [from, to] = [ticks(before.stat), ticks(after.stat)];
  const total = to.total - from.total;
  if (total <= 0) return null;
  return Math.min(1, Math.max(0, (to.busy - from.busy - (after.own - before.own)) / total));
}

function usage(pid) {
  const of = (process) => ownTicks(readIfThere(`/proc/${process}/stat`) ?? '');
  return { stat: readIfThere('/proc/stat'), own: of('self') + (pid ? of(pid) : 0) };
}

/** Ticks of a process and of its children that have ended: utime, stime, cutime, cstime of /proc/PID/stat, see proc(5). */
export function ownTicks(stat) {
  const afterName = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return afterName.slice(11, 15).reduce((total, each) => total + Number(each), 0);
}

function ticks(stat) {
  const values =
    stat
      .match(/^cpu +(.*)$/m)?.[1]
      .split(' ')
      .map(Number) ?? [];
  let [busy, total] = [0, 0];
  STAT_COLUMNS.forEach((column, index) => {
    total += values[index] ?? 0;
    if (!RESTING.includes(column)) busy += values[index] ?? 0;
  });
  return { busy, total };
}

/** MiB of memory that a process (by default this one) has held at most; null where the system has no /proc. */
export function peakRssMiB(pid) {
  const status = readIfThere(`/proc/${pid ?? 'self'}/status`);
  return status && Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
}

function readIfThere(path) {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

/** A record as a picture: bars of tokens per second, a group for each row. SVG by hand, readable on light and dark ground. */

const WIDTH = 760;
const NAMES = 220;
const VALUES = 130;
const LINE = 20;
const GAP = 16;

const style = `text { font: 12px system-ui, sans-serif; fill: #24292f } .title { font-weight: 600 }
.ours { fill: #0969da } .rival { fill: #8c959f } .roof { fill: none; stroke: #8c959f; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ours { fill: #4493f8 } .rival { fill: #6e7681 } }`;

/** @returns {string} an SVG document */
export function renderPlot({ rows, date, machine, threads, rounds }) {
  const parts = [];
  let y = LINE;
  const line = (text) => {
    parts.push(`<text class="title" x="0" y="${y}">${escaped(text)}</text>`);
    y += LINE;
  };
  line(
    `Tokens per second, more is better. ${date.slice(0, 10)}, ${machine.cpu}, ${threads} threads, median of ${rounds}`,
  );
  for (const { workload, streams, peers } of rows) {
    y += GAP;
    line(`${workload}, ${streams} ${streams === 1 ? 'stream' : 'streams'}`);
    const speeds = Object.entries(peers).map(([name, { median, against }]) => [name, median.tokensPerSecond, against]);
    const most = Math.max(...speeds.map(([, speed]) => speed ?? 0));
    for (const [name, speed, against] of speeds) {
      parts.push(bar(y, name, speed, most, against));
      y += LINE;
    }
  }
  const size = `width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}>\n<style>${style}</style>\n${parts.join('\n')}\n</svg>\n`;
}

function bar(y, name, speed, most, against) {
  const label = `<text x="${NAMES - 8}" y="${y}" text-anchor="end">${escaped(name)}</text>`;
  if (!speed) return `${label}<text x="${NAMES}" y="${y}">no result</text>`;
  const length = Math.max(1, ((WIDTH - NAMES - VALUES) * speed) / most);
  const kind = name.startsWith('roof') ? 'roof' : against ? 'rival' : 'ours';
  const ratio = against?.speed ? ` · ours is ${against.speed.toFixed(2)} ×` : '';
  const rect = `<rect class="${kind}" x="${NAMES}" y="${y - 12}" width="${length.toFixed(1)}" height="14" rx="2"/>`;
  return `${label}${rect}<text x="${NAMES + length + 6}" y="${y}">${shown(speed)}${ratio}</text>`;
}

function shown(speed) {
  return speed.toLocaleString('en', speed < 100 ? { maximumSignificantDigits: 3 } : { maximumFractionDigits: 0 });
}

function escaped(text) {
  return text.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** The looks of the trace's page, by day and by night. */
export const style = `
:root { color-scheme: light dark; --ink: #1c2330; --soft: #667085; --line: #e4e7ec; --paper: #fff; --hover: #f5f7fa;
  --run: #98a2b3; --prefill: #a9c7ff; --decode: #2f6fed; --cached: #b7e4c7; --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2b3240; --paper: #12161d;
  --hover: #1a202a; --run: #55607a; --prefill: #8fb2f5; --decode: #3f7bf5; --cached: #1f5a38; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 90rem; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 1rem; font-size: 1.35rem; }
.cards { display: flex; flex-wrap: wrap; gap: .75rem; margin: 0 0 1.5rem; }
.cards div { padding: .6rem 1rem; border: 1px solid var(--line); border-radius: .5rem; }
.cards dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.cards dt { color: var(--soft); font-size: .8rem; }
section { margin-bottom: 1.5rem; border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
.row { display: grid; grid-template-columns: minmax(16rem, 1.3fr) minmax(8rem, 1fr) 4.5rem 4.5rem 3.5rem 5rem 3.5rem;
  gap: .75rem; align-items: center; padding: .2rem .9rem; border-bottom: 1px solid var(--line); list-style: none; }
summary.row { cursor: pointer; }
summary.row:hover { background: var(--hover); }
summary.row::-webkit-details-marker { display: none; }
.head { color: var(--soft); font-size: .8rem; }
.row > span { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.row > .label, .head > :first-child, .head > :nth-child(2) { text-align: left; }
.label { padding-left: calc(var(--depth) * 1.25rem); overflow: hidden; text-overflow: ellipsis; }
.head i { padding: 0 .4rem; border-radius: .2rem; font-style: normal; }
.head .prefill { color: #1c2330; }
.head .decode { color: #fff; }
.text > summary > .label { grid-column: 1 / -1; color: var(--soft); }
.label::before { content: "▸"; display: inline-block; width: 1em; color: var(--soft); }
.warm > summary > .label::before { visibility: hidden; }
[open] > summary > .label::before { content: "▾"; }
.role { color: var(--soft); font-style: normal; font-size: .8rem; }
q { color: var(--soft); quotes: none; }
.run > summary > .label b { font-size: 1.05em; }
.failed > summary b { color: var(--bad); }
.bar { position: relative; height: .8rem; border-radius: .2rem; background: var(--hover); }
.bar i { position: absolute; top: 0; height: 100%; min-width: 2px; }
.span { background: var(--run); opacity: .55; border-radius: .2rem; }
.prefill { background: var(--prefill); }
.decode { background: var(--decode); }
.meter { display: block; padding: 0 .4rem; border-radius: .2rem;
  background: linear-gradient(to right, var(--cached) var(--ratio), var(--hover) var(--ratio)); }
.body { padding: .3rem .9rem .5rem calc(1.9rem + var(--depth) * 1.25rem); border-bottom: 1px solid var(--line);
  background: var(--hover); }
.body pre { margin: .2rem 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.5 ui-monospace, monospace; }
.body p { margin: .2rem 0; color: var(--soft); }
.body .error { color: var(--bad); }
`;

"""The style sheet of the page: system fonts, one accent colour, light and dark."""

STYLE = """
:root { color-scheme: light dark; --back: #fcfcfb; --text: #1c1e22; --soft: #646a73; --rule: #e2e2de;
  --strong: #b9bbbd; --accent: #1f5fc4; --mark: #c2401c; --panel: #f3f3f0; }
@media (prefers-color-scheme: dark) { :root { --back: #131519; --text: #e7e7e4; --soft: #9aa0aa; --rule: #2a2e35;
  --strong: #50565f; --accent: #7fabff; --mark: #ff8e66; --panel: #1b1e24; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; -webkit-text-size-adjust: 100%; }
main { max-width: 1120px; margin: 0 auto; padding: clamp(24px, 5vw, 64px) clamp(16px, 4vw, 40px); }
h1 { font-size: clamp(26px, 4vw, 38px); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 12px;
  overflow-wrap: break-word; }
h2 { font-size: 20px; line-height: 1.3; letter-spacing: -0.01em; margin: 0 0 4px; }
section { margin-top: 56px; }
p { margin: 0; max-width: 72ch; }
.lead { font-size: 18px; }
.note, .change { color: var(--soft); }
.warning { color: var(--mark); font-weight: 600; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.summary { width: 100%; margin-top: 32px; }
.summary th, .summary td { padding: 11px 0 11px 20px; border-bottom: 1px solid var(--rule); text-align: right;
  vertical-align: baseline; }
.summary th:first-child { padding-left: 0; text-align: left; font-weight: 400; }
.summary thead th { border-bottom: 2px solid var(--text); font-size: 14px; font-weight: 600; line-height: 1.25; }
.summary td { font-weight: 600; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 14px 0 0; padding: 0;
  font-size: 14px; }
.legend i { display: inline-block; width: 12px; height: 12px; margin-right: 7px; border-radius: 3px;
  vertical-align: -1px; box-shadow: inset 0 0 0 1px color-mix(in srgb, var(--text) 22%, transparent); }
.rows { display: grid; gap: 28px; margin-top: 20px; }
.example { display: grid; gap: 12px; }
.five { grid-template-columns: repeat(5, 1fr); }
.four { grid-template-columns: repeat(4, 1fr); }
figure { margin: 0; min-width: 0; }
.example img, .example svg { display: block; width: 100%; height: auto; border-radius: 4px; background: var(--panel); }
.example b, .example span { display: block; }
.example figcaption, .agreement { margin-top: 7px; font-size: 13px; line-height: 1.4; }
.example span { color: var(--soft); font-variant-numeric: tabular-nums; }
.agreement { margin: 0; }
.box { fill: none; stroke-width: 2px; vector-effect: non-scaling-stroke; }
.label { fill: #fff; font-weight: 700; white-space: pre; paint-order: stroke; stroke: #000c; stroke-width: 0.25em;
  stroke-linejoin: round; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 36px 40px;
  margin-top: 20px; }
.chart { display: flex; flex-direction: column; }
.chart figcaption { flex: 1; margin-bottom: 12px; font-size: 15px; }
.chart figcaption div { display: flex; justify-content: space-between; gap: 12px; }
.plot text, .strip text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
.change { white-space: nowrap; }
.chart .warning { font-size: 13px; }
.plot { display: flex; gap: 8px; }
.plot svg { overflow: visible; }
.plot > svg:first-child { flex: none; }
.plot > svg:last-child { flex: 1; min-width: 0; }
.rule { stroke: var(--rule); }
.axis { stroke: var(--strong); }
.line { fill: none; stroke: var(--accent); stroke-width: 2px; stroke-linejoin: round;
  vector-effect: non-scaling-stroke; }
.dot { fill: var(--accent); }
.hint { fill: transparent; }
.hint:hover { fill: color-mix(in srgb, var(--accent) 28%, transparent); }
.errors { width: 100%; margin-top: 16px; font-size: 14px; }
.errors th, .errors td { padding: 0; text-align: left; font-weight: 400; white-space: nowrap; line-height: 22px; }
.errors thead th { color: var(--soft); font-size: 12px; }
.errors tr > :last-child { text-align: right; }
.errors .strip { width: 100%; padding: 0 16px; }
.strip svg { display: block; overflow: visible; }
.bar { fill: var(--accent); }
.epsilon { stroke: var(--mark); stroke-width: 1.5px; }
.strip .epsilon-name { fill: var(--mark); }
dl { display: grid; grid-template-columns: minmax(90px, max-content) 1fr; gap: 8px 28px; margin: 16px 0 0;
  font-size: 14px; }
dt { color: var(--soft); }
dd { margin: 0; min-width: 0; font: 13px/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 720px) {
  section { margin-top: 44px; }
  .lead { font-size: 16px; }
  .summary th, .summary td { padding-left: 12px; font-size: 14px; }
  .five { grid-template-columns: repeat(6, 1fr); gap: 12px 8px; }
  .five figure { grid-column: span 2; }
  .five figure:nth-child(-n + 2) { grid-column: span 3; }
  .four { grid-template-columns: repeat(2, 1fr); }
  .errors .strip { padding: 0 10px; }
  dl { grid-template-columns: 1fr; gap: 2px; }
  dd { margin-bottom: 10px; }
}
@media print { section { break-inside: avoid; } }
"""

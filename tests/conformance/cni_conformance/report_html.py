# SPDX-License-Identifier: Apache-2.0
"""One self-contained page: the matrix of plugins, cases and versions, and every finding."""

from __future__ import annotations

import html
import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Sequence

from cni_conformance.case import VERSIONS
from cni_conformance.verdict import Verdict, conforms

_STYLE = """
:root { color-scheme: light dark; --page: #f7f7f5; --card: #fff; --text: #1c1d1f; --dim: #6a6d72;
  --line: #e3e3df; --pass: #2f9e67; --fail: #cf3b3b; --warn: #d9902f; --skip: #c9cac6; }
@media (prefers-color-scheme: dark) { :root { --page: #141517; --card: #1c1e21; --text: #e8e8e6;
  --dim: #9b9ea4; --line: #2e3135; --pass: #3fb57c; --fail: #ee6a63; --warn: #e6a64f;
  --skip: #44474c; } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 40px 20px 80px }
h1 { font-size: 30px; margin: 0; letter-spacing: -.02em }
h2 { font-size: 19px; margin: 44px 0 12px }
p.lead { color: var(--dim); margin: 6px 0 26px }
code, pre { font: 12.5px/1.5 ui-monospace, monospace }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px; text-decoration: none; color: inherit }
.card b { display: block } .card span { color: var(--dim); font-size: 13px }
.bar { display: flex; height: 6px; border-radius: 3px; overflow: hidden; margin-top: 8px;
  background: var(--line) }
.bar i { display: block }
.scroll { overflow: auto; max-height: 85vh; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px }
table { border-collapse: collapse; font-size: 13px; width: 100% }
th { font-weight: 600; text-align: left; padding: 6px 10px; background: var(--card) }
thead th { position: sticky; top: 0; z-index: 2; border-bottom: 1px solid var(--line);
  white-space: nowrap }
tbody th { position: sticky; left: 0; z-index: 1; font-weight: 400; white-space: nowrap;
  border-top: 1px solid var(--line) }
tbody th small { color: var(--dim) }
td { padding: 4px 10px; border-top: 1px solid var(--line) }
.cells { display: flex; gap: 2px }
.cells a, .cells i { width: 10px; height: 18px; border-radius: 2px; background: transparent }
.pass { background: var(--pass) !important }
.required, .error { background: var(--fail) !important }
.recommended { background: var(--warn) !important } .skip { background: var(--skip) !important }
.legend { display: flex; gap: 18px; flex-wrap: wrap; color: var(--dim); font-size: 13px;
  margin: 10px 2px }
.legend i { display: inline-block; width: 10px; height: 14px; border-radius: 2px;
  margin-right: 6px; vertical-align: -2px }
details { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  margin: 8px 0; padding: 10px 14px }
details:target { outline: 2px solid var(--warn) }
summary { cursor: pointer } summary em { color: var(--dim); font-style: normal }
dl { display: grid; grid-template-columns: 84px 1fr; gap: 6px 12px; margin: 12px 0 4px }
dt { color: var(--dim) } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap }
pre { background: var(--page); border-radius: 6px; padding: 10px; overflow: auto; margin: 6px 0 }
.tag { color: #fff; border-radius: 4px; padding: 1px 6px; font-size: 12px; margin-right: 6px }
"""

_SCRIPT = """
addEventListener('hashchange', show); show();
function show() {
  const found = location.hash && document.getElementById(location.hash.slice(1));
  if (found && found.tagName === 'DETAILS') { found.open = true; found.scrollIntoView(); }
}
"""


def write(verdicts: Sequence[Verdict], path: pathlib.Path) -> None:
    """The page, which needs no other file and no network. Raises OSError."""
    path.write_text(page(verdicts))


def page(verdicts: Sequence[Verdict]) -> str:
    """The page as text."""
    plugins = list(dict.fromkeys(verdict.plugin for verdict in verdicts))
    findings = [verdict for verdict in verdicts if verdict.is_finding]
    if len(plugins) == 1:
        subject = "the plugin conforms" if conforms(verdicts) else "the plugin does not conform"
    else:
        subject = "the plugins conform" if conforms(verdicts) else "the plugins do not all conform"
    lead = (
        f"{_count(len(plugins), 'plugin')}, {_count(len({v.case for v in verdicts}), 'case')}, "
        f"{_count(len(verdicts), 'run')}: {subject}."
    )
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>CNI conformance</title><style>{_STYLE}</style></head><body><main>",
        f'<h1>CNI conformance</h1><p class="lead">{_text(lead)}</p>',
        f'<div class="cards">{"".join(_card(plugin, verdicts) for plugin in plugins)}</div>',
        "<h2>Cases</h2>",
        _legend(),
        _matrix(plugins, verdicts),
        f"<h2>Findings ({len(findings)})</h2>" if findings else "<h2>No findings</h2>",
        *[_finding(verdict) for verdict in findings],
        f"</main><script>{_SCRIPT}</script></body></html>\n",
    ]
    return "".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _text(value: str) -> str:
    return html.escape(value)


def _class(verdict: Verdict) -> str:
    return verdict.level if verdict.status == "fail" else verdict.status


def _anchor(verdict: Verdict) -> str:
    return f"{verdict.plugin}--{verdict.case}--{verdict.version}"


def _card(plugin: str, verdicts: Iterable[Verdict]) -> str:
    counts = Counter(_class(verdict) for verdict in verdicts if verdict.plugin == plugin)
    bar = "".join(
        f'<i class="{kind}" style="flex:{counts[kind]}"></i>'
        for kind in ("pass", "recommended", "required", "error", "skip")
        if counts[kind]
    )
    wrong = sum(counts[kind] for kind in ("recommended", "required", "error"))
    text = f"{counts['pass']} hold" + (f", {wrong} do not" if wrong else "")
    words = f"<b>{_text(plugin)}</b><span>{text}</span>"
    return f'<div class="card">{words}<div class="bar">{bar}</div></div>'


def _legend() -> str:
    words = {
        "pass": "holds",
        "required": "required, does not hold",
        "recommended": "recommended, does not hold",
        "skip": "does not apply",
    }
    items = "".join(f'<span><i class="{kind}"></i>{text}</span>' for kind, text in words.items())
    return f'<div class="legend">{items}<span>left to right: {", ".join(VERSIONS)}</span></div>'


def _matrix(plugins: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    by_place = {(v.case, v.plugin, v.version): v for v in verdicts}
    head = "".join(f"<th>{_text(plugin)}</th>" for plugin in plugins)
    rows = []
    firsts: dict[str, Verdict] = {}
    for verdict in verdicts:
        firsts.setdefault(verdict.case, verdict)
    for case, first in firsts.items():
        cells = "".join(
            f'<td><div class="cells">{_cells(by_place, case, plugin)}</div></td>'
            for plugin in plugins
        )
        title = _text(f"{first.title} ({first.section}, {first.level})")
        mark = "" if first.level == "required" else " <small>recommended</small>"
        rows.append(f'<tr><th title="{title}">{_text(case)}{mark}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><th>case</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cells(by_place: dict[tuple[str, str, str], Verdict], case: str, plugin: str) -> str:
    cells = []
    for version in VERSIONS:
        verdict = by_place.get((case, plugin, version))
        if verdict is None:
            cells.append("<i></i>")
        elif verdict.is_finding:
            link, title = _anchor(verdict), _text(f"{version}: {verdict.came[:200]}")
            cells.append(f'<a class="{_class(verdict)}" href="#{link}" title="{title}"></a>')
        else:
            cells.append(f'<i class="{_class(verdict)}" title="{version}: {verdict.status}"></i>')
    return "".join(cells)


def _finding(verdict: Verdict) -> str:
    rows = {
        "expected": _text(verdict.expected),
        "came": _text(verdict.came),
        "about": _text(verdict.about),
        "section": _text(verdict.section),
        "repeat": f"<code>{_text(verdict.repeat)}</code>",
    }
    items = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows.items() if value)
    calls = "".join(
        f"<pre>{_text(json.dumps(call, indent=1, ensure_ascii=False))}</pre>"
        for call in verdict.calls
    )
    return (
        f'<details id="{_anchor(verdict)}"><summary>'
        f'<span class="tag {_class(verdict)}">{_text(_class(verdict))}</span>'
        f"<b>{_text(verdict.plugin)}</b> {_text(verdict.case)} <em>{verdict.version}: "
        f"{_text(verdict.title)}</em></summary><dl>{items}</dl>"
        f"{f'<p>Calls</p>{calls}' if calls else ''}</details>"
    )

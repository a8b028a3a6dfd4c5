# SPDX-License-Identifier: Apache-2.0
"""One self-contained page: the matrix of plugins, cases and versions, and every finding."""

from __future__ import annotations

import dataclasses
import html
import json
import pathlib
import re
from collections import Counter
from collections.abc import Sequence

from cni_conformance.case import VERSIONS
from cni_conformance.report_html_style import SCRIPT, STYLE
from cni_conformance.surroundings import Examined, Surroundings
from cni_conformance.verdict import Blocked, Verdict, conforms, hindered, in_the_way, not_reached

#: What differs between runs and says nothing: addresses that the kernel makes up.
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
_WORDS = {
    "pass": "holds",
    "required": "required, does not hold",
    "recommended": "recommended, does not hold",
    "error": "an error of the suite",
    "unreached": "not reached because of another finding",
    "skip": "does not apply",
}


def write(verdicts: Sequence[Verdict], surroundings: Surroundings, path: pathlib.Path) -> None:
    """The page, which needs no other file and no network. Raises OSError."""
    path.write_text(page(verdicts, surroundings))


def page(verdicts: Sequence[Verdict], surroundings: Surroundings) -> str:
    """The page as text."""
    plugins = list(dict.fromkeys(verdict.plugin for verdict in verdicts))
    count = sum(verdict.is_finding for verdict in verdicts)
    blocked = in_the_way(verdicts)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>CNI conformance</title><style>{STYLE}</style></head><body><main>",
        f'<h1>CNI conformance</h1><p class="lead">{_lead(plugins, verdicts, surroundings)}</p>',
        f'<p class="about">{_text(_about(surroundings))}</p>',
        f'<div class="cards">{_cards(plugins, verdicts, surroundings)}</div>',
        "<h2>Cases</h2>",
        _legend(),
        _matrix(plugins, verdicts),
        f'<h2 id="findings">{f"Findings ({count})" if count else "No findings"}</h2>',
        *[_finding(group, blocked) for group in _alike(verdicts)],
        f"</main><script>{SCRIPT}</script></body></html>\n",
    ]
    return "".join(parts)


def _lead(plugins: Sequence[str], verdicts: Sequence[Verdict], surroundings: Surroundings) -> str:
    count = sum(verdict.is_finding for verdict in verdicts)
    untested = [plugin for plugin in plugins if plugin in surroundings.obstacles]
    if len(untested) == len(plugins):
        end = "nothing could be tested here"
    elif len(plugins) == 1:
        end = "the plugin conforms" if conforms(verdicts) else "the plugin does not conform"
    else:
        end = "the plugins conform" if conforms(verdicts) else "the plugins do not all conform"
        end += f"; {len(untested)} could not be tested here" if untested else ""
    sums = [
        _count(len(plugins), "plugin"),
        _count(len({verdict.case for verdict in verdicts}), "case"),
        _count(len(verdicts), "run"),
    ]
    if count:
        sums.append(f'<a href="#findings">{_count(count, "finding")}</a>')
    if unreached := not_reached(verdicts):
        sums.append(unreached)
    return f"{', '.join(sums)}: {end}."


def _about(surroundings: Surroundings) -> str:
    began = surroundings.began.replace("T", " ").replace("Z", " UTC")
    return (
        f"cni-conformance {surroundings.suite} · {began} · "
        f"Linux {surroundings.kernel} · Python {surroundings.python}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _text(value: str) -> str:
    return html.escape(value)


def _class(verdict: Verdict) -> str:
    return verdict.level if verdict.status == "fail" else verdict.status


def _anchor(verdict: Verdict) -> str:
    return _text(f"{verdict.plugin}--{verdict.case}--{verdict.version}")


def _cards(plugins: Sequence[str], verdicts: Sequence[Verdict], surroundings: Surroundings) -> str:
    return "".join(
        _card(surroundings.of(plugin), [v for v in verdicts if v.plugin == plugin])
        for plugin in plugins
    )


def _card(tested: Examined, verdicts: Sequence[Verdict]) -> str:
    counts = Counter(_class(verdict) for verdict in verdicts)
    bar = "".join(
        f'<i class="{kind}" style="flex:{counts[kind]}"></i>'
        for kind in ("pass", "recommended", "required", "error", "unreached", "skip")
        if counts[kind]
    )
    lines = [f"<b>{_breakable(tested.name)}</b>"]
    if tested.path != tested.name:
        lines.append(f"<code>{_breakable(tested.path)}</code>")
    if tested.versions:
        lines.append(f"<small>claims {', '.join(tested.versions)}</small>")
    if tested.obstacle:
        sums = f"not testable here: {_text(tested.obstacle)}"
    else:
        sums = f"{counts['pass']} hold" + _wrong(counts, verdicts)
        sums += f", {unreached}" if (unreached := not_reached(verdicts)) else ""
    lines.append(f'<div><div class="counts">{sums}</div><div class="bar">{bar}</div></div>')
    return f'<div class="card">{"".join(lines)}</div>'


def _wrong(counts: Counter[str], verdicts: Sequence[Verdict]) -> str:
    """What goes on after "3 hold": a link to the first finding, "" when there is none."""
    first = next((verdict for verdict in verdicts if verdict.is_finding), None)
    if first is None:
        return ""
    words = [f"{counts[level]} {level}" for level in ("required", "recommended") if counts[level]]
    words = [f"{', '.join(words)} do not hold"] if words else []
    if counts["error"]:
        words.append(f"{_count(counts['error'], 'error')} of the suite")
    return f', <a href="#{_anchor(first)}">{", ".join(words)}</a>'


def _breakable(path: str) -> str:
    """A path that may go on in the next line after each slash."""
    return _text(path).replace("/", "/<wbr>")


def _legend() -> str:
    items = "".join(
        f'<span><i class="{kind}"></i>{text}</span>'
        for kind, text in _WORDS.items()
        if kind != "error"  # in the colour of what is required
    )
    return f'<div class="legend">{items}<span>left to right: {", ".join(VERSIONS)}</span></div>'


def _matrix(plugins: Sequence[str], verdicts: Sequence[Verdict]) -> str:
    """Two tables of the same columns: the head stays in sight, the body scrolls sideways."""
    by_place = {(v.case, v.plugin, v.version): v for v in verdicts}
    labels = "".join(f"<span>{version}</span>" for version in VERSIONS)
    head = "".join(
        f'<th>{_breakable(plugin)}<div class="cells">{labels}</div></th>' for plugin in plugins
    )
    rows = []
    firsts: dict[str, Verdict] = {}
    for verdict in verdicts:
        firsts.setdefault(verdict.case, verdict)
    for case, first in firsts.items():
        cells = "".join(f"<td>{_cells(by_place, case, plugin)}</td>" for plugin in plugins)
        title = _text(f"{first.title} ({first.section}, {first.level})")
        mark = "" if first.level == "required" else " <small>recommended</small>"
        rows.append(f'<tr><th title="{title}">{_text(case)}{mark}</th>{cells}</tr>')
    columns = f'<colgroup><col class="case"><col span="{len(plugins)}"></colgroup>'
    return (
        f'<div class="matrix" style="--plugins:{len(plugins)}">'
        f'<div class="head"><table>{columns}<thead><tr><th>case</th>{head}</tr></thead></table>'
        f'</div><div class="body"><table>{columns}<tbody>{"".join(rows)}</tbody></table></div>'
        "</div>"
    )


def _cells(by_place: dict[tuple[str, str, str], Verdict], case: str, plugin: str) -> str:
    """One for each version; the title of them all says which went how."""
    cells = []
    versions: dict[str, list[str]] = {}
    for version in VERSIONS:
        verdict = by_place.get((case, plugin, version))
        if verdict is None:
            cells.append(f'<i title="{version}: not run"></i>')
            continue
        kind = _class(verdict)
        versions.setdefault(kind, []).append(version)
        more = f": {verdict.came[:200]}" if verdict.status != "pass" else ""
        if verdict.because:
            more = f": {verdict.because}{more}"
        title = _text(f"{version}: {_WORDS[kind]}{more}")
        if verdict.is_finding or verdict.because:
            link = _anchor(dataclasses.replace(verdict, case=verdict.because or verdict.case))
            cells.append(f'<a class="{kind}" href="#{link}" title="{title}"></a>')
        else:
            cells.append(f'<i class="{kind}" title="{title}"></i>')
    parts = [f"{', '.join(found)}: {_WORDS[kind]}" for kind, found in versions.items()]
    title = _text("; ".join(parts) or "not run")
    return f'<div class="cells" title="{title}">{"".join(cells)}</div>'


def _alike(verdicts: Sequence[Verdict]) -> list[list[Verdict]]:
    """The findings; those of one plugin and case that say the same of several versions together.

    The same but for the version itself, and addresses that the kernel makes up.
    """
    found: dict[tuple[str, ...], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.is_finding:
            said = [
                _MAC.sub("", text).replace(verdict.version, "")
                for text in (verdict.expected, verdict.came)
            ]
            key = (verdict.plugin, verdict.case, verdict.status, *said)
            found.setdefault(key, []).append(verdict)
    return list(found.values())


def _finding(group: Sequence[Verdict], blocked: Blocked) -> str:
    """What the first says, for all; each version has its anchor."""
    first = group[0]
    others = [o for v in group for o in blocked.get((v.plugin, v.case, v.version), ())]
    rows = {
        "expected": _text(first.expected),
        "came": _text(first.came),
        "hinders": _text(hindered(others)) if others else "",
        "about": _text(first.about),
        "section": _text(first.section),
        "repeat": f"<code>{_text(first.repeat)}</code>",
    }
    items = "".join(f"<dt>{key}</dt><dd>{value}</dd>" for key, value in rows.items() if value)
    calls = "".join(
        f"<pre>{_text(json.dumps(call, indent=1, ensure_ascii=False))}</pre>"
        for call in first.calls
    )
    versions = ", ".join(verdict.version for verdict in group)
    anchors = "".join(f'<span id="{_anchor(verdict)}"></span>' for verdict in group[1:])
    of = f" ({first.version})" if len(group) > 1 else ""
    return (
        f'<details id="{_anchor(first)}"><summary>{anchors}'
        f'<span class="tag {_class(first)}">{_text(_class(first))}</span>'
        f"<b>{_text(first.plugin)}</b> {_text(first.case)} <em>{versions}: "
        f"{_text(first.headline)}</em></summary><dl>{items}</dl>"
        f"{f'<p>Calls{of}</p>{calls}' if calls else ''}</details>"
    )

# SPDX-License-Identifier: Apache-2.0
"""The table, the JSON document and the chart."""

from __future__ import annotations

import html
import json
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.figure import Figure
from tests.bench.rows import Row

#: To reach: peak resident memory of any operation, kB.
MEMORY_TARGET = 11 * 1024


def _milliseconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _megabytes(kilobytes: int) -> str:
    return f"{kilobytes / 1024:.1f}" if kilobytes else "-"


def document(
    rows: Sequence[Row], facts: dict[str, Any], figures: Sequence[Figure] = ()
) -> dict[str, Any]:
    """What build/bench.json holds."""
    peak = max((row.memory[1] for row in rows), default=0)
    return {
        **facts,
        "machine": platform.platform(),
        "processors": len(_processors()),
        "rows": [row.as_json() for row in rows],
        "figures": [figure.as_json() for figure in figures],
        "peak_kb": {"ours": peak, "target": MEMORY_TARGET, "reached": peak <= MEMORY_TARGET},
    }


def _processors() -> list[str]:
    text = pathlib.Path("/proc/cpuinfo").read_text()
    return [line for line in text.splitlines() if line.startswith("processor")]


def show(console: Console, data: dict[str, Any]) -> None:
    """Print the tables and what explains them."""
    if data["rows"]:
        _show_rows(console, data)
    if data["figures"]:
        _show_figures(console, data["figures"])
    console.print(
        f"Load average was {data['load_before']:.1f} before, {data['load_after']:.1f} after.",
        highlight=False,
    )


def _show_figures(console: Console, figures: list[dict[str, Any]]) -> None:
    table = Table(title="The overlay's agent")
    for heading in ("what", "measured", "to reach"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for one in figures:
        style = "" if one["target"] is None else ("green" if one["reached"] else "red")
        value = _quantity(one["value"], one["unit"])
        sign = "≥" if one["at_least"] else "≤"
        target = (
            "-" if one["target"] is None else f"{sign} {_quantity(one['target'], one['unit'])}"
        )
        table.add_row(one["title"], f"[{style}]{value}[/]" if style else value, target)
    console.print(table)
    for one in figures:
        console.print(f"  [bold]{one['title']}[/]: {one['why']}.", highlight=False)


def _quantity(value: float, unit: str) -> str:
    if value == int(value):
        number = f"{value:,.0f}"
    else:
        number = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def _show_rows(console: Console, data: dict[str, Any]) -> None:
    table = Table(title="Wall time in ms (median / 90th percentile), CPU in ms, peak memory in MB")
    for heading, justify in (
        ("operation", "left"),
        ("side", "left"),
        ("median", "right"),
        ("p90", "right"),
        ("CPU", "right"),
        ("peak MB", "right"),
        ("ratio", "right"),
        ("target", "right"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for row in data["rows"]:
        (left, base), (right, ours) = row["sides"].items()
        style = "" if row["target"] is None else ("green" if row["reached"] else "red")
        for name, side, ratio, target in (
            (left, base, "", ""),
            (
                right,
                ours,
                f"[{style}]{row['ratio']:.2f}[/]" if style else f"{row['ratio']:.2f}",
                f"≤ {row['target']:.2f}" if row["target"] else "-",
            ),
        ):
            table.add_row(
                row["title"] if name == left else f"  [dim]{row['rounds']} rounds[/]",
                name,
                _milliseconds(side["median_ms"]),
                _milliseconds(side["p90_ms"]),
                _milliseconds(side["cpu_ms"]) if side["cpu_ms"] else "-",
                _megabytes(side["peak_kb"]),
                ratio,
                target,
            )
        table.add_section()
    console.print(table)
    for row in data["rows"]:
        console.print(f"  [bold]{row['title']}[/]: {row['why']}.", highlight=False)
    peak = data["peak_kb"]
    if peak["ours"]:
        colour = "green" if peak["reached"] else "red"
        console.print(
            f"  [bold]peak resident memory[/]: ours [{colour}]{_megabytes(peak['ours'])} MB[/], "
            f"target {_megabytes(peak['target'])} MB.",
            highlight=False,
        )
    console.print(
        "Ratios are medians of the rounds' own ratios, order random within a round.",
        highlight=False,
    )


def write(directory: pathlib.Path, data: dict[str, Any]) -> list[pathlib.Path]:
    """Write bench.json and bench.svg into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    text, chart = directory / "bench.json", directory / "bench.svg"
    text.write_text(json.dumps(data, indent=2) + "\n")
    chart.write_text(svg(data))
    return [text, chart]


#: Pixels: of the longest bar, beside it, of a bar's height, between rows, of a title's character.
_ROOM, _RIGHT, _BAR, _GAP, _CHARACTER = 480, 110, 15, 16, 6.6


def svg(data: dict[str, Any]) -> str:
    """Two bars a row, scaled to the row's longer one; the tick is the target."""
    parts: list[str] = []
    y = 64
    left_edge = 32 + round(_CHARACTER * max((len(r["title"]) for r in data["rows"]), default=0))
    for row in data["rows"]:
        (left, base), (right, ours) = row["sides"].items()
        longest = max(base["median_ms"], ours["median_ms"], 0.001)
        missed = row["target"] is not None and not row["reached"]
        parts.append(_text(left_edge - 12, y + _BAR, row["title"], "end", "title"))
        parts.append(
            _text(
                left_edge - 12,
                y + 2 * _BAR - 1,
                f"x {row['ratio']:.2f}"
                + (f" (target {row['target']:.2f})" if row["target"] else ""),
                "end",
                "missed" if missed else "ratio",
            )
        )
        for offset, name, side, colour in (
            (0, left, base, "#8aa4c8"),
            (_BAR, right, ours, "#c0392b" if missed else "#2f855a"),
        ):
            length = _ROOM * side["median_ms"] / longest
            parts.append(
                f'<rect x="{left_edge}" y="{y + offset}" width="{length:.1f}" height="{_BAR - 2}" '
                f'fill="{colour}"/>'
            )
            label = f"{name} {_milliseconds(side['median_ms'])} ms"
            parts.append(_text(left_edge + 4, y + offset + _BAR - 5, label, "start", "label"))
        if row["target"]:
            x = left_edge + min(_ROOM, _ROOM * base["median_ms"] * row["target"] / longest)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y + _BAR - 2}" y2="{y + 2 * _BAR}" '
                'stroke="#111" stroke-width="2"/>'
            )
        y += 2 * _BAR + _GAP
    style = (
        "text{font-family:sans-serif;font-size:12px;fill:#222}.head{font-size:16px}"
        ".ratio{font-size:11px;fill:#555}.missed{font-size:11px;fill:#c0392b}"
        ".label{font-size:11px;fill:#fff;paint-order:stroke;stroke:#333;stroke-width:1.5px}"
    )
    width = left_edge + _ROOM + _RIGHT
    head = _text(20, 28, "Adder beside the Go plugins: median wall time", "start", "head")
    note = _text(20, 46, "shorter is better; the tick is the target", "start", "ratio")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" '
        f'width="{width}" height="{y}" role="img">\n<style>{style}</style>\n'
        f'<rect width="100%" height="100%" fill="#fff"/>\n'
        + "\n".join([head, note, *parts])
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, anchor: str, kind: str) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" class="{kind}">'
        f"{html.escape(text)}</text>"
    )

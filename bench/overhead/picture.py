"""The picture in the docs: bars of what each side adds, as multiples of the floor. Readable in light and in dark."""

from __future__ import annotations

import math
from typing import Any
from xml.sax.saxutils import escape

from peers import PEERS

TIMES = "\N{MULTIPLICATION SIGN}"

WIDTH = 780
LABELS = 210
VALUES = 150
ROW = 26
BAR = 16
HEAD = 46
GAP = 22
FOOT = 44

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.quiet { fill: #59636e; font-size: 12px }
.note { fill: #59636e; font-size: 12px; font-weight: 400 }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.floor { stroke: #59636e; stroke-width: 1.5; stroke-dasharray: 4 3 }
.peer { fill: #8c96a0 }
.ours { fill: #1a7f64 }
.strong { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .quiet, .note { fill: #9198a1 }
  .note { fill: #59636e; font-size: 12px; font-weight: 400 }
.grid { stroke: #3d444d }
  .floor { stroke: #9198a1 }
  .peer { fill: #6e7681 }
  .ours { fill: #3fb68b }
}
"""

Bar = tuple[str, float, float, bool]
"""Whose it is, the ratio, microseconds added, whether it is ours."""


def bars(figures: dict[str, Any], workloads: tuple[str, str]) -> list[Bar]:
    """Ours, and the peers from the nearest to the farthest. The second workload is of those that have no first."""
    found: list[Bar] = []
    for row in figures["rows"]:
        if row["way"] != "sync" or not row["sampled"]:
            continue
        if row["peer"] is None and row["workload"] == workloads[0]:
            side = row["sides"]["ours"]
            found.append(("ours", side["ratio"], side["added_us"], True))
        elif row["peer"] is not None:
            peer = PEERS[row["peer"]]
            mine = workloads[0] if workloads[0] in peer.workloads else workloads[1]
            if row["workload"] == mine:
                side = row["sides"][row["peer"]]
                title = peer.title if mine == workloads[0] else f"{peer.title} (messages)"
                found.append((title, side["ratio"], side["added_us"], False))
    return sorted(found, key=lambda bar: (not bar[3], bar[1]))


def draw(figures: dict[str, Any], foot: str) -> str:
    """The picture, as SVG."""
    panels = [
        ("A chat call", "added time as a multiple of the floor", bars(figures, ("chat", "messages")), False),
        (
            "A stream of 200 chunks",
            "the same, on a logarithmic scale",
            bars(figures, ("chat-stream-usage", "messages-stream")),
            True,
        ),
    ]
    parts, top = [], 8.0
    for title, note, rows, logarithmic in panels:
        parts.append(_panel(top, title, note, rows, logarithmic))
        top += HEAD + ROW * len(rows) + GAP
    height = top + FOOT
    said = "Ours is with prices, three budgets and four tags. The dashed line is the floor: a span made by hand."
    parts.append(f'<text class="quiet" x="12" y="{top + 10:.0f}">{said}</text>')
    parts.append(f'<text class="quiet" x="12" y="{top + 28:.0f}">{escape(foot)}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" '
        f'height="{height:.0f}" role="img" aria-label="Overhead beside the floor and the peers">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(top: float, title: str, note: str, rows: list[Bar], logarithmic: bool) -> str:
    most = max([row[1] for row in rows] + [1.5])
    room = WIDTH - LABELS - VALUES
    least = min([row[1] for row in rows if row[1] > 0] + [1.0]) / 2

    def at(value: float) -> float:
        if not logarithmic:
            return LABELS + room * max(0.0, value) / (most * 1.02)
        share = math.log(max(value, least) / least) / math.log(most * 1.1 / least)
        return LABELS + room * share

    bottom = top + HEAD + ROW * len(rows)
    parts = [
        f'<text class="title" x="12" y="{top + 14:.0f}">{escape(title)}'
        f'<tspan class="note" dx="10">{escape(note)}</tspan></text>',
    ]
    for tick in _ticks(least, most, logarithmic):
        x = at(tick)
        kind = "floor" if tick == 1 else "grid"
        parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top + HEAD - 8:.0f}" y2="{bottom:.0f}"/>')
        text = f"{tick:g} {TIMES}" if tick != 1 else "floor"
        parts.append(f'<text class="quiet" text-anchor="middle" x="{x:.1f}" y="{top + HEAD - 13:.0f}">{text}</text>')
    for number, (name, ratio, added, ours) in enumerate(rows):
        y = top + HEAD + ROW * number
        weight = ' class="strong"' if ours else ""
        end = at(ratio)
        bar = max(1.0, end - LABELS)
        ratio_text = f"{ratio:.1f}" if ratio < 100 else f"{ratio:.0f}"
        parts += [
            f'<text{weight} text-anchor="end" x="{LABELS - 10}" y="{y + 17:.0f}">{escape(name)}</text>',
            f'<rect class="{"ours" if ours else "peer"}" x="{LABELS}" y="{y + 4:.0f}" width="{bar:.1f}" '
            f'height="{BAR}" rx="2"/>',
            f'<text{weight} x="{end + 8:.1f}" y="{y + 17:.0f}">{ratio_text} {TIMES} <tspan class="quiet">'
            f"+{_time(added)}</tspan></text>",
        ]
    return "\n".join(parts)


def _ticks(least: float, most: float, logarithmic: bool) -> list[float]:
    if logarithmic:
        powers = [10.0**power for power in range(-2, 5)]
        return [tick for tick in powers if least <= tick <= most * 1.1]
    step = 1 if most <= 8 else 2 if most <= 16 else 5
    return [1.0, *(float(tick) for tick in range(step, int(most) + 1, step) if tick > 1)]


def _time(microseconds: float) -> str:
    if microseconds >= 1000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds:.0f} µs"

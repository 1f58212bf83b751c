"""A report as one HTML file that needs nothing else: no network, no script, no library, light or dark as the reader is.

    write_page(path, "Token corpus", [heading("Counts"), table([("written", "1,000")]), bars([("empty", 3)])])

In: blocks, each made by a function here from plain numbers and texts. Out: an HTML page with its style and its pictures
(SVG) inside. Every text is escaped. Cost: a picture of n points takes about 20 bytes a point; give hundreds, not
millions (`thinned`).
"""

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, pairwise, repeat
from pathlib import Path

from kogpt.common.files import atomic_write

Block = str
"""A piece of HTML."""
_COLORS = ("#2f6fde", "#d9822b", "#2b9f6a", "#b84a9c", "#7a6ad8", "#8a8a2e")
_NUMBER = re.compile(r"[+-]?\d[\d,.]*(?![\w.-])")
"""A number, maybe with a unit or a remark after it; no checksum and no date."""
_MOST_DOTS = 60
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 240, 70, 40, 24
_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; margin: .5rem 0 } .wide { overflow-x: auto }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8884 }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td { overflow-wrap: anywhere; white-space: pre-wrap } td.number { white-space: nowrap }
td:first-child { min-width: 4rem }
summary { cursor: pointer; padding: .15rem 0 } .note { opacity: .7 } svg { max-width: 100%; height: auto }
svg text { fill: currentColor; font: 12px system-ui, sans-serif } .axis { stroke: currentColor; opacity: .35 }
.grid { stroke: currentColor; opacity: .12 } .legend { margin: .5rem 0 0 } .legend span { margin-right: 1rem }
"""


def write_page(path: str | Path, title: str, blocks: Iterable[Block]) -> None:
    """Write the page; the file appears complete."""
    with atomic_write(path) as file:
        file.write(page(title, blocks).encode("utf-8", "backslashreplace"))


def page(title: str, blocks: Iterable[Block]) -> str:
    """The whole HTML page."""
    name = html.escape(title)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title>'
    body = "\n".join(blocks)
    whole = f"<html><head>{head}<style>{_STYLE}</style></head>\n<body><h1>{name}</h1>\n{body}\n</body></html>"
    return f"<!doctype html>\n{whole}\n"


def heading(text: str) -> Block:
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> Block:
    return f"<p>{html.escape(text)}</p>"


def table(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> Block:
    """A table. The first column has names; another that has only numbers is set to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    width = max((len(row) for row in cells), default=0)
    columns = [[row[i] for row in cells if i < len(row) and row[i]] for i in range(width)]
    right = [i > 0 and all(map(_NUMBER.match, column)) for i, column in enumerate(columns)]
    top = "".join(_cell("th", name, right[i : i + 1] == [True]) for i, name in enumerate(header))
    body = "".join(f"<tr>{''.join(map(_cell, repeat('td'), row, right))}</tr>" for row in cells)
    return f'<div class="wide"><table>{f"<tr>{top}</tr>" if top else ""}{body}</table></div>'


def _cell(tag: str, text: str, number: bool) -> str:
    kind = ' class="number"' if number else ""
    return f"<{tag}{kind}>{html.escape(text)}</{tag}>"


def details(summary: str, blocks: Iterable[Block]) -> Block:
    """Blocks that the reader can unfold."""
    return f"<details><summary>{html.escape(summary)}</summary>{''.join(blocks)}</details>"


def bars(values: Sequence[tuple[str, float]]) -> Block:
    """A bar for each (label, value), in the given order."""
    if not values:
        return paragraph("none")
    largest = max(value for _, value in values) or 1
    label_width = min(260, 12 + 8 * max(_columns(label) for label, _ in values))
    step, room = 22, _WIDTH - label_width - 80
    drawn = []
    for i, (label, value) in enumerate(values):
        y, width = i * step, max(1, room * value / largest)
        drawn.append(
            f'<text x="{label_width - 6}" y="{y + 15}" text-anchor="end">{html.escape(label)}</text>'
            f'<rect x="{label_width}" y="{y + 4}" width="{width:.1f}" height="14" fill="{_COLORS[0]}"/>'
            f'<text x="{label_width + width + 6:.1f}" y="{y + 15}">{_short(value)}</text>'
        )
    return _svg(len(values) * step, drawn)


def histogram(edges: Sequence[float], counts: Sequence[int], x: str, logarithmic: bool = False) -> Block:
    """Bars between `edges` (one more than `counts`), with `x` below the axis."""
    if not counts:
        return paragraph("none")
    place = _scale(edges[0], edges[-1], logarithmic)
    largest = max(counts) or 1
    floor = _HEIGHT - _BOTTOM
    drawn = [_axes(x, "", [(0, "0"), (largest, _short(largest))], largest)]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        left, height = place(low), (floor - _TOP) * count / largest
        width = max(1, place(high) - left - 1)
        drawn.append(
            f'<rect x="{left:.1f}" y="{floor - height:.1f}" width="{width:.1f}" height="{height:.1f}" '
            f'fill="{_COLORS[0]}"><title>{_short(low)} to {_short(high)}: {count:,}</title></rect>'
        )
    drawn += [_tick(place(edge), edge) for edge in _spread(edges)]
    return _svg(_HEIGHT, drawn)


def lines(series: Mapping[str, Sequence[tuple[float, float]]], x: str, y: str, *, zero: bool = True) -> Block:
    """A line through the (x, y) points of each series, with dots if they are few; gaps where y is not finite.

    `zero`: the axis of y begins at 0, if no number is below it.
    """
    points = [point for own in series.values() for point in own if math.isfinite(point[1])]
    if not points:
        return paragraph("none")
    left, right = min(p[0] for p in points), max(p[0] for p in points)
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    low = min(0.0, low) if zero else low
    high = high if high > low else low + 1
    place, floor = _scale(left, right, False), _HEIGHT - _BOTTOM

    def height(value: float) -> float:
        return floor - (floor - _TOP) * (value - low) / (high - low)

    drawn = [_axes(x, y, [(value, _short(value)) for value in _round_numbers(low, high)], high, low)]
    drawn += [f'<path class="grid" d="M{_LEFT} {height(v):.1f}H{_WIDTH}"/>' for v in _round_numbers(low, high)]
    for color, own in zip(cycle(_COLORS), series.values(), strict=False):
        there = [(place(a), height(b) if math.isfinite(b) else None, f"{_short(a)}: {b:.4g}") for a, b in own]
        path = [
            "" if h is None else f"{'M' if i == 0 or there[i - 1][1] is None else 'L'}{at:.1f} {h:.1f}"
            for i, (at, h, _) in enumerate(there)
        ]
        drawn.append(f'<path d="{"".join(path)}" fill="none" stroke="{color}" stroke-width="1.6"/>')
        drawn += [
            f'<circle cx="{at:.1f}" cy="{h:.1f}" r="3" fill="{color}"><title>{text}</title></circle>'
            for at, h, text in (there if len(there) <= _MOST_DOTS else [])
            if h is not None
        ]
    drawn += [_tick(place(value), value) for value in _round_numbers(left, right)]
    return _legend(list(series)) + _svg(_HEIGHT, drawn)


def _legend(names: Sequence[str]) -> Block:
    """The names of several series in their colors, above the picture: within it, they would cover points."""
    shown = [f'<span style="color:{c}">● {html.escape(n)}</span>' for c, n in zip(cycle(_COLORS), names, strict=False)]
    return f'<p class="legend">{" ".join(shown)}</p>' if len(names) > 1 else ""


def thinned(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most this many points: the mean y of each of `most` stretches, at its last x."""
    if len(points) <= most:
        return list(points)
    cuts = [len(points) * i // most for i in range(most + 1)]
    stretches = [points[a:b] for a, b in pairwise(cuts)]
    return [(own[-1][0], sum(y for _, y in own) / len(own)) for own in stretches]


def _svg(height: int, drawn: Iterable[str]) -> Block:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img">{"".join(drawn)}</svg>'


def _axes(x: str, y: str, ticks: Sequence[tuple[float, str]], high: float, low: float = 0) -> str:
    floor = _HEIGHT - _BOTTOM
    names = f'<text x="{_WIDTH}" y="{_HEIGHT - 4}" text-anchor="end">{html.escape(x)}</text>'
    names += f'<text x="0" y="12">{html.escape(y)}</text>' if y else ""
    sides = f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{_WIDTH}" fill="none"/>'
    marks = [
        f'<text x="{_LEFT - 6}" y="{floor - (floor - _TOP) * (value - low) / (high - low) + 4:.1f}" '
        f'text-anchor="end">{text}</text>'
        for value, text in ticks
    ]
    return names + sides + "".join(marks)


def _tick(place: float, value: float) -> str:
    anchor = "end" if place > _WIDTH - 30 else "middle"
    return f'<text x="{place:.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="{anchor}">{_short(value)}</text>'


def _round_numbers(low: float, high: float) -> list[float]:
    """A few multiples of 1, 2, or 5 times a power of ten within the range; `low` of an empty range."""
    if not high > low:
        return [low]
    power = 10 ** math.floor(math.log10((high - low) / 5))
    step = next(m * power for m in (1, 2, 5, 10) if (high - low) / (m * power) <= 5)
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _spread(edges: Sequence[float]) -> list[float]:
    """At most seven of the edges, the ends among them."""
    step = max(1, math.ceil((len(edges) - 1) / 6))
    return [*edges[: len(edges) - step : step], edges[-1]]


def _scale(low: float, high: float, logarithmic: bool) -> Callable[[float], float]:
    def change(value: float) -> float:
        return math.log(max(value, 1e-9)) if logarithmic else float(value)

    a, b = change(low), change(high)
    return lambda value: _LEFT + (_WIDTH - _LEFT) * (change(value) - a) / ((b - a) or 1)


def _columns(text: str) -> float:
    """The width of a label in Latin letters: a letter of Korean is about two."""
    return sum(1 + (ord(character) > 0x1100) for character in text)


def _short(value: float) -> str:
    """A number for people: 1,234, 0.345, 1.2M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g}M" if abs(value) < 1e9 else f"{value / 1e9:.3g}G"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.3g}"

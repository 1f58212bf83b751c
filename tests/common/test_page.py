"""Pages of reports: nothing from outside, every text escaped, and pictures with the numbers in them."""

import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.common.page import (
    _round_numbers,
    bars,
    details,
    heading,
    histogram,
    lines,
    page,
    paragraph,
    table,
    thinned,
    write_page,
)

VOID = {"meta"}


class Balance(HTMLParser):
    """The open elements, which have to be none at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> set[str]:
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    return parser.seen


def test_a_page_has_all_in_it_and_asks_for_nothing(tmp_path: Path) -> None:
    blocks = [
        heading("수"),
        table([("a", 1), ("b", "2,000")], ("name", "number")),
        bars([("중복", 3), ("empty", 12_000_000)]),
        histogram([1, 10, 100], [3, 4], "characters", logarithmic=True),
        lines({"train": [(0, 1), (1, 0.5)], "val": [(0, 2.0), (1, 1.5)]}, "step", "loss"),
        details("more", [paragraph("inside")]),
    ]
    write_page(tmp_path / "report.html", "보고 <1>", blocks)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert checked(text) >= {"svg", "table", "details", "style"}
    assert not re.search(r"https?:|src=|href=|@import|url\(|<script", text)
    assert "<h1>보고 &lt;1&gt;</h1>" in text
    assert '<td class="number">2,000</td>' in text
    assert ">12M<" in text


@given(st.text(max_size=30))
def test_no_text_becomes_markup(text: str) -> None:
    made = [heading(text), paragraph(text), table([(text, text)], (text,)), bars([(text, 1)]), details(text, [])]
    made += [histogram([0, 1], [1], text), lines({text: [(0, 1)], "b": [(1, 2)]}, text, text)]
    for block in made:
        texts = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "span", "details", "summary"}
        tables, pictures = {"table", "tr", "th", "td"}, {"svg", "text", "rect", "path", "circle", "title"}
        assert checked(page("x", [block])) <= texts | tables | pictures


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        (bars([]), "none"),
        (histogram([], [], "x"), "none"),
        (lines({}, "x", "y"), "none"),
        (lines({"a": [(0, math.nan)]}, "x", "y"), "none"),
        (lines({"a": [(3, 5.0)]}, "x", "y"), "M70.0"),
        (bars([("a", 0)]), ">0<"),
        (histogram([0, 1, 2], [0, 0], "x"), "x"),
    ],
)
def test_nothing_and_next_to_nothing_can_be_drawn(block: str, shown: str) -> None:
    assert shown in block
    checked(block)


def test_places_in_a_picture_are_those_of_the_numbers() -> None:
    """A line from corner to corner, with a gap where a number is missing."""
    block = lines({"a": [(0, 0.0), (1, 5.0), (2, math.nan), (3, 10.0), (4, 10.0)]}, "x", "y")
    [path] = [own for own in ElementTree.fromstring(block).iter("path") if own.get("stroke")]
    assert path.get("d") == "M70.0 200.0L232.5 112.0M557.5 24.0L720.0 24.0"
    heights = [
        float(own.get("height", "0")) for own in ElementTree.fromstring(histogram([0, 1, 2], [1, 4], "x")).iter("rect")
    ]
    assert heights == [44.0, 176.0]


def test_an_axis_has_round_numbers_on_it() -> None:
    """That of y begins at 0 or at the smallest number, as asked for."""
    series = {"a": [(0, 3.52), (1950, 9.1)]}
    words = re.findall(r"<text[^>]*>([^<]+)</text>", lines(series, "step", "loss"))
    assert words == ["step", "loss", "0", "2", "4", "6", "8", "0", "500", "1,000", "1,500"]
    words = re.findall(r"<text[^>]*>([^<]+)</text>", lines(series, "step", "loss", zero=False))
    assert words[:5] == ["step", "loss", "4", "6", "8"]


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_an_axis_has_a_few_numbers_within_its_range(low: float, length: float) -> None:
    high = low + length
    numbers = _round_numbers(low, high)
    if high > low and length > 1e-6 * abs(low):
        assert 2 <= len(numbers) <= 6
        assert all(low - length / 100 <= number <= high + length / 100 for number in numbers)


def test_columns_of_numbers_are_set_to_the_right() -> None:
    text = table([("a", "2,000", "29c33f", "0.5 ± 0.1"), ("b", "", "1", "3 (1 %)")], ("", "n", "commit", "x"))
    assert re.findall(r'class="number">([^<]*)<', text) == ["n", "x", "2,000", "0.5 ± 0.1", "", "3 (1 %)"]


def test_the_names_of_lines_stand_outside_the_picture() -> None:
    """Within it they would cover points."""
    block = lines({"국회": [(0, 1), (1, 2)], "b": [(0, 2)]}, "x", "y")
    legend, picture = block.split("<svg")
    assert legend.count("<span") == 2
    assert "국회" in legend
    assert "국회" not in picture


def test_many_points_become_few_with_the_same_mean() -> None:
    points = [(float(i), float(i % 7)) for i in range(7000)]
    few = thinned(points, 100)
    assert len(few) == 100
    assert few[-1][0] == 6999
    assert sum(y for _, y in few) / 100 == pytest.approx(3, abs=0.01)
    assert thinned(points[:50], 100) == points[:50]

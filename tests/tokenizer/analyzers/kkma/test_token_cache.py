"""Kkma's cache of tokens: it costs nothing of the budget, and forgets the oldest, or all where the heap is full.

test_analyzer.py compares results.
"""

import random
from dataclasses import replace
from typing import Any

import pytest

from kogpt.tokenizer.analyzers.kkma.analyzer import _PROBE
from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer


@pytest.fixture(scope="module")
def kkma() -> Analyzer:
    return load_analyzer("kkma")


@pytest.fixture(scope="module")
def internals(kkma: Analyzer) -> dict[str, Any]:
    """The cache's package-private class, and constructors and methods of it."""
    import jpype

    package = "org.snu.ids.ha.ma."
    loader = jpype.JClass(package + "DocumentAnalyzer").class_.getClassLoader()
    cache, context = (jpype.java.lang.Class.forName(package + name, True, loader) for name in ("TokenCache", "Context"))
    found = {"new": cache.getDeclaredConstructor(jpype.JInt), "context": context.getDeclaredConstructor()}
    for method in cache.getDeclaredMethods():
        if method.getParameterCount() == 3 or str(method.getName()) == "clear":
            found[str(method.getName())] = method
    for member in found.values():
        member.setAccessible(True)
    return found


def test_a_token_found_in_the_cache_costs_nothing_of_the_budget(kkma: Analyzer) -> None:
    text = "황시욬" * 20 + " 나는 학교에 갔다. " + "진짜" * 10 + " " + "굿" * 9
    first = kkma.analyze(text)
    assert [kkma.analyze(text) for _ in range(3)] == [first] * 3


def add(internals: dict[str, Any], cache: Any, code: int, token: str, number: int) -> None:
    """Add a record of a token with this hash, which answers the number."""
    import jpype

    header = 16
    record = jpype.java.nio.ByteBuffer.allocate(header + 2 + 2 * len(token) + 200)
    record.putInt(8, jpype.JInt(code))
    record.putInt(12, record.limit())
    record.put(header, jpype.JByte(len(token)))
    for place, character in enumerate(token):
        record.putChar(header + 1 + 2 * place, character)
    record.putInt(header + 2 + 2 * len(token), jpype.JInt(number))
    internals["add"].invoke(cache, jpype.JInt(code), record.array(), record.limit())


def test_a_full_cache_forgets_the_oldest_and_confuses_nothing(internals: dict[str, Any]) -> None:
    import jpype

    cache, context = internals["new"].newInstance(jpype.JInt(2)), internals["context"].newInstance()
    draw = random.Random(1)
    tokens = ["".join(draw.choices("가나다라마", k=6)) for _ in range(4000)]
    held = 0
    for number, token in enumerate(tokens):
        add(internals, cache, draw.choice([7, 8]), token, number)  # two chains for all
        for probe in draw.sample(range(number + 1), min(3, number + 1)):
            for code in (7, 8):
                answer = internals["find"].invoke(cache, jpype.JInt(code), tokens[probe], context)
                if answer is not None:
                    held += 1
                    assert tokens[int(answer.getInt())] == tokens[probe]
    assert held > 1000
    assert internals["find"].invoke(cache, jpype.JInt(7), tokens[0], context) is None
    assert internals["find"].invoke(cache, jpype.JInt(8), tokens[0], context) is None


def test_a_cache_that_was_emptied_is_filled_again(internals: dict[str, Any]) -> None:
    import jpype

    cache, context = internals["new"].newInstance(jpype.JInt(2)), internals["context"].newInstance()
    find = lambda token: internals["find"].invoke(cache, jpype.JInt(7), token, context)  # noqa: E731
    for round in range(3):
        for number in range(1500):  # more than it holds
            add(internals, cache, 7, f"{number:04}", 10 * number + round)
        assert int(find("1499").getInt()) == 14990 + round
        internals["clear"].invoke(cache)
        assert find("1499") is None


def test_a_text_for_which_the_heap_was_too_full_is_analyzed_again(
    kkma: Analyzer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What earlier texts left there does not decide: the cache is empty then, and the budget a new one."""
    text = "나는 학교에 갔다. " + "진짜" * 10
    expected = kkma.analyze(text)
    asked: list[Any] = []
    ask = kkma._ask  # type: ignore[attr-defined]

    def once_too_full(text: str, budget: Any) -> Any:
        asked.append((text, budget))
        return replace(ask(text, budget), error="java.lang.OutOfMemoryError") if len(asked) == 1 else ask(text, budget)

    monkeypatch.setattr(kkma, "_ask", once_too_full)
    assert kkma.analyze(text) == expected
    assert [own for own, _ in asked] == [text, _PROBE[0], text]
    assert len({id(budget) for _, budget in asked}) == 3

"""Texts that are made to be slow: twice the text may take at most 2.5 times the CPU time, encoded and decoded.

A quadratic regular expression, sort, or library takes minutes on such texts. The ratio reveals it.
"""

import random
import time
from collections.abc import Callable

import pytest
from doubling import more_than_linear

from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import SPACINGS, Tokenizer, train_tokenizer

MARKS = "\u0300\u0323\u0345\u0327\u0591\u3099\u0f73"
SYLLABLES = [chr(code) for code in range(0xAC00, 0xD7A4, 37)]


def repeated(piece: str) -> Callable[[int], str]:
    return lambda length: (piece * (length // len(piece) + 1))[:length]


def drawn(characters: str | list[str]) -> Callable[[int], str]:
    return lambda length: "".join(random.Random(length).choices(characters, k=length))


HOSTILE = {
    "spaces": repeated(" "),
    "a blank line": lambda length: f"나는 간다.\n{' ' * length}\n나는 간다.",
    "spaces within a line": lambda length: f"나는{' ' * length}간다.",
    "blank lines": repeated(" \n"),
    "short lines": repeated("가\n"),
    "short words": repeated("가 "),
    "sentences": repeated("나는 학교에 갔다. "),
    "combining marks": lambda length: "a" + drawn(MARKS)(length),
    "Hebrew": drawn("אב\u05b8\u0591\u05bc"),
    "old jamo": repeated("\u1112\u119e\u11ab"),
    "conjoining jamo": repeated("\u1100\u1161"),
    "ㅏ": repeated("ㅏ"),
    "ㅋ": repeated("ㅋ"),
    "words of jamo": repeated("ㄷ" * 18 + " "),
    "brackets": repeated("["),
    "control tokens": repeated("[SEP]"),
    "#": repeated("#"),
    "## ": repeated("## "),
    "quotes": repeated('"'),
    "quoted words": repeated('"가" '),
    "hyphens": repeated("a-"),
    "numbers": repeated("1,"),
    "faces": repeated("^_^ -_- "),
    "lone surrogates": repeated("\ud800"),
    "emoji": repeated("👨\u200d"),
    "one eojeol": drawn(SYLLABLES),
}


@pytest.fixture(scope="module")
def tokenizers() -> list[Tokenizer]:
    documents = [("나는 학교에 갔다.", Analysis([], ["나", "는", "학교", "에", "가", "었", "다", "."], None))] * 4
    return [train_tokenizer(documents, 300, spacing=spacing, analyzer={"name": "none"}) for spacing in SPACINGS]


@pytest.fixture(scope="module")
def analyzers() -> dict[str, Analyzer]:
    loaded = {name: load_analyzer(name) for name in ("none", "kkma")}
    for _ in range(5):
        loaded["kkma"].analyze(repeated("나는 학교에 갔다. ")(20_000))  # compiles
    return loaded


def times(text: str, analyzers: dict[str, Analyzer], tokenizers: list[Tokenizer]) -> dict[str, float]:
    """CPU seconds of each step."""
    taken: dict[str, float] = {}

    def timed(step: str, function: Callable, *arguments: object) -> object:
        start = time.process_time()
        result = function(*arguments)
        taken[step] = time.process_time() - start
        return result

    normal = timed("normalize", lambda text: normalize(text)[0], text)
    for name, analyzer in analyzers.items():
        analysis = timed(name, analyzer.analyze, normal)
        for tokenizer in tokenizers:
            ids = timed(f"encode {name} {tokenizer.spacing}", tokenizer.encode, normal, analysis)
            again = timed(f"decode {name} {tokenizer.spacing}", tokenizer.decode, ids)
            assert again == normal or tokenizer.spacing == "morphemes"
    return taken


@pytest.mark.parametrize("name", HOSTILE)
def test_twice_the_text_takes_twice_the_time(
    name: str, analyzers: dict[str, Analyzer], tokenizers: list[Tokenizer]
) -> None:
    assert not more_than_linear(lambda length: times(HOSTILE[name](length), analyzers, tokenizers), 60_000)


@pytest.mark.parametrize(
    "text",
    [drawn(SYLLABLES)(300_000), "a" + drawn(MARKS)(300_000), f"가{' ' * 150_000}나", repeated("가\n")(300_000)],
)
def test_long_texts_take_seconds(text: str, analyzers: dict[str, Analyzer], tokenizers: list[Tokenizer]) -> None:
    assert sum(times(text, analyzers, tokenizers).values()) < 60

"""The two stages as work for a pool: what an actor sets up once, and what it does with one document.

`Analyse` needs an analyzer (for kkma a JVM: 4 to 5 s). `Encode` needs a tokenizer, which is sent as the bytes of its
files, because an actor on another node cannot see the driver's folders. Both are pure functions of document and
settings.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kogpt.tokenizer.analyzers.analysis import Analysis, AnalyzerBroken
from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer
from preprocess.units import MORPHEME_SEPARATOR, Analysed, Encoded

# Memory of an analyzing process, including Ray's share (kkma: 0.6 to 0.7 GB with a JVM for up to 4 threads).
MEMORY_MIB = {"kkma": 900, "kiwi": 800, "none": 300}
# Kkma's JVM runs without Python's GIL, so one JVM for several cores saves memory and compilation.
THREADS = {"kkma": 4, "kiwi": 1, "none": 1}
ENCODE_MEMORY_MIB = 400
# The time limit of an item grows with its length. Both speeds are far below any that was measured.
SLOWEST_CHARS_PER_SECOND = 500.0
SLOWEST_ENCODED_CHARS_PER_SECOND = 5_000.0

_WARM_UP = "아버지가 방에 들어가셨다. 첫 분석은 사전을 읽느라 오래 걸린다."


@dataclass(frozen=True)
class Analyse:
    """Stage 1: text -> the fields of `Analysed` after the text, which need not be sent back."""

    analyzer: str

    def __call__(self) -> Callable[[str], tuple[bytes, str, str | None]]:
        analyzer = load_analyzer(self.analyzer)
        analyzer.analyze(_WARM_UP)

        def work(text: str) -> tuple[bytes, str, str | None]:
            try:
                result = analysed(text, analyzer)
            except AnalyzerBroken:
                os._exit(1)  # the pool replaces the process and finds the text that caused it
            if "OutOfMemoryError" in (result.degraded or ""):
                # Perhaps a text in another thread used up the heap; a result must not depend on other texts.
                raise MemoryError
            return result[1:]

        return work


def analysed(text: str, analyzer: Analyzer) -> Analysed:
    """Analyze one text, and return the result in the form that is sent between processes."""
    analysis = analyzer.analyze(text)
    cuts = np.array(analysis.cuts, dtype="<i4").tobytes()
    return Analysed(text, cuts, MORPHEME_SEPARATOR.join(analysis.morphemes), analysis.degraded)


def without_analysis(text: str, analyzer: str, cause: str) -> Analysed:
    """The fallback for a text that kills its worker: its words without boundaries, marked as degraded."""
    uncut = analysed(text, load_analyzer("none"))
    return uncut._replace(degraded=f"quarantined: {analyzer} cannot analyse it ({cause}); its words are not cut")


def analysis_of(document: Analysed) -> Analysis:
    """The analysis from the form that is sent between processes."""
    cuts = np.frombuffer(document.cuts, dtype="<i4").tolist()
    morphemes = document.morphemes.split(MORPHEME_SEPARATOR) if document.morphemes else []
    return Analysis(cuts, morphemes, document.degraded)


@dataclass(frozen=True)
class Encode:
    """Stage 2: `Analysed` -> `Encoded`."""

    files: dict[str, bytes]

    def __call__(self) -> Callable[[Analysed], Encoded]:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                Path(folder, name).write_bytes(content)
            tokenizer = open_tokenizer(Path(folder))
        return lambda document: _encoded(document, tokenizer)


def encoding_with(tokenizer: Tokenizer) -> Encode:
    """Stage 2 with this tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return Encode({path.name: path.read_bytes() for path in Path(folder).iterdir()})


def _encoded(document: Analysed, tokenizer: Tokenizer) -> Encoded:
    ids = tokenizer.encode(document.text, analysis_of(document))
    unknown = tokenizer.count_unknown(ids)
    return Encoded(np.array(ids, dtype="<u4").tobytes(), unknown, document.degraded)

"""konlpy's Kkma in this process's JVM: the same morphemes, but faster, safe with emoji, and within limits.

In: normalized text. Out: the morphemes of konlpy's `Kkma().morphs(text)`, and their boundaries. A document takes one
call to Java (java/.../DocumentAnalyzer.java), with bytes both ways. Class files that are changed at start make Kkma
fast (README.md). Up to 4 threads may share one instance, because JPype releases the GIL during a call.

Text that Kkma cannot analyze at a bounded cost gets a fallback. The rules count work and never use a clock:

- A token over its budget (Budget.java) stays one morpheme, like an unknown word.
- A document is analyzed line by line if it has over MAX_DOCUMENT characters, if an eojeol has over MAX_EOJEOL, or if
  Kkma fails on it. A line for which this is true is analyzed eojeol by eojeol, and such an eojeol stays uncut.

`Analysis.degraded` says what fell back, and how much. A jar with an unknown checksum runs without acceleration and
without a budget, after a warning.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jpype
import jpype.nio

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.analysis import Analysis, AnalyzerBroken
from kogpt.tokenizer.analyzers.kkma.jvm import start_jvm
from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java
from kogpt.tokenizer.analyzers.kkma.prepared import keep, prepared_file, read

MAX_DOCUMENT = 100_000
MAX_EOJEOL = 20_000
_OUT_OF_MEMORY = "java.lang.OutOfMemoryError"
_HEADER = 20
_PROBE = ("나는 학교에 갔다.", ["나", "는", "학교", "에", "가", "었", "다", "."])


@dataclass
class _Parts:
    """An analysis under construction, from parts of a text."""

    cuts: list[int] = field(default_factory=list)
    morphemes: list[str] = field(default_factory=list)
    eojeols: int = 0
    characters: int = 0
    error: str | None = None

    def add(self, start: int, part: "_Parts") -> None:
        """Append the analysis of the part of the text that begins at `start`."""
        self.cuts += [start] * (start > 0 and bool(part.morphemes)) + [start + cut for cut in part.cuts]
        self.morphemes += part.morphemes
        self.eojeols += part.eojeols
        self.characters += part.characters
        self.error = self.error or part.error


@dataclass
class _Budget:
    """The budget of a document, shared by all its parts. Its Java object is made at the first call, which may fail."""

    text: str
    java: Any = None


_STARTING = threading.Lock()
"""Several threads may want the one JVM of the process at once."""


class Kkma:
    """The analyzer. It starts the JVM of the process, or uses the one that this class has started before."""

    def __init__(self, identity: dict[str, str], jar: Path | None = None) -> None:
        self.identity = identity
        with _STARTING:
            self._start(jar or konlpy_java() / "kkma-2.0.jar")
        self._new_budget = jpype.JClass("org.snu.ids.ha.ma.Budget")

    def _start(self, jar: Path) -> None:
        if not jpype.isJVMStarted():
            start_jvm(jar)
        try:
            self._java = jpype.JClass("org.snu.ids.ha.ma.DocumentAnalyzer")
        except TypeError:
            raise UserError(
                "A JVM without kogpt's classes already runs in this process: "
                "load the analyzer kkma before konlpy starts its own."
            ) from None
        self._load_dictionaries(prepared_file(jar))

    def _load_dictionaries(self, prepared: Path | None) -> None:
        if self._java.isLoaded():
            return
        arrays = read(prepared)
        if self._java.load(None if arrays is None else jpype.nio.convertToDirectBuffer(arrays)):
            keep(prepared, lambda: bytes(self._java.prepared()))

    def analyze(self, text: str) -> Analysis:
        """The morphemes of Kkma().morphs(text), and their boundaries. No text makes it raise."""
        if not text.strip():
            return Analysis([], [], None)
        parts = None if _is_long(text) else self._call(text, _Budget(text))
        if parts is not None and parts.error == _OUT_OF_MEMORY:
            self._java.forget()  # what earlier texts left in the heap must not decide about this one
            parts = self._call(text, _Budget(text))
        reason = ""
        if parts is None or parts.error:
            reason = "too long" if parts is None else f"failed with {parts.error}"
            parts = self._in_pieces(text)
            reason = f"kkma {reason}: analysed in pieces"
        if parts.eojeols:
            uncut = f"kkma budget: {parts.eojeols} eojeols, {parts.characters} characters uncut"
            reason = f"{reason}; {uncut}" if reason else uncut
        return Analysis(parts.cuts, parts.morphemes, reason or None)

    def _in_pieces(self, text: str) -> _Parts:
        """Analyze line by line; a line that is too long or fails, eojeol by eojeol; such an eojeol stays uncut."""
        whole, budget = _Parts(), _Budget(text)
        for start, line in _pieces(r"[^\n]+", text):
            if line.isspace():
                continue
            parts = None if _is_long(line) else self._call(line, budget)
            if parts is not None and not parts.error:
                whole.add(start, parts)
                continue
            for offset, eojeol in _pieces(r"\S+", line):
                parts = self._call(eojeol, budget) if len(eojeol) <= MAX_EOJEOL else None
                if parts is None or parts.error:
                    parts = _Parts([], [eojeol], 1, len(eojeol))
                whole.add(start + offset, parts)
        return whole

    def _call(self, text: str, budget: _Budget) -> _Parts:
        parts = self._ask(text, budget)
        if parts.error == _OUT_OF_MEMORY:
            # Continue if the JVM still analyzes a known sentence correctly.
            jpype.java.lang.System.gc()
            sentence, morphemes = _PROBE
            probe = self._ask(sentence, _Budget(sentence))
            if probe.error or probe.morphemes != morphemes:
                raise AnalyzerBroken("The JVM ran out of memory and does not recover: this process must be replaced.")
        return parts

    def _ask(self, text: str, budget: _Budget) -> _Parts:
        """One call to Java. `error` is the class of the exception, if it raised one."""
        try:
            if budget.java is None:
                budget.java = self._new_budget(len(budget.text.encode("utf-16-le", "surrogatepass")) // 2)
            answer = self._java.analyze(text.encode("utf-16-le", "surrogatepass"), budget.java)
            answer = memoryview(bytes(answer))
        except jpype.java.lang.Throwable as error:  # no heap for the bytes of the text or the answer
            return _Parts(error=str(type(error).__name__))
        if int.from_bytes(answer[:4], "little"):
            return _Parts(error=str(answer[4:], "utf-16-le", "replace").split(":")[0])
        _, eojeols, characters, count, cut_count = answer[:_HEADER].cast("i")
        middle = _HEADER + 4 * count
        end = middle + 4 * cut_count
        ends = answer[_HEADER:middle].cast("i").tolist()
        cuts = answer[middle:end].cast("i").tolist()
        joined = str(answer[end:], "utf-16-le", "surrogatepass")
        morphemes = [joined[start:stop] for start, stop in zip([0, *ends], ends, strict=False)]
        return _Parts(cuts, morphemes, eojeols, characters)


def _is_long(text: str) -> bool:
    if len(text) <= MAX_EOJEOL:
        return False
    return len(text) > MAX_DOCUMENT or max(map(len, text.split()), default=0) > MAX_EOJEOL


def _pieces(pattern: str, text: str) -> Iterator[tuple[int, str]]:
    return ((match.start(), match[0]) for match in re.finditer(pattern, text))

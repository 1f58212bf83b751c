"""konlpy's Kkma in this process's JVM: exact, fast, emoji-safe, and never stopped by a text.

In: normalised text. Out: the morphemes of konlpy's `Kkma().morphs(text)` and their cuts. One call crosses
to Java for a document (java/.../DocumentAnalyzer.java), with bytes both ways; class files changed at start
make Kkma fast (README.md). Several threads, up to 4, may share one instance: JPype releases the GIL in a call.

What Kkma cannot analyse at a bounded cost falls back, by rules that count and never look at a clock:

- a token beyond the budget (Budget.java) stays one uncut morpheme, as an unknown word does;
- a document over MAX_DOCUMENT characters, with an eojeol over MAX_EOJEOL, or at which Kkma fails is
  analysed line by line, such a line eojeol by eojeol, and such an eojeol is left uncut.

`Analysis.degraded` says which and how much. A jar of unknown checksum runs without acceleration and
without the budget, and a warning says so.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jpype

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.analysis import Analysis, AnalyzerBroken
from kogpt.tokenizer.analyzers.kkma.jvm import start_jvm
from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java

MAX_DOCUMENT = 100_000
MAX_EOJEOL = 20_000
_OUT_OF_MEMORY = "java.lang.OutOfMemoryError"
_HEADER = 20
_PROBE = ("나는 학교에 갔다.", ["나", "는", "학교", "에", "가", "었", "다", "."])


@dataclass
class _Parts:
    """An analysis as it grows from parts of a text."""

    cuts: list[int] = field(default_factory=list)
    morphemes: list[str] = field(default_factory=list)
    eojeols: int = 0
    characters: int = 0
    error: str | None = None

    def add(self, start: int, part: "_Parts") -> None:
        """Appends the analysis of the part of the text that begins at `start`."""
        self.cuts += [start] * (start > 0 and bool(part.morphemes)) + [start + cut for cut in part.cuts]
        self.morphemes += part.morphemes
        self.eojeols += part.eojeols
        self.characters += part.characters
        self.error = self.error or part.error


@dataclass
class _Budget:
    """What a document may cost in all its pieces; Java's part is made at the first call, where it may find no heap."""

    text: str
    java: Any = None


class Kkma:
    """Kkma; starts the JVM of the process, or shares one that this class has started."""

    def __init__(self, identity: dict[str, str], jar: Path | None = None) -> None:
        self.identity = identity
        if not jpype.isJVMStarted():
            start_jvm(jar or konlpy_java() / "kkma-2.0.jar")
        try:
            self._java = jpype.JClass("org.snu.ids.ha.ma.DocumentAnalyzer")
        except TypeError:
            raise UserError(
                "A JVM without kogpt's classes already runs in this process: "
                "load the analyzer kkma before konlpy starts its own."
            ) from None
        self._java.load()
        self._new_budget = jpype.JClass("org.snu.ids.ha.ma.Budget")

    def analyze(self, text: str) -> Analysis:
        """Morphemes as Kkma().morphs(text) has them, and their cuts; never raises for a text."""
        if not text.strip():
            return Analysis([], [], None)
        parts = None if _is_long(text) else self._call(text, _Budget(text))
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
        """Line by line; a line that will not do, eojeol by eojeol; such an eojeol uncut."""
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
            # A JVM that still analyses a sentence rightly may go on.
            jpype.java.lang.System.gc()
            sentence, morphemes = _PROBE
            probe = self._ask(sentence, _Budget(sentence))
            if probe.error or probe.morphemes != morphemes:
                raise AnalyzerBroken("The JVM ran out of memory and does not recover: this process must be replaced.")
        return parts

    def _ask(self, text: str, budget: _Budget) -> _Parts:
        """One call to Java; `error` is the class of what it threw."""
        try:
            if budget.java is None:
                budget.java = self._new_budget(len(budget.text.encode("utf-16-le", "surrogatepass")) // 2)
            answer = self._java.analyze(text.encode("utf-16-le", "surrogatepass"), budget.java)
            answer = memoryview(bytes(answer))
        except jpype.java.lang.Throwable as error:  # no heap even for the bytes of the text, or of the answer
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

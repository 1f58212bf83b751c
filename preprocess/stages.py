"""The two stages as work for a pool: what an actor sets up once, and what it does with one document.

`MorphemeStage` needs an analyzer (for kkma a JVM: about 1 s). `EncodingStage` needs a tokenizer, which is sent as the
bytes of its files, because an actor on another node cannot see the driver's folders. Both are pure functions of
document and settings. `MorphemePacking` and `EncodingPacking` make files of the results in the worker: of stage 1 one
for each unit, of stage 2 one for the units of a chunk.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from kogpt.data.split import is_uncut
from kogpt.tokenizer.analyzers.analysis import Analysis, AnalyzerBroken
from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer
from kogpt.tokenizer.chat import Message, render
from kogpt.tokenizer.wordpiece import Tokenizer, encoder_digest, open_tokenizer
from preprocess.conversations import placed_messages
from preprocess.units import (
    MORPHEME_SEPARATOR,
    CutText,
    Encoded,
    key_of,
    pack_cut_texts,
    pack_encoded,
    unpack_cut_texts,
)

# Memory of an analyzing process, including Ray's share (kkma: 0.6 to 0.7 GB with a JVM for up to 4 threads).
MEMORY_MIB = {"kkma": 900, "kiwi": 800, "none": 300}
# Kkma's JVM runs without Python's GIL, so one JVM for several cores saves memory and compilation.
THREADS = {"kkma": 4, "kiwi": 1, "none": 1}
ENCODE_MEMORY_MIB = 400
# The time limit of an item grows with its length. Both speeds are far below any that was measured.
SLOWEST_CHARS_PER_SECOND = 500.0
SLOWEST_ENCODED_CHARS_PER_SECOND = 5_000.0

MESSAGE_SEPARATOR = "\x1e"

_WARM_UP = "아버지가 방에 들어가셨다. 첫 분석은 사전을 읽느라 오래 걸린다."


@dataclass(frozen=True)
class MorphemeStage:
    """Stage 1: text -> the fields of `CutText` after the text, which need not be sent back."""

    analyzer: str

    def __call__(self) -> Callable[[str], tuple[bytes, str, str | None]]:
        analyzer = load_analyzer(self.analyzer)
        analyzer.analyze(_WARM_UP)

        def work(text: str) -> tuple[bytes, str, str | None]:
            try:
                result = find_morphemes(text, analyzer)
            except AnalyzerBroken:
                os._exit(1)  # the pool replaces the process and finds the text that caused it
            if "OutOfMemoryError" in (result.degraded or ""):
                # Perhaps a text in another thread used up the heap; a result must not depend on other texts.
                raise MemoryError
            return result[1:]

        return work


Sizes = Sequence[Sequence[int]]
"""the characters of each document of each unit of a chunk"""


def all_sizes(content: tuple[Any, ...]) -> list[int]:
    """Those of all documents of a chunk, whose content begins with its sizes."""
    return [size for unit in content[0] for size in unit]


@dataclass(frozen=True)
class MorphemePacking:
    """Chunks of stage 1: the texts of several units, in one part or more -> the file of each unit."""

    def items(self, sizes: Sizes, *parts: Sequence[str]) -> list[str]:
        return [text for part in parts for text in part]

    def pack(
        self,
        texts: Sequence[str],
        results: Sequence[tuple[bytes, str, str | None]],
        sizes: Sizes,
        *parts: Sequence[str],
    ) -> list[bytes]:
        documents = iter([CutText(text, *result) for text, result in zip(texts, results, strict=True)])
        return [pack_cut_texts(list(islice(documents, len(unit)))) for unit in sizes]


def find_morphemes(text: str, analyzer: Analyzer) -> CutText:
    """Analyze one text, and return the result in the form that is sent between processes.

    Each message of a conversation is analyzed on its own, and its boundaries are then shifted to its place in the text.
    """
    cuts: list[int] = []
    morphemes: list[str] = []
    degraded: str | None = None
    for start, message in placed_messages(text):
        analysis = analyzer.analyze(message.content)
        cuts += [start + cut for cut in analysis.cuts]
        morphemes.append(MORPHEME_SEPARATOR.join(analysis.morphemes))
        degraded = degraded or analysis.degraded
    return CutText(text, np.array(cuts, dtype="<i4").tobytes(), MESSAGE_SEPARATOR.join(morphemes), degraded)


def analyzed_messages(document: CutText, uncut: float = 0.0) -> list[tuple[Message, Analysis]]:
    """The messages of a conversation, each with its own analysis; an article is one message.

    Where the document is one of the share `uncut` of all, their words are not cut.
    """
    if uncut and is_uncut(hashlib.sha256(document.text.encode()).hexdigest(), uncut):
        whole = load_analyzer("none")
        return [(message, whole.analyze(message.content)) for _, message in placed_messages(document.text)]
    cuts = np.frombuffer(document.cuts, dtype="<i4")
    found: list[tuple[Message, Analysis]] = []
    for (start, message), morphemes in zip(
        placed_messages(document.text), document.morphemes.split(MESSAGE_SEPARATOR), strict=True
    ):
        first, last = np.searchsorted(cuts, [start, start + len(message.content)], side="left")
        own = (cuts[first:last] - start).tolist()
        found.append((message, Analysis(own, morphemes.split(MORPHEME_SEPARATOR) if morphemes else [], None)))
    return found


def without_analysis(text: str, analyzer: str, cause: str) -> CutText:
    """The fallback for a text that kills its worker: its words without boundaries, marked as degraded."""
    uncut = find_morphemes(text, load_analyzer("none"))
    return uncut._replace(degraded=f"quarantined: {analyzer} cannot analyse it ({cause}); its words are not cut")


@dataclass(frozen=True)
class EncodingPacking:
    """Chunks of stage 2: the files of several units -> one file."""

    def items(self, sizes: Sizes, *files: bytes) -> list[CutText]:
        return [document for file in files for document in unpack_cut_texts(file)]

    def pack(self, documents: Sequence[CutText], results: Sequence[Encoded], sizes: Sizes, *files: bytes) -> bytes:
        return pack_encoded(results)


@dataclass(frozen=True)
class EncodingStage:
    """Stage 2: `CutText` -> `Encoded`."""

    files: dict[str, bytes]
    uncut: float = 0.0

    def __call__(self) -> Callable[[CutText], Encoded]:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                Path(folder, name).write_bytes(content)
            tokenizer = open_tokenizer(Path(folder))
        return lambda document: _encoded(document, tokenizer, self.uncut)


def encoding_with(tokenizer: Tokenizer, uncut: float = 0.0) -> EncodingStage:
    """Stage 2 with this tokenizer, and this share of uncut documents."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        return EncodingStage({path.name: path.read_bytes() for path in Path(folder).iterdir()}, uncut)


def ids_key(keys: Iterable[str], tokenizer: Tokenizer, uncut: float = 0.0) -> str:
    """The key of the tokens of units: theirs, the vocabulary, and the code that encodes, which an update may change."""
    share = [f"uncut {uncut}"] if uncut else []
    return key_of(["tokens of units", *keys, tokenizer.sha256, tokenizer.spacing, encoder_digest(), *share])


def _encoded(document: CutText, tokenizer: Tokenizer, uncut: float) -> Encoded:
    parts = analyzed_messages(document, uncut)
    if parts[0][0].role:
        analyses = {message.content: analysis for message, analysis in parts}
        ids, learnt = render(
            [message for message, _ in parts], tokenizer, lambda text: tokenizer.encode(text, analyses[text])
        )
        flags = np.array(learnt, dtype=bool)
    else:
        ids, flags = tokenizer.encode(document.text, parts[0][1]), None
    unknown = tokenizer.count_unknown(ids)
    return Encoded(np.array(ids, dtype="<u4"), unknown, document.degraded, flags)

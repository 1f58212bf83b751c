"""Documents: sources -> `Document(id, source, text)` or `Dropped(id, source, reason, detail)`.

Files are parsed by preprocess.parsers; a `Layout` says which text of a JSON value or table row is meant. Texts are
normalized (kogpt.tokenizer.normalize); conversations become texts with marks (preprocess.conversations). What cannot be
read is yielded with the reason, and a broken file or line costs only itself. The id of a document is its source and its
number within the source: `source#number`.

Order and ids depend only on names and contents. Memory: that of the parser. Cost: parsing, NFC, and sha256, about 20
million characters/s.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from kogpt.tokenizer.normalize import Removed, normalize
from preprocess.archives import file_name
from preprocess.auto_layout import is_read_me, other_kind, refuse_mixture
from preprocess.conversations import Packed, sizes
from preprocess.layouts import Layout, advice
from preprocess.parsers import PARSE_ERRORS, one_line, values
from preprocess.sources import Source
from preprocess.streams import Broken


@dataclass(frozen=True)
class Document:
    """A normalized text, with its place in the input."""

    id: str
    source: str
    text: str
    sha256: str
    """of the text in UTF-8, in hexadecimal"""
    removed: Removed
    masked: tuple[tuple[str, int], ...] = ()
    """what the text has instead of personal data: (kind, number of masks)"""

    @property
    def sizes(self) -> dict[str, int]:
        """as `preprocess.conversations.sizes` counts"""
        return sizes(self.text)

    def dropped(self, reason: str, detail: str) -> "Dropped":
        """This document, left out for a reason."""
        return Dropped(self.id, self.source, reason, detail)


@dataclass(frozen=True)
class Dropped:
    """A text or file that does not go into the corpus, and why."""

    id: str
    source: str
    reason: str
    detail: str
    mend: str = field(default="", repr=False)  # advice for the screen, not recorded


def read_documents(sources: Iterable[Source], layout: Layout) -> Iterator[Document | Dropped]:
    """All documents of the sources in order; `preprocess.filters` decides which of them are kept."""
    for source, number, text in chain.from_iterable(_texts(source, layout) for source in sources):
        id = f"{source}#{number}"
        if isinstance(text, Broken):
            yield Dropped(id, source, text.reason, text.detail, text.mend)
            continue
        text, removed = text if isinstance(text, Packed) else normalize(text)
        yield Document(id, source, text, hashlib.sha256(text.encode()).hexdigest(), removed)


def _texts(source: Source, layout: Layout) -> Iterator[tuple[str, int, str | Packed | Broken]]:
    for name, stream in source.members():
        number = 0
        try:
            if layout.is_side_file(file_name(name)):
                raise Broken("side file", f"layout {layout.name} has no text in it")
            if is_read_me(file_name(name)):
                raise Broken(
                    "side file", "by its name it is about the articles, not one", "rename it if it is an article"
                )
            for value in layout.joined(values(name, stream, layout)):
                for text in _value_texts(name, value, layout, number == 0):
                    yield name, number, text
                    number += 1
        except Broken as broken:
            yield name, number, broken
        except PARSE_ERRORS as error:
            yield name, number, Broken("unreadable file", one_line(error))


def _value_texts(name: str, value: Any, layout: Layout, first: bool) -> Iterable[str | Packed | Broken]:
    if isinstance(value, Broken):
        return [value]
    if isinstance(value, str):
        if layout.kind == "articles":
            return [value]
        refuse_mixture(layout, name, value)
        return [Broken(layout.missing, "it is a text")]
    texts = layout.documents(value) or [None]
    if None not in texts:
        return texts
    if layout.guessed_from and all(text is None for text in texts) and other_kind(value, layout):
        refuse_mixture(layout, name, value)
    mend = advice(value) if first and not any(texts) and layout.kind == "articles" else ""
    missing = Broken(layout.missing, layout.describe(value), mend)
    return [missing if text is None else text for text in texts]

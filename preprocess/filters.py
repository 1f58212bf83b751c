"""Filters: which documents go into the corpus. In: `Document`. Out: the same, or `Dropped` with a reason.

A run has a list of filters (`filters_of`). Each sees the documents that the earlier ones kept, in the order of the
input. To add one, write a function (or a class with `__call__` if it must remember documents), add it to `filters_of`
under its option, add the option to `preprocess.plan.settings_of`, and test it. A filter that costs more than 0.1 ms an
article, or has to see all of them first, belongs in `preprocess.screen`, which judges on the workers.

The result must depend only on the documents and the options, because the input is filtered once for the plan and once
for the work, and every run must drop the same documents. Memory: 32 bytes and an id per document (duplicates).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from preprocess import personal
from preprocess.documents import Document, Dropped
from preprocess.options import Options

Filter = Callable[[Document], Document | Dropped]


def filters_of(options: Options) -> list[Filter]:
    """New filters for a run, in their order."""
    return [*single_filters(options), ExactDuplicates()]


def single_filters(options: Options) -> tuple[Filter, ...]:
    """Those that look at one document at a time, so that any worker can apply them; they come first."""
    personal_data: dict[str, list[Filter]] = {
        "keep": [],
        "mask": [without_personal_data],
        "drop": [no_personal_data],
    }
    return (not_empty, *personal_data[options.personal_data])


def kept(
    articles: Iterable[Document | Dropped], filters: Sequence[Filter], limit: int | None = None
) -> Iterator[Document | Dropped]:
    """The filtered articles in order, until `limit` documents are kept."""
    count = 0
    for article in articles:
        for filter in filters:
            if isinstance(article, Dropped):
                break
            article = filter(article)
        yield article
        count += isinstance(article, Document)
        if count == limit:
            return


def not_empty(document: Document) -> Document | Dropped:
    """Drop texts that consist of white space."""
    return document if document.text.strip() else document.dropped("empty", "no character but white space")


def without_personal_data(document: Document) -> Document:
    """Replace what identifies somebody by masks; the text with its masks counts as the document from here on."""
    text, counts = personal.mask(document.text)
    if not counts:
        return document
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return replace(document, text=text, sha256=sha256, masked=tuple(sorted(counts.items())))


def no_personal_data(document: Document) -> Document | Dropped:
    """Drop texts that identify somebody."""
    kinds = sorted({found.kind for found in personal.find(document.text)})
    return document.dropped("personal data", ", ".join(kinds)) if kinds else document


class ExactDuplicates:
    """Drop texts that are identical to an earlier one after normalization."""

    def __init__(self) -> None:
        self._first_with: dict[bytes, str] = {}

    def __call__(self, document: Document) -> Document | Dropped:
        first = self._first_with.setdefault(bytes.fromhex(document.sha256), document.id)
        return document if first == document.id else document.dropped("duplicate", f"same text as {first}")

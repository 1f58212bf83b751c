"""What a document must be to go into the corpus. In: `Document`. Out: the same, or `Dropped` with a reason.

A run is a list of them (`filters_of`); each sees what the ones before it let through, in the order of the input. To
add one, write a function (or a class with `__call__` where it must remember), name it in `filters_of` behind its
option, add the option to `preprocess.pipeline`'s settings, which decide whether a run may go on, and test it.

A filter must depend on the documents and its options alone: the same input is filtered once for the plan and once for
the work, and every run must drop the same. Memory: 32 bytes and an id per document (duplicates).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from preprocess.documents import Document, Dropped
from preprocess.options import Options

Filter = Callable[[Document], Document | Dropped]


def filters_of(options: Options) -> list[Filter]:
    """The filters that a run asks for, in their order, with nothing remembered yet."""
    return [not_empty, ExactDuplicates()]


def kept(
    articles: Iterable[Document | Dropped], filters: Sequence[Filter], limit: int | None = None
) -> Iterator[Document | Dropped]:
    """Everything in order, filtered, until `limit` documents are kept."""
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
    """Drops texts of white space alone."""
    return document if document.text.strip() else document.dropped("empty", "no character but white space")


class ExactDuplicates:
    """Drops texts that were there before, to the character after normalization."""

    def __init__(self) -> None:
        self._first_with: dict[bytes, str] = {}

    def __call__(self, document: Document) -> Document | Dropped:
        first = self._first_with.setdefault(bytes.fromhex(document.sha256), document.id)
        return document if first == document.id else document.dropped("duplicate", f"same text as {first}")

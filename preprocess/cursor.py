"""A place in a span of the input, from which a process reads the texts that it is asked for, in order.

In: how sources become articles, a span, and the numbers of articles in it. Out: their texts, if these are still those
that were outlined.
"""

from collections.abc import Callable, Iterator, Sequence

from kogpt.common.errors import UserError
from preprocess.documents import Document, Dropped
from preprocess.sources import Source
from preprocess.units import key_of

CHANGED = "the articles changed while they were read; repeat the same command"


class Cursor:
    """A place in a span, from which texts are read in order."""

    def __init__(self, articles: Callable[[Sequence[Source]], Iterator[Document | Dropped]]):
        self._articles = articles
        self._rest: Iterator[tuple[int, Document | Dropped]] = iter(())

    def open(self, sources: Sequence[Source]) -> None:
        """Begin a span."""
        self._rest = enumerate(self._articles(sources))

    def texts(self, numbers: Sequence[int], digest: str) -> list[str]:
        """The texts with these numbers, which follow those before. Raises `UserError` if they are others now."""
        left = iter(numbers)
        next_one = next(left, None)
        own: list[Document] = []
        while next_one is not None:
            number, article = next(self._rest, (-1, None))
            if article is None:
                raise UserError(CHANGED)
            if number == next_one:
                if isinstance(article, Document):
                    own.append(article)
                next_one = next(left, None)
        if key_of(document.sha256 for document in own) != digest:
            raise UserError(CHANGED)
        return [document.text for document in own]

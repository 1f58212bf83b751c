"""Report what the scan left out: for each reason an example file, what is wrong with it, and what to do.

An --input without a single article is an error, because its files were meant to be read. Files that a disk or network
failed to deliver (unreadable files) are only reported.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from kogpt.common.errors import UserError
from preprocess.documents import Dropped
from preprocess.sources import Source

SAME = ("duplicate", "near-duplicate")
"""Reasons of articles that are in the corpus, under another name."""
# Common in every corpus, so they are not reported.
_QUIET = {*SAME, "empty", "system file"}


class Losses:
    """Counts what a scan drops."""

    def __init__(self, sources: Sequence[Source], kind: str = "articles"):
        self._kind = kind
        self._items = {source.name: source.item for source in sources}
        self._first: dict[str, Dropped] = {}
        self._counts: dict[str, Counter[str]] = {item: Counter() for item in self._items.values()}
        self._examples: dict[str, Dropped] = {}
        self._found: set[str] = set()
        self._last = ("", "")

    def found_in(self, sources: Iterable[str]) -> None:
        """These sources have articles."""
        self._found.update(map(self._item, sources))

    def note(self, dropped: Dropped) -> None:
        """Count what was left out."""
        item = self._item(dropped.source)
        self._counts[item][dropped.reason] += 1
        self._first.setdefault(dropped.reason, dropped)
        known = self._examples.get(item)
        if known is None or (known.reason in _QUIET and dropped.reason not in _QUIET):
            self._examples[item] = dropped

    def _item(self, name: str) -> str:
        """The --input that a source, or a member of one, came from."""
        if name != self._last[0]:
            source = name
            while source not in self._items:
                source = source.rpartition("/")[0]
            self._last = (name, self._items[source])
        return self._last[1]

    def lines(self) -> list[str]:
        """A line for each reason that the user should see."""
        return [
            f"  {reason}: {_told(dropped)}" for reason, dropped in sorted(self._first.items()) if reason not in _QUIET
        ]

    def refuse_empty_inputs(self) -> None:
        """Raise a UserError, with the reason, if an --input has no article."""
        for item, counts in self._counts.items():
            if item in self._found or (self._found and counts.keys() <= {"unreadable file"}):
                continue
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(counts.items()))
            example = f": {_told(self._examples[item])}" if item in self._examples else ""
            raise UserError(f"--input {item}: it has no {self._kind[:-1]} ({reasons or 'it is empty'}){example}")


def _told(dropped: Dropped) -> str:
    return f"{dropped.source}: {dropped.detail}" + (f"; {dropped.mend}" if dropped.mend else "")

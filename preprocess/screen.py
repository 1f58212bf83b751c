"""Screening: filters that cost too much for the driver judge each text on the workers, and their verdicts are cached.

In: the documents that the other filters kept, in order. Out: the verdicts, a dict from the sha256 of a text that goes
to its reason and detail. A text that stays has no verdict, so the memory is that of the dropped ones.

The documents are read once more than without screening. They are grouped like the units of the analysis, and each
group's result lies in the cache folder under the hash of its texts and of everything that the verdicts depend on, code
included. So a run that continues, or finds its corpus finished, screens nothing twice.

Cost: 1 ms of a worker's CPU for an article of 1,400 characters, and what a stage costs the driver (preprocess.pool).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from preprocess import quality
from preprocess.documents import Document, Dropped
from preprocess.options import Options
from preprocess.quality import Limits, broken_rule
from preprocess.units import Store, Unit, group, key_of
from preprocess.work import Work
from preprocess.worker import Failed

Verdict = tuple[str, str]
"""reason, detail"""
MEMORY_MIB = 300
SLOWEST_CHARS_PER_SECOND = 5_000.0


@dataclass(frozen=True)
class Screening:
    """What is asked of each text; also the work of a pool."""

    thresholds: Mapping[str, Limits]

    def __call__(self) -> Callable[[str], Verdict | None]:
        return self.judge

    def judge(self, text: str) -> Verdict | None:
        """The reason why a text goes, or None."""
        broken = broken_rule(text, self.thresholds)
        return broken and (f"quality: {broken[0]}", broken[1])

    @property
    def digest(self) -> str:
        """A sha256 of all that a verdict depends on besides the text."""
        code = Path(quality.__file__).read_bytes().replace(b"\r\n", b"\n")
        return key_of([json.dumps(asdict(self)), hashlib.sha256(code).hexdigest()])


def screening_of(options: Options, kind: str) -> Screening | None:
    """The screening that the options ask for, if any. Raises `UserError` if it makes no sense for this kind of text."""
    thresholds = options.thresholds
    if thresholds is not None and kind == "conversations":
        raise UserError("--quality has rules for articles, and the input is conversations; leave out --quality")
    return None if thresholds is None else Screening(thresholds)


def screen(screening: Screening, documents: Iterable[Document], cache: Store, work: Work) -> dict[str, Verdict]:
    """The verdicts on all documents."""
    verdicts: dict[str, Verdict] = {}
    flying: dict[str, Unit] = {}
    digest = screening.digest

    def note(unit: Unit, results: Sequence[Any]) -> None:
        for document, verdict in zip(unit.documents, results, strict=True):
            if verdict is not None:
                verdicts[document.sha256] = (verdict[0], verdict[1])

    def chunks() -> Iterator[tuple[str, Sequence[str]]]:
        for unit in group(documents, {}):
            key = key_of([unit.key, digest])
            known = cache.get(key)
            if known is not None:
                note(unit, json.loads(known))
                continue
            flying[key] = unit
            yield key, [document.text for document in unit.documents]

    def commit(key: str, results: list[Any]) -> None:
        unit = flying.pop(key)
        # A worker's trouble is no verdict: the driver judges, without a limit.
        results = [
            screening.judge(document.text) if isinstance(result, Failed) else result
            for document, result in zip(unit.documents, results, strict=True)
        ]
        cache.put(key, json.dumps(results, ensure_ascii=False).encode())
        note(unit, results)

    work.through_pool(
        "screening",
        screening,
        chunks(),
        commit,
        chars=len,
        memory_mib=MEMORY_MIB,
        item_seconds=lambda text: len(text) / SLOWEST_CHARS_PER_SECOND,
    )
    return verdicts


def screened(articles: Iterable[Document | Dropped], verdicts: Mapping[str, Verdict]) -> Iterator[Document | Dropped]:
    """The articles in order, without the documents that have a verdict."""
    for article in articles:
        verdict = verdicts.get(article.sha256) if isinstance(article, Document) else None
        yield article if verdict is None else article.dropped(*verdict)  # type: ignore[union-attr]

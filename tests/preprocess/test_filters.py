"""Filters: what they keep, their order, and how to add one."""

from kogpt.tokenizer.normalize import Removed
from preprocess.documents import Document, Dropped
from preprocess.filters import ExactDuplicates, kept, not_empty


def document(number: int, text: str) -> Document:
    return Document(f"a#{number}", "a", text, f"{abs(hash(text)):064x}", Removed(0, 0))


BROKEN = Dropped("b#0", "b", "broken JSON", "at byte 3")
TEXTS = ["가", " \n", "나", "가", "\u3000", "다"]


def test_each_drop_has_its_reason_and_nothing_changes_places() -> None:
    articles = [document(i, text) for i, text in enumerate(TEXTS)]
    found = list(kept([BROKEN, *articles], [not_empty, ExactDuplicates()]))
    assert [getattr(article, "reason", None) for article in found] == [
        *("broken JSON", None, "empty", None, "duplicate", "empty", None)
    ]
    assert [article.id for article in found] == ["b#0", *(f"a#{i}" for i in range(6))]
    assert found[4] == Dropped("a#3", "a", "duplicate", "same text as a#0")


def test_the_limit_counts_what_is_kept() -> None:
    articles = [document(i, text) for i, text in enumerate(TEXTS)]
    found = list(kept([BROKEN, *articles], [not_empty], limit=2))
    assert [article.id for article in found] == ["b#0", "a#0", "a#1", "a#2"]


def test_a_filter_sees_only_what_those_before_it_let_through() -> None:
    seen = []

    def watch(document: Document) -> Document | Dropped:
        seen.append(document.text)
        return document

    list(kept([BROKEN, *(document(i, text) for i, text in enumerate(TEXTS))], [not_empty, watch, ExactDuplicates()]))
    assert seen == ["가", "나", "가", "다"]

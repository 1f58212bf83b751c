"""Groups of documents and the store of their results."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt.tokenizer.normalize import Removed
from preprocess.documents import Document
from preprocess.units import (
    MAX_CHARS,
    MAX_DOCUMENTS,
    CutText,
    Encoded,
    Store,
    group,
    key_of,
    pack_cut_texts,
    pack_encoded,
    unpack_cut_texts,
    unpack_encoded,
)


def document(text: str) -> Document:
    return Document("id", "source", text, hashlib.sha256(text.encode()).hexdigest(), Removed(0, 0))


def keys(texts: list[str], analyzer: str = "none") -> list[str]:
    return [unit.key for unit in group(map(document, texts), {"name": analyzer})]


TEXTS = [f"글 {i}" for i in range(2000)]


def test_units_hold_all_documents_in_order_within_the_maxima() -> None:
    texts = [*TEXTS, *("가" * 9000 + str(i) for i in range(100)), "나" * (3 * MAX_CHARS), "끝"]
    units = list(group(map(document, texts), {"name": "none"}))
    assert [d.text for unit in units for d in unit.documents] == texts
    for unit in units:
        assert len(unit.documents) <= MAX_DOCUMENTS
        assert len(unit.documents) == 1 or sum(len(d.text) for d in unit.documents) <= MAX_CHARS
    assert len({unit.key for unit in units}) == len(units)
    assert 40 < len(TEXTS) / len(keys(TEXTS)) < 100


def test_a_new_article_changes_one_or_two_units() -> None:
    before = set(keys(TEXTS))
    for place in (0, 777, 2000):
        assert len(set(keys([*TEXTS[:place], "새 글", *TEXTS[place:]])) - before) <= 2


def test_key_depends_on_texts_and_analyzer_alone() -> None:
    assert keys(TEXTS) == keys(list(TEXTS))
    assert not set(keys(TEXTS)) & set(keys(TEXTS, "kkma"))


def test_store_gives_back_what_was_put_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.get("k") is None
    store.put("k", b"content")
    store.put("other", b"")
    for name in ("k2.abc.tmp", "notes.txt"):  # a user's, whatever they are
        (tmp_path / name).write_bytes(b"half")
    stray = tmp_path / ".k2.abc.kogpt-0123456789abcdef"
    stray.write_bytes(b"half")
    again = Store(tmp_path)
    assert (again.get("k"), again.get("other"), again.get("k2")) == (b"content", b"", None)
    assert (tmp_path / "k2.abc.tmp").exists()
    assert (tmp_path / "notes.txt").exists()
    assert not stray.exists()


def test_runs_share_a_folder_at_the_same_time(tmp_path: Path) -> None:
    """Eight processes write the same 40 keys, and keep opening the folder again."""

    def run(number: int) -> list[bytes | None]:
        store = Store(tmp_path)
        for i in range(40):
            store.put(key_of([str(i)]), b"result %d" % i)
            assert store.get(key_of([str(i)])) == b"result %d" % i
            Store(tmp_path)
        return [store.get(key_of([str(i)])) for i in range(40)]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == [[b"result %d" % i for i in range(40)]] * 8
    assert len(list(tmp_path.iterdir())) == 40


def test_torn_or_altered_results_are_no_results(tmp_path: Path) -> None:
    content = pack_cut_texts([CutText("글" * 50, b"", "글", None)])
    for damage in (content[:-1], content[: len(content) // 2], b"", bytes([content[0] ^ 1]) + content[1:]):
        Store(tmp_path).put("k", content)
        (path,) = tmp_path.iterdir()
        path.write_bytes(damage)
        store = Store(tmp_path)
        assert store.get("k") is None
        assert not list(tmp_path.iterdir())
        store.put("k", content)
        assert store.get("k") == content


texts = st.text(st.characters(codec="utf-8"))
ints = st.lists(st.integers(0, 2**31 - 1), max_size=5)
notes = st.none() | st.text(st.characters(codec="utf-8"), max_size=5)


@settings(max_examples=50)
@given(st.lists(st.tuples(texts, ints, texts, notes), min_size=1))
def test_analyses_come_back(rows: list) -> None:
    analyses = [CutText(text, np.array(cuts, "<i4").tobytes(), joined, note) for text, cuts, joined, note in rows]
    assert unpack_cut_texts(pack_cut_texts(analyses)) == analyses


@settings(max_examples=50)
@given(st.lists(st.tuples(ints, st.integers(0, 2**40), notes), min_size=1))
def test_ids_come_back(rows: list) -> None:
    found = unpack_encoded(pack_encoded([Encoded(np.array(ids, "<u4"), *rest) for ids, *rest in rows]))
    assert found.ids.tolist() == [i for ids, *_ in rows for i in ids]
    assert found.lengths.tolist() == [len(ids) for ids, *_ in rows]
    assert (found.unknown_ids.tolist(), found.degraded.to_pylist()) == ([n for _, n, _ in rows], [n for *_, n in rows])
    assert found.learnt is None
    some = found.filtered(np.arange(len(rows)) % 2 == 1)
    assert some.ids.tolist() == [i for ids, *_ in rows[1::2] for i in ids]
    assert some.degraded.to_pylist() == [note for *_, note in rows[1::2]]

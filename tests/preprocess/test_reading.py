"""Inputs that workers read give the same bytes as those that the driver reads, also when a reader is lost."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
import ray
from pipelines import articles_in, checksums, elsewhere, scan_of

from kogpt.common.errors import UserError
from preprocess import outlines, pipeline, reading
from preprocess.cluster import connect, leave
from preprocess.documents import Document, read_documents
from preprocess.filters import kept, single_filters
from preprocess.layouts import Layout, named_layout
from preprocess.options import Options
from preprocess.pipeline import preprocess
from preprocess.reading import Readers, Reading
from preprocess.scan import PlannedUnit, Scan
from preprocess.sources import Source, find_sources
from preprocess.spans import bytes_for_workers
from preprocess.units import Store
from preprocess.worker import NotYet

ANALYZER = {"name": "none"}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    leave()


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Source]:
    """Nine small files in three spans, with texts that are dropped; blocks and units go across them."""
    monkeypatch.setattr("preprocess.spans.SPAN_SOURCES", 3)
    for k in range(9):
        lines = [json.dumps({"text": f"{'긴 ' * (k * i % 50)}글 {k} {i % 90}\u0007"}) for i in range(100)]
        (tmp_path / f"{k}.jsonl").write_text("\n".join([*lines, "{", '{"text": ""}']))
    return find_sources((str(tmp_path),))


def plain(sources: list[Source], layout: Layout) -> Any:
    return kept(read_documents(sources, layout), single_filters(Options(input=("x",), output="y")))


def reading_of(layout: Layout) -> Reading:
    return Reading(layout, single_filters(Options(input=("x",), output="y")))


@pytest.fixture(params=[True, False], ids=["actors", "driver"])
def readers(request: Any, sources: list[Source], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Readers]:
    store = Store(tmp_path_factory.mktemp("outlines"))
    one = Readers(reading_of(named_layout("plain")), sources, store, actors=request.param)
    yield one
    one.close()


def scan_by(readers: Readers) -> Scan:
    return Scan(readers.outlines(), readers._store, ANALYZER)


def in_twos(found: Scan) -> list[list[PlannedUnit]]:
    return [found.units[i : i + 2] for i in range(0, len(found.units), 2)]


def waited(answers: Iterable[Any]) -> Iterator[Any]:
    """The answers without those that say to wait."""
    for answer in answers:
        if isinstance(answer, NotYet):
            answer.wait()
        else:
            yield answer


def all_texts(readers: Readers, found: Scan, chunks: Iterable[list[PlannedUnit]]) -> list[str]:
    answers = readers.texts((chunk, found.wanted(chunk)) for chunk in chunks)
    return [text for _, parts in waited(answers) for part in parts for text in reading.fetched(part)]


def texts_of(sources: list[Source]) -> list[str]:
    """Each text once, as one process reads them."""
    articles = articles_in(sources, named_layout("plain"))
    return [article.text for article in articles if isinstance(article, Document)]


def test_outlines_and_texts_are_those_that_one_process_would_read(
    readers: Readers, sources: list[Source], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert len(readers.spans) == 3
    found = scan_by(readers).finish()
    alone = scan_of(plain(sources, named_layout("plain")), tmp_path_factory.mktemp("alone"))
    assert (found.fingerprint, found.chars, found.units) == (alone.fingerprint, alone.chars, alone.units)
    assert all_texts(readers, found, in_twos(found)) == texts_of(sources)


def test_texts_come_while_outlines_are_still_read(readers: Readers, sources: list[Source]) -> None:
    found = scan_by(readers)
    chunks = (units for units in found.coming() if units)
    assert all_texts(readers, found, chunks) == texts_of(sources)


def test_a_run_that_continues_reads_only_what_has_changed(
    readers: Readers, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    open_source = Source._open
    found = scan_by(readers).finish()
    opened: list[str] = []

    def watched(source: Source) -> Any:
        opened.append(source.name)
        return open_source(source)

    monkeypatch.setattr(Source, "_open", watched)

    def again() -> Scan:
        opened.clear()
        return scan_by(Readers(readers._reading, sources, Store(readers._store.folder), actors=False)).finish()

    assert (again().fingerprint, opened) == (found.fingerprint, [])
    readers._store.path(found._keys[2]).write_bytes(b"torn")
    assert (again().fingerprint, opened) == (found.fingerprint, ["6.jsonl", "7.jsonl", "8.jsonl"])
    path = Path(sources[4].paths[0])
    path.write_text(path.read_text() + "\n")
    assert (again().fingerprint, opened) == (found.fingerprint, ["3.jsonl", "4.jsonl", "5.jsonl"])


def test_driver_reads_on_when_readers_are_lost(sources: list[Source], tmp_path_factory: Any) -> None:
    readers = Readers(reading_of(named_layout("plain")), sources, Store(tmp_path_factory.mktemp("o")), actors=True)
    found = scan_by(readers)
    coming = found.coming()
    while not next(coming):
        pass
    for actor in readers._outliners:
        ray.kill(actor)
    for _ in coming:
        pass
    answers = waited(readers.texts((chunk, found.wanted(chunk)) for chunk in in_twos(found)))
    first = [text for part in next(answers)[1] for text in reading.fetched(part)]
    for actor in readers._texters:
        ray.kill(actor)
    rest = [text for _, parts in answers for part in parts for text in reading.fetched(part)]
    assert [*first, *rest] == texts_of(sources)


def test_a_store_that_workers_cannot_reach_is_read_by_the_driver(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """As where only the driver has its credentials."""
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/reach/{k}.jsonl": json.dumps({"text": f"글 {k}"}).encode() for k in range(3)})
    try:
        sources, layout = find_sources(("memory://reach",)), named_layout("plain")
        assert bytes_for_workers(sources) >= 3 << 18, "a small object takes as long as a file of this size"
        readers = Readers(reading_of(layout), sources, Store(tmp_path), actors=True)
        found = scan_by(readers).finish()
        assert all_texts(readers, found, in_twos(found)) == ["글 0", "글 1", "글 2"]
    finally:
        memory.rm("/reach", recursive=True)
    lost = [record.getMessage() for record in caplog.records if "a reader was lost" in record.getMessage()]
    assert all("(memory:///reach/2.jsonl changed while" in line for line in lost[:1])
    assert len(lost) == 1


def test_readers_end_with_a_scan_that_looks_at_the_beginning_only(readers: Readers, sources: list[Source]) -> None:
    found = Scan(readers.outlines(), readers._store, ANALYZER, limit=70).finish()
    assert not readers.ahead
    assert all_texts(readers, found, in_twos(found)) == texts_of(sources)[:70]


def test_a_mixture_of_articles_and_conversations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "물음", "answer": "답"}\n')
    guessed = reading_of(replace(named_layout("plain"), guessed_from="b.jsonl"))
    readers = Readers(guessed, find_sources((str(tmp_path),)), Store(tmp_path / "o"), actors=True)
    with pytest.raises(UserError, match=r"b\.jsonl has articles and a\.jsonl has conversations"):
        list(readers.outlines())
    readers.close()


def test_trouble_with_the_network_leaves_the_outlines(
    sources: list[Source], tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers = Readers(reading_of(named_layout("plain")), sources, Store(tmp_path_factory.mktemp("o")), actors=False)
    found = scan_by(readers).finish()

    def refused(source: Source) -> Any:
        raise UserError("the store does not answer")

    monkeypatch.setattr(Source, "members", refused)
    with pytest.raises(UserError, match="does not answer"):
        all_texts(readers, found, in_twos(found))
    assert all(readers._store.get(key) is not None for key in found._keys)


def test_a_file_that_could_not_be_read_is_read_again(
    sources: list[Source], tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights and disks are mended without a change of the file. What follows the file then lies in other blocks."""
    monkeypatch.setattr(outlines, "BLOCK", 16)
    open_path, folder = Source._open_path, tmp_path_factory.mktemp("o")

    def refused(source: Source, *place: Any) -> Any:
        if source.name == "4.jsonl":
            raise PermissionError("Permission denied")
        return open_path(source, *place)

    def again() -> Scan:
        return scan_by(Readers(reading_of(named_layout("plain")), sources, Store(folder), actors=False)).finish()

    with monkeypatch.context() as patched:
        patched.setattr(Source, "_open_path", refused)
        assert again().reasons["unreadable file"] == 1
    mended = again()
    assert "unreadable file" not in mended.reasons
    alone = scan_of(plain(sources, named_layout("plain")), tmp_path_factory.mktemp("alone"))
    assert mended.fingerprint == alone.fingerprint == again().fingerprint
    keys = [path.name.partition(".")[0] for path in folder.iterdir()]
    assert len(set(keys)) == len(keys), "no key has two contents"


def test_a_file_that_changes_while_it_is_outlined_is_noticed(readers: Readers, sources: list[Source]) -> None:
    path = Path(sources[4].paths[0])
    path.write_text(path.read_text() + "\n")
    with pytest.raises(UserError, match="the articles changed while they were read"):
        scan_by(readers).finish()


def test_one_hidden_folder_of_a_store_does_not_keep_the_readers_from_it(
    sources: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/hidden/a.jsonl": b'{"text": "a"}', "/hidden/z/.git/b": b"x"})
    given: list[Any] = []
    monkeypatch.setattr(reading._Reader, "options", lambda **_: SimpleNamespace(remote=lambda *own: given.append(own)))
    try:
        stored = find_sources(("memory://hidden",))
        assert [source.problem is None for source in stored] == [True, False]
        Readers(reading_of(named_layout("plain")), stored, Store(tmp_path / "o"), actors=True)
    finally:
        memory.rm("/hidden", recursive=True)
    assert given
    for _, user, stores in given:
        assert [source.name for source in stores] == ["a.jsonl"]
        assert user is None, "whoever a node's Ray runs as, the store is the same"


@pytest.mark.parametrize("change", ["changed", "gone", "swapped"])
def test_other_texts_than_before_are_noticed(readers: Readers, sources: list[Source], change: str) -> None:
    """Also if nobody could see it: then the outlines are removed, so that the next run makes new ones."""
    found = scan_by(readers).finish()
    path = Path(sources[4].paths[0])
    if change == "changed":
        path.write_text(path.read_text().replace("4 7", "4 8"))
    elif change == "gone":
        path.unlink()
    else:
        lines = path.read_text().split("\n")
        path.write_text("\n".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(UserError, match="the articles changed while they were read"):
        all_texts(readers, found, in_twos(found))
    assert not readers._store.folder.exists()


@pytest.mark.parametrize("limit", [None, 200])
def test_a_large_input_gives_the_same_bytes(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    alone = elsewhere(options, tmp_path / "alone", limit=limit)
    preprocess(alone)
    monkeypatch.setattr(pipeline, "LARGE", 0)
    monkeypatch.setattr("preprocess.spans.SPAN_SOURCES", 1)
    by_readers = elsewhere(options, tmp_path / "readers", limit=limit)
    preprocess(by_readers)
    assert checksums(by_readers) == checksums(alone)
    again = replace(by_readers, output=str(tmp_path / "again"))
    preprocess(again)
    assert checksums(again) == checksums(alone)

"""Stores are listed and sampled by a worker, and by the driver where no worker can."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from stores import Store, store

from kogpt.common.errors import UserError
from preprocess import sources
from preprocess.cluster import connect, leave
from preprocess.listing import layout_of, listed


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store(tmp_path_factory.mktemp("home")) as server:
        connect("local", 1)
        yield server
        leave()


def already() -> None:
    """Ray runs."""


def test_a_worker_lists_and_samples_a_store(server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("in/a.jsonl", '{"text": "하나"}'.encode())
    server.put("in/b/c.jsonl", '{"text": "둘"}'.encode())
    expected = sources.find_sources((server.url("in"),))

    def driver(*_: object) -> None:
        raise AssertionError("the driver asked the store")

    for name in ("file_system", "listing", "open_remote"):
        monkeypatch.setattr(sources, name, driver)
    found = listed((server.url("in"),), already)
    assert [source.url for source in found] == [source.url for source in expected]
    assert [source.state() for source in found] == [source.state() for source in expected]
    layout, sentence = layout_of(found)
    assert (layout.name, sentence[:12]) == ("plain", "layout auto:")


def test_local_files_are_listed_here_beside_a_store(server: Store, tmp_path: Path) -> None:
    server.put("beside/a.jsonl", b"{}")
    (tmp_path / "b.jsonl").write_text("{}")
    found = listed((str(tmp_path), server.url("beside")), already)
    assert [source.is_local for source in found] == [True, False]
    no_ray = lambda: pytest.fail("Ray is not needed")  # noqa: E731
    assert len(listed((str(tmp_path), f"file://{tmp_path}"), no_ray)) == 1


def test_the_driver_lists_what_no_worker_can(server: Store, caplog: pytest.LogCaptureFixture) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/only/a.txt", b"x")
    try:
        (source,) = listed(("memory://only",), already)
        assert source.name == "a.txt"
        layout_of([source])
    finally:
        memory.rm("/only", recursive=True)
    assert "a worker could not list memory://only (--input memory://only: no file found" in caplog.text


def test_what_is_not_there_is_one_sentence(server: Store, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"--input \S+: no file found \(there is nothing of this name\); check"):
        listed((server.url("nothing"),), already)
    assert not caplog.text


def test_what_a_worker_says_is_not_lost_where_the_driver_has_no_credentials(
    server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("who are you?")

    monkeypatch.setattr(sources, "file_system", refused)
    with pytest.raises(UserError, match=r"who are you\?.*; a worker says: --input \S+: no file found"):
        listed((server.url("nothing"),), already)

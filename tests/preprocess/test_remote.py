"""Objects of an S3 server as input: what is listed and read, and the sentence where the server does not give one."""

import gzip
import io
import os
import pickle
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from stores import Store, store

from kogpt.common.errors import UserError
from preprocess import remote
from preprocess.sources import Source, find_sources


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with store(tmp_path_factory.mktemp("home")) as server:
        yield server


def contents(*inputs: str) -> list[tuple[str, Any]]:
    found = []
    for source in find_sources(inputs):
        for name, stream in source.members():
            try:
                found.append((name, str(stream) if isinstance(stream, Exception) else stream.read()))
            except EOFError as error:
                found.append((name, str(error)))
    return found


def read(source: Source) -> list[Any]:
    return [stream.read() for _, stream in source.members()]


def files(folder: Path) -> None:
    """Names and archives that are read differently if anything is."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for name in ("둘.json", "하나.json"):
            archive.writestr(name, name.encode() * 100_000)
    whole = inner.getvalue()
    plain = {
        "a/[라벨] 1?.json": b"1",
        "a/b/#2%20.json": b"2",
        "a/b/.DS_Store": b"x",
        ".git/objects/3": b"x",
        ".git/4": b"x",
        "p.jsonl.gz": gzip.compress(b"five" * 1000),
        "q.zip": whole,
        "r.zip.part0": whole[:1000],
        "r.zip.part1000": whole[1000:],
        "s/cut.gz": gzip.compress(os.urandom(1000))[:500],
    }
    for name, content in plain.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def test_a_bucket_is_read_as_a_folder_is(server: Store, tmp_path: Path) -> None:
    files(tmp_path)
    server.put_folder(tmp_path, "in")
    for marker in ("in/", "in/a/", "in/empty/"):  # as consoles make them for folders
        server.put(marker, b"")
    expected = contents(str(tmp_path))
    assert len(expected) == 10
    for url in (server.url("in"), server.url("in/")):
        assert contents(url) == expected
    assert contents(server.url("in/**/*.json")) == [
        row for row in expected if row[0].endswith(".json") and "a/" in row[0]
    ]
    assert contents(server.url("in/q.zip")) == [row for row in expected if row[0].startswith("q.zip")]
    assert contents(server.url("in/a/[라벨] 1?.json")) == [("[라벨] 1?.json", b"1")]


def test_a_large_archive_is_read_in_ranges(server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1 << 16)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for i in range(20):
            archive.writestr(f"{i:02}.json", os.urandom(1 << 17))
    server.put("ranges/z.zip", whole.getvalue())
    (source,) = find_sources((server.url("ranges/z.zip"),))
    server.requests.clear()
    for _, stream in source.members():
        stream.read(10)
        break
    assert sum(method == "GET" for method, _ in server.requests) <= 4
    server.requests.clear()
    assert [len(stream.read()) for _, stream in source.members()] == [1 << 17] * 20
    assert sum(method == "GET" for method, _ in server.requests) < 60


def test_a_hidden_object_that_is_named_is_read(server: Store) -> None:
    server.put("named/.a.jsonl", b"mine")
    assert contents(server.url("named/.a.jsonl")) == [(".a.jsonl", b"mine")]
    assert contents(server.url("named"))[0][1] != b"mine"


def test_an_object_costs_one_request(server: Store) -> None:
    server.put("one/a.txt", b"x" * 10_000)
    (source,) = find_sources((server.url("one"),))
    server.requests.clear()
    assert read(source) == [b"x" * 10_000]
    assert server.requests == [("GET", f"/{server.bucket}/one/a.txt")]


def test_another_version_than_the_listed_one_ends_the_run(server: Store) -> None:
    server.put("change/a.txt", b"before")
    (source,) = find_sources((server.url("change"),))
    state = source.state()
    server.put("change/a.txt", b"behind")
    with pytest.raises(UserError, match=rf"{source.url} changed while the input was read; repeat the same command"):
        read(source)
    (again,) = find_sources((server.url("change"),))
    assert again.state() != state, "the size is the same, the ETag is not"
    server.delete("change/")
    with pytest.raises(UserError, match="changed while the input was read"):
        read(again)


def test_an_object_that_changes_while_it_is_read(server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_BLOCK", 1 << 16)
    server.put("torn/a.txt", bytes(1 << 22))
    (source,) = find_sources((server.url("torn"),))
    for _, stream in source.members():
        stream.read(1 << 20)
        server.put("torn/a.txt", b"1" * (1 << 22))
        with pytest.raises(UserError, match="changed while the input was read"):
            stream.read()


def test_what_is_sent_to_workers_has_no_secret(server: Store) -> None:
    server.put("sent/a.txt", b"x")
    sources = find_sources((server.url("sent"),))
    sent = pickle.dumps(sources)
    assert not any(secret.encode() in sent for secret in server.environment.values())
    assert [stream.read() for _, stream in pickle.loads(sent)[0].members()] == [b"x"]


def quickly(patch: pytest.MonkeyPatch) -> None:
    """Clients ask once."""
    patch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def asked_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    quickly(monkeypatch)
    yield monkeypatch
    monkeypatch.undo()
    s3fs.S3FileSystem.clear_instance_cache()


def test_what_is_not_there_is_one_sentence(server: Store) -> None:
    for url, why in (
        ("s3://no-such-bucket/in", "there is no bucket no-such-bucket"),
        (server.url("nothing/here"), "there is nothing of this name"),
        (server.url("nothing/*.json"), "it is empty"),
    ):
        with pytest.raises(UserError, match=rf"--input \S+: no file found \(.*{why}.*\); check the bucket") as raised:
            find_sources((url,))
        assert "\n" not in str(raised.value)


def test_without_credentials(server: Store, asked_once: pytest.MonkeyPatch) -> None:
    asked_once.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(UserError, match=r"cannot be read from .*Unable to locate credentials; set AWS_"):
        find_sources((server.url("in"),))


def test_a_server_that_is_away_for_a_while_is_asked_again(server: Store, asked_once: pytest.MonkeyPatch) -> None:
    server.put("away/a.txt", b"x")
    (source,) = find_sources((server.url("away"),))
    server.stop()
    try:
        with pytest.raises(UserError, match=r"Could not connect to .*; repeat the same command when it"):
            read(source)
        with pytest.raises(UserError, match=r"--input .* cannot be read from .*Could not connect"):
            find_sources((server.url("away"),))
        asked_once.delenv("AWS_MAX_ATTEMPTS")
        s3fs.S3FileSystem.clear_instance_cache()
        threading.Timer(1, server.start).start()
        assert contents(server.url("away")) == [("a.txt", b"x")]
    finally:
        if server._server is None:
            server.start()


def test_a_refused_object_is_not_left_out_of_the_corpus(server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A local file without permission is; but another node might be allowed to read this one."""
    server.put("mine/a.txt", b"x")
    (source,) = find_sources((server.url("mine"),))
    monkeypatch.setattr(server, "refused", lambda *_: ("403 Forbidden", "AccessDenied"))
    for refused in (lambda: read(source), lambda: find_sources((server.url("mine"),))):
        with pytest.raises(
            UserError, match=r"cannot be read from .*: (AccessDenied says the server|Forbidden); check the credent"
        ):
            refused()


def test_a_busy_server_is_asked_again(server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    server.put("busy/a.txt", b"x")
    answers = iter([("503 Slow Down", "SlowDown"), ("500 Internal Server Error", "InternalError")])
    monkeypatch.setattr(server, "refused", lambda *_: next(answers, None))
    assert contents(server.url("busy")) == [("a.txt", b"x")]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(UserError, match=r"--input s3://b/c cannot .*: s3:// needs .*; run pip install 'kogpt\[s3\]'$"):
        find_sources(("s3://b/c",))

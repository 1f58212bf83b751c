"""Whole runs from an S3 server and to one: the same bytes as from a folder, also when the driver or the server dies."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import s3fs
from stores import Store, store

from kogpt.common.errors import UserError
from preprocess import pipeline
from preprocess.cluster import connect, leave
from preprocess.options import Options
from preprocess.pipeline import preprocess
from preprocess.report_page import REPORT

RUN = Path(__file__).resolve().parents[2] / "preprocess" / "run.py"


@pytest.fixture(scope="module")
def server(options: Options, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The articles in a bucket, and a Ray whose workers find it."""
    with store(tmp_path_factory.mktemp("home")) as server:
        server.put_folder(Path(options.input[0]), "articles")
        connect("local", 2)
        yield server
        leave()


@pytest.fixture
def from_store(server: Store, options: Options) -> Options:
    """The same articles from the bucket, and the corpus to it. The analysis is in the cache."""
    server.delete("corpus")
    return replace(
        options,
        input=(server.url("articles"),),
        output=server.url("corpus"),
        cache=str(options.cache_folder),
    )


def stored(server: Store, name: str = "corpus") -> dict[str, str]:
    """name -> sha256 of every object of a corpus, without the report, which has times in it."""
    found = {key: server.get(f"{name}/{key}") for key in server.names(f"{name}/")}
    return {key: hashlib.sha256(content).hexdigest() for key, content in found.items() if key != REPORT}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_corpus_from_a_bucket_into_it_has_the_same_bytes(
    server: Store,
    from_store: Options,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    workers: int,
) -> None:
    """The workers list and read: the driver asks for no listing and gets no object."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(pipeline, "LARGE", 0)
    monkeypatch.setattr("preprocess.spans.SPAN_SOURCES", 1)
    opened: list[str] = []
    monkeypatch.setattr("preprocess.sources.open_remote", lambda _, path, __: opened.append(path))
    monkeypatch.setattr("preprocess.sources.listing", lambda _, path: opened.append(path))
    run = replace(from_store, workers=workers, cache=str(tmp_path / "cache"), layout="plain")
    preprocess(run)
    assert not opened
    assert stored(server) == undisturbed
    puts = [path for method, path in server.requests if method == "PUT"]
    assert puts[-1].endswith("corpus/manifest.json")
    assert "oursecret" not in caplog.text
    for name in server.names("corpus/"):
        assert b"oursecret" not in server.get(f"corpus/{name}")


def test_a_finished_corpus_is_finished_for_every_node(
    server: Store,
    from_store: Options,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    preprocess(from_store)
    before = stored(server)
    monkeypatch.setenv("HOME", str(tmp_path))  # as another node, which has nothing of it
    preprocess(from_store)
    assert f"{from_store.output} is finished; there is nothing to do" in caplog.text
    with pytest.raises(UserError, match=rf"--output {from_store.output} was made with no --limit, not 5; name"):
        preprocess(replace(from_store, limit=5))
    assert stored(server) == before


def test_what_a_url_holds_is_not_overwritten(server: Store, from_store: Options, tmp_path: Path) -> None:
    for output, sentence in (
        ("articles/corpus", r"is inside --input .*; name a URL outside"),
        ("articles", r"is inside --input .*; name a URL outside"),
        ("things", r"holds something that is not a corpus; name a new or empty URL"),
    ):
        server.put("things/mine", b"x")
        with pytest.raises(UserError, match=f"--output {server.url(output)} {sentence}"):
            preprocess(replace(from_store, output=server.url(output)))
    assert server.names("things/") == ["mine"]
    with pytest.raises(UserError, match=r"--output s3://no-such-\S+ cannot be written: .*bucket does not exist"):
        preprocess(replace(from_store, output="s3://no-such-bucket/corpus"))


def test_another_node_with_other_settings_finds_the_url_taken(
    server: Store, from_store: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline._Run, "_begin_scan", lambda *_: 1 / 0)  # the driver dies
    with pytest.raises(ZeroDivisionError):
        preprocess(from_store)
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=rf"--output {from_store.output} was begun with no --limit, not 5"):
        preprocess(replace(from_store, limit=5))


def test_changed_objects_are_noticed(
    server: Store, from_store: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    server.put("some/a.jsonl", '{"text": "첫 글"}'.encode())
    run = replace(from_store, input=(server.url("some"),), output=server.url("corpus-of-some"))
    preprocess(run)
    server.put("some/a.jsonl", '{"text": "새 글"}'.encode())
    with pytest.raises(UserError, match=r"was made with other articles \(1 with sha256 \w+; now 1 with sha256 \w+\)"):
        preprocess(run)


def wait_until(true: Callable[[], object], process: subprocess.Popen) -> None:
    end = time.monotonic() + 120
    while not true():
        assert process.poll() is None, "it ended before"
        assert time.monotonic() < end
        time.sleep(0.02)


def test_killed_driver_goes_on_where_it_was(
    server: Store, from_store: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 while it copies the corpus: what is there is no corpus, and the same command makes it one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    server.held = lambda method, path: method == "PUT" and path.endswith("tokens-00000.npy")
    flags = ("--input", *from_store.input, "--output", from_store.output, "--tokenizer", from_store.tokenizer)
    flags += ("--analyzer", "none", "--layout", "plain", "--cache", str(from_store.cache), "--ray-address", "local")
    server.requests.clear()
    process = subprocess.Popen([sys.executable, str(RUN), *flags], stderr=subprocess.PIPE, cwd=tmp_path)
    try:
        wait_until(lambda: any(server.held(*request) for request in server.requests), process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        server.held = lambda *_: False
        server.release.set()
    assert "articles.parquet" in server.names("corpus/")
    assert "manifest.json" not in server.names("corpus/")
    preprocess(from_store)
    assert stored(server) == undisturbed
    assert json.loads(server.get("corpus/manifest.json"))["counts"]["articles_in"] == 304


def test_a_server_that_goes_away_ends_the_run_with_one_sentence(
    server: Store, from_store: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    publish: Any = pipeline.publish

    def after_it_went(*arguments: Any) -> Any:
        server.stop()
        return publish(*arguments)

    monkeypatch.setattr(pipeline, "publish", after_it_went)
    try:
        with pytest.raises(UserError, match=r"--output .* cannot be written: Could not .*the same command copies"):
            preprocess(from_store)
    finally:
        server.start()
        monkeypatch.setattr(pipeline, "publish", publish)
        s3fs.S3FileSystem.clear_instance_cache()
    preprocess(from_store)
    assert stored(server) == undisturbed

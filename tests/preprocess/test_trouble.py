"""Failures during a run: texts that kill or block their worker, damaged results, full disks. Nothing is lost."""

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pipelines import checksums, elsewhere

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from preprocess import pipeline, stages, work
from preprocess.cluster import connect, leave
from preprocess.options import Options
from preprocess.pipeline import preprocess


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    leave()


def test_text_that_kills_its_worker_is_kept_and_listed(
    options: Options, undisturbed: dict[str, str], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killers = {texts[40]: 1, texts[41]: None}

    def planted(name: str) -> Callable[[], Callable[[str], Any]]:
        def setup() -> Callable[[str], Any]:
            import os

            from kogpt.tokenizer.analyzers.load import load_analyzer
            from preprocess.stages import find_morphemes

            analyzer = load_analyzer(name)

            def work(text: str) -> Any:
                if text in killers:
                    if killers[text]:
                        os._exit(1)
                    raise RecursionError
                return find_morphemes(text, analyzer)[1:]

            return work

        return setup

    monkeypatch.setattr(stages, "MorphemeStage", planted)
    other = elsewhere(options, tmp_path)
    preprocess(other)
    corpus = TokenCorpus.open(other.output_folder)
    assert corpus.manifest["counts"]["degraded"] == 2
    rows = [
        row for row in pq.read_table(other.output_folder / "dropped.parquet").to_pylist() if row["status"] == "degraded"
    ]
    assert [(row["id"], row["reason"]) for row in rows] == [
        ("a.jsonl#40", "quarantined"),
        ("a.jsonl#41", "quarantined"),
    ]
    assert "it ended or hung its worker" in rows[0]["detail"]
    assert "it raised RecursionError" in rows[1]["detail"]
    # The fallback of the analyzer "none" is itself, so all but the notes equals the undisturbed corpus.
    same = set(undisturbed) - {"dropped.parquet", "manifest.json"}
    assert {name: value for name, value in checksums(other).items() if name in same} == {
        name: undisturbed[name] for name in same
    }


def _sleeps_over(long: str) -> Callable[[str], Callable[[], Callable[[str], Any]]]:
    """An analyzer that never returns from one text."""

    def planted(name: str) -> Callable[[], Callable[[str], Any]]:
        def setup() -> Callable[[str], Any]:
            import time

            from kogpt.tokenizer.analyzers.load import load_analyzer
            from preprocess.stages import find_morphemes

            analyzer = load_analyzer(name)

            def work(text: str) -> Any:
                if text == long:
                    time.sleep(1000)
                return find_morphemes(text, analyzer)[1:]

            return work

        return setup

    return planted


def test_no_clock_decides_what_an_article_becomes(
    options: Options, undisturbed: dict[str, str], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = elsewhere(options, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(stages, "MorphemeStage", _sleeps_over(texts[40]))
        patch.setattr(work, "HANG_SECONDS", 1.5)
        with pytest.raises(UserError, match=r"1 articles took the analyzer none too long, the first is a\.jsonl#40 \("):
            preprocess(other)
    assert not (other.output_folder / "manifest.json").exists()
    made = set(other.cache_folder.iterdir())
    assert len(made) > 3, "all other units are there"
    preprocess(other)
    assert checksums(other) == undisturbed
    assert made < set(other.cache_folder.iterdir())


def test_an_article_that_stage_2_cannot_encode_there_is_encoded_by_the_driver(
    options: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*given: Any) -> Callable[[], Callable[[Any], Any]]:
        whole, driver = encoding_with(*given), os.getpid()

        def setup() -> Callable[[Any], Any]:
            import os

            function = whole()

            def work(document: Any) -> Any:
                if "🙂" in document.text and os.getpid() != driver:
                    os._exit(1)
                return function(document)

            return work

        return setup

    encoding_with = stages.encoding_with
    monkeypatch.setattr(stages, "encoding_with", planted)
    other = elsewhere(options, tmp_path, cache=str(options.cache_folder))
    preprocess(other)
    assert checksums(other) == undisturbed


def test_damaged_results_are_made_again(
    options: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MOST_UNITS", 4)
    other = elsewhere(options, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "assemble", None)  # stop before the corpus is put together
        with pytest.raises(TypeError):
            preprocess(other)
    results = [path for path in sorted(other.cache_folder.iterdir()) if path.stat().st_size]
    ids = sorted((other.output_folder / ".work" / "ids").iterdir())
    assert len(results) > 3 > len(ids) > 1
    for path in (results[0], ids[0]):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    results[1].write_bytes(results[1].read_bytes()[:100])
    ids[1].unlink()
    untouched = {path: path.stat().st_mtime_ns for path in results[2:]}
    preprocess(other)
    assert checksums(other) == undisturbed
    assert all(path.stat().st_mtime_ns == before for path, before in untouched.items() if path.exists())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the torn file's own close fails too
def test_full_disk_is_one_sentence_and_goes_on(options: Options, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """No file of this process may grow beyond some bytes (EFBIG); Ray's own processes are not concerned."""
    other = elsewhere(options, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, 3_000, 30_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(UserError, match=r"no space is left for .* repeat the same command"):
                preprocess(other)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    preprocess(other)
    assert checksums(other) == undisturbed


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_file_system_is_one_sentence_and_goes_on(
    options: Options, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", tmp_path], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        other = elsewhere(options, tmp_path)
        with pytest.raises(UserError, match=r"no space is left for .* \(No space left on device\)"):
            preprocess(other)
        subprocess.run(["mount", "-o", "remount,size=64m", tmp_path], check=True)
        preprocess(other)
        assert checksums(other) == undisturbed
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)

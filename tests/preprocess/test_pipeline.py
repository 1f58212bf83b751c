"""Articles to a finished corpus in this process: accounts, the same bytes on every road, refusals, trouble."""

import hashlib
import json
import os
import random
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import ray
from filelock import FileLock

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import open_tokenizer, train_tokenizer
from preprocess import pipeline, stages
from preprocess.cluster import connect
from preprocess.options import Options
from preprocess.pipeline import preprocess

COUNT = 300


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(0)
    syllables = [chr(code) for code in range(0xAC00, 0xAC00 + 11172, 97)]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(500)]
    texts = [" ".join(rng.choices(words, k=rng.randint(5, 120))) for _ in range(COUNT)]
    texts[7] += " 🙂👨‍👩‍👧 漢字 ᄒᆞᆫ\n\n\u3000끝  "
    return texts


@pytest.fixture(scope="module")
def options(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A small input with everything that is dropped, and a vocabulary that covers some of it."""
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "articles").mkdir()
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
    (folder / "articles" / "a.jsonl").write_text("\n".join([*lines, lines[0], '{"text": ""}', '{"x": 1}']))
    (folder / "articles" / "b.json").write_text('{"text"')
    (folder / "bert").mkdir()
    characters = sorted(set("".join(texts)) - set(" \n\u3000🙂漢"))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (folder / "bert" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return Options(
        input=(str(folder / "articles"),),
        output=str(folder / "corpus"),
        tokenizer=str(folder / "bert"),
        analyzer="none",
        layout="plain",
        workers=2,
    )


@pytest.fixture(scope="module")
def undisturbed(options: Options) -> dict[str, str]:
    """The bytes of a run that nothing happened to."""
    preprocess(options)
    return checksums(options)


def checksums(options: Options) -> dict[str, str]:
    """name -> sha256 of every file of a corpus folder."""
    folder = options.output_folder
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def elsewhere(options: Options, folder: Path, **changes: Any) -> Options:
    return replace(options, output=str(folder / "corpus"), **changes)


def test_corpus_holds_every_text_and_balances(options: Options, undisturbed: dict[str, str], texts: list[str]) -> None:
    corpus = TokenCorpus.open(options.output_folder)
    assert corpus.verify() == []
    tokenizer = open_tokenizer(corpus.tokenizer_folder)
    assert [tokenizer.decode(corpus.article(i)) for i in range(len(corpus))] == [normalize(text)[0] for text in texts]
    counts = corpus.manifest["counts"]
    assert (counts["articles_in"], counts["written"]) == (COUNT + 4, COUNT)
    assert counts["dropped"] == {"broken JSON": 1, "duplicate": 1, "empty": 1, "no text at the path": 1}
    dropped = pq.read_table(options.output_folder / "dropped.parquet").to_pylist()
    assert [(row["id"], row["reason"]) for row in dropped] == [
        (f"a.jsonl#{COUNT}", "duplicate"),
        (f"a.jsonl#{COUNT + 1}", "empty"),
        (f"a.jsonl#{COUNT + 2}", "no text at the path"),
        ("b.json#0", "broken JSON"),
    ]
    assert corpus.manifest["settings"]["layout"] == "plain"
    assert not any(
        str(options.output_folder.parent) in line for line in (options.output_folder / "manifest.json").open()
    )
    assert set(undisturbed) == {*corpus.manifest["files"], "manifest.json"}


def test_bytes_do_not_depend_on_the_workers_or_the_place(
    options: Options, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    other = elsewhere(options, tmp_path, workers=1, cache=str(tmp_path / "cold"))
    preprocess(other)
    assert checksums(other) == undisturbed


def test_finished_corpus_is_left_alone(
    options: Options, undisturbed: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "preprocess"):
        preprocess(options)
    assert f"{COUNT} articles; there is nothing to do" in caplog.text
    assert checksums(options) == undisturbed
    for changes, difference in [
        ({"spacing": "morphemes"}, "--spacing original, not morphemes"),
        ({"val_fraction": 0.5}, "--val-fraction 0.02, not 0.5"),
        ({"limit": 5}, "--limit None, not 5"),
        ({"layout": "auto", "text_path": "text"}, "--layout plain, not text"),
        ({"tokenizer": Options.tokenizer, "vocab_size": 400}, r"--tokenizer .*, not trained on the train split"),
        ({"analyzer": "kkma"}, "--analyzer none, not kkma"),
        ({"input": (f"{options.input[0]}/a.jsonl",)}, "other articles"),
    ]:
        with pytest.raises(UserError, match=f"was made with {difference}"):
            preprocess(replace(options, **changes))
    assert checksums(options) == undisturbed


def test_morphemes_are_used_again_by_another_tokenizer(
    options: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "Analyse", lambda name: None)  # nothing that could analyse
    trained = elsewhere(options, tmp_path, tokenizer=Options.tokenizer, vocab_size=400, cache=str(options.cache_folder))
    preprocess(trained)
    preprocess(other := elsewhere(options, tmp_path / "2", spacing="morphemes", cache=str(options.cache_folder)))
    assert TokenCorpus.open(trained.output_folder).manifest["tokenizer"]["source"] == "trained-400"
    assert len(TokenCorpus.open(other.output_folder)) == COUNT
    _learns_from_the_train_split_alone(TokenCorpus.open(trained.output_folder), trained.vocab_size)


def _learns_from_the_train_split_alone(corpus: TokenCorpus, size: int | None) -> None:
    assert size is not None
    kept = open_tokenizer(corpus.tokenizer_folder)
    analyzer = load_analyzer("none")

    def vocabulary(*parts: str) -> str:
        texts = (kept.decode(corpus.article(int(i)).tolist()) for part in parts for i in corpus.split(part))
        documents = ((text, analyzer.analyze(text)) for text in texts)
        return train_tokenizer(documents, size, spacing="original", analyzer=analyzer.identity).sha256

    assert vocabulary("train") == kept.sha256 != vocabulary("train", "val")


def test_text_that_kills_its_worker_is_kept_and_listed(
    options: Options, undisturbed: dict[str, str], texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killers = {texts[40]: 1, texts[41]: None}

    def planted(name: str) -> Callable[[], Callable[[str], Any]]:
        def setup() -> Callable[[str], Any]:
            import os

            from kogpt.tokenizer.analyzers.load import load_analyzer
            from preprocess.stages import analysed

            analyzer = load_analyzer(name)

            def work(text: str) -> Any:
                if text in killers:
                    if killers[text]:
                        os._exit(1)
                    raise RecursionError
                return analysed(text, analyzer)[1:]

            return work

        return setup

    monkeypatch.setattr(stages, "Analyse", planted)
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


def test_damaged_results_are_made_again(options: Options, undisturbed: dict[str, str], tmp_path: Path) -> None:
    other = elsewhere(options, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "CorpusWriter", None)  # stop before the corpus is put together
        with pytest.raises(TypeError):
            preprocess(other)
    results = [path for path in sorted(other.cache_folder.iterdir()) if path.stat().st_size]
    ids = sorted((other.output_folder / ".work" / "ids").iterdir())
    assert len(results) == len(ids) > 3
    for path in (results[0], ids[1]):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    results[1].write_bytes(results[1].read_bytes()[:100])
    ids[2].unlink()
    untouched = {path: path.stat().st_mtime_ns for path in (*results[2:], ids[0], *ids[3:])}
    preprocess(other)
    assert checksums(other) == undisturbed
    assert all(path.stat().st_mtime_ns == before for path, before in untouched.items() if path.exists())


def test_output_may_be_a_url(
    options: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    remote = replace(options, output="memory://bucket/corpus", cache=str(options.cache_folder))
    memory = fsspec.filesystem("memory")
    try:
        preprocess(remote)
        found = {name.removeprefix("/bucket/corpus/"): memory.cat_file(name) for name in memory.find("/bucket/corpus")}
        assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == undisturbed
        preprocess(remote)
        memory.pipe_file("/bucket/corpus/manifest.json", b"{}")
        with pytest.raises(UserError, match="--output memory://bucket/corpus holds another corpus"):
            preprocess(remote)
    finally:
        memory.rm("/bucket", recursive=True)
    with pytest.raises(UserError, match=r"--output nosuch://x cannot be written .*; the corpus itself is in"):
        preprocess(replace(remote, output="nosuch://x"))


def test_second_run_at_the_same_time_is_refused(options: Options, tmp_path: Path) -> None:
    other = elsewhere(options, tmp_path)
    (other.output_folder / ".work").mkdir(parents=True)
    with FileLock(other.output_folder / ".work" / ".lock"), pytest.raises(UserError, match=r"--output .* is in use"):
        preprocess(other)


def test_input_without_articles_is_an_error(options: Options, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    with pytest.raises(UserError, match=r"it has no article \(1 no text at the path\)"):
        preprocess(replace(options, input=(str(tmp_path / "a.json"),), output=str(tmp_path / "corpus")))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the torn file's own close fails too
def test_full_disk_is_one_sentence_and_goes_on(options: Options, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """No file of this process may grow beyond some bytes (EFBIG); Ray's own processes are not concerned."""
    other = elsewhere(options, tmp_path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (100, 3_000, 30_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(UserError, match=r"no space is left for .* run the same command again"):
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

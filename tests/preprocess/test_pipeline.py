"""The pipeline in this process: counts, identical bytes on every path, refusals, and failures."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from pipelines import COUNT, checksums, elsewhere

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import open_tokenizer, train_tokenizer
from preprocess import pipeline, stages
from preprocess.cluster import connect, leave
from preprocess.options import Options
from preprocess.pipeline import preprocess
from preprocess.report_page import REPORT
from preprocess.sources import Source
from preprocess.work import Work


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    leave()


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
    page = (options.output_folder / REPORT).read_text()
    for part in ("broken JSON: 1 of 1", f"a.jsonl#{COUNT}", "same text as a.jsonl#0", "ids: workers lost"):
        assert part in page


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
    different: list[tuple[dict[str, Any], str]] = [
        ({"spacing": "morphemes"}, "--spacing original, not morphemes"),
        ({"val_fraction": 0.5}, "--val-fraction 0.02, not 0.5"),
        ({"limit": 5}, "no --limit, not 5"),
        ({"layout": "auto", "text_path": "text"}, "--layout plain, not text"),
        ({"tokenizer": Options.tokenizer, "vocab_size": 400}, r"--tokenizer .*, not trained on the train split"),
        ({"analyzer": "kkma"}, "--analyzer none, not kkma"),
        ({"input": (f"{options.input[0]}/a.jsonl",)}, "other articles"),
    ]
    for changes, difference in different:
        with pytest.raises(UserError, match=f"was made with {difference}"):
            preprocess(replace(options, **changes))
    assert checksums(options) == undisturbed


def test_morphemes_are_used_again_by_another_tokenizer(
    options: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MorphemeStage", lambda name: None)  # nothing that could analyze
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


def test_one_article_has_nothing_to_validate_on_and_that_is_said(
    options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "one.txt").write_text("글 하나.")
    preprocess(elsewhere(options, tmp_path, input=(str(tmp_path / "one.txt"),)))
    assert "no validation split" in caplog.text


def test_personal_data_is_masked_or_dropped(options: Options, undisturbed: dict[str, str], tmp_path: Path) -> None:
    secrets = ["전화 02-123-4567, a@b.kr", "전화 02-765-4321, c@d.kr", "가나다"]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in secrets))
    files = {"input": (str(tmp_path / "a.jsonl"),)}
    preprocess(masked := elsewhere(options, tmp_path / "mask", **files, personal_data="mask"))
    preprocess(dropped := elsewhere(options, tmp_path / "drop", **files, personal_data="drop"))
    corpus = TokenCorpus.open(masked.output_folder)
    assert [open_tokenizer(corpus.tokenizer_folder).decode(corpus.article(i)) for i in range(len(corpus))] == [
        *("전화 [전화번호], [이메일]", "가나다")
    ]
    counts = corpus.manifest["counts"]
    assert (counts["dropped"], counts["masked"]) == ({"duplicate": 1}, {"email": 1, "phone": 1})
    assert corpus.manifest["settings"]["personal_data"] == "mask"
    assert TokenCorpus.open(dropped.output_folder).manifest["counts"]["dropped"] == {"personal data": 2}
    with pytest.raises(UserError, match="was made with --personal-data mask, not keep; name another folder"):
        preprocess(replace(masked, personal_data="keep"))
    kept = TokenCorpus.open(options.output_folder).manifest
    assert "masked" not in kept["counts"]
    assert "personal_data" not in kept["settings"]


def test_screening_is_cached_and_its_bytes_do_not_depend_on_the_workers(
    options: Options, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = max(texts, key=len)
    near = [long + " 끝", long.replace(" ", "  ", 2), long[:-9]]
    rows = dict.fromkeys([long, *texts[:100], near[0], "ㅋㅋ", "buy pills " * 30, *texts[100:], *near[1:]])
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in [*rows, texts[3]]))
    (tmp_path / "own.toml").write_text("length = { min = 5 }\nkorean = { min = 0.3 }\n")
    asked = {"quality": str(tmp_path / "own.toml"), "near_duplicates": 0.8}
    preprocess(first := elsewhere(options, tmp_path / "1", input=(str(tmp_path / "a.jsonl"),), **asked))
    manifest = TokenCorpus.open(first.output_folder).manifest
    assert manifest["counts"]["dropped"] == {
        "duplicate": 1,
        "near-duplicate": 3,
        "quality: korean": 1,
        "quality: length": 1,
    }
    assert manifest["settings"]["near_duplicates"] == 0.8
    assert manifest["settings"]["quality"] == {
        "name": "own.toml",
        "rules": {"korean": {"min": 0.3}, "length": {"min": 5}},
    }
    dropped = pq.read_table(first.output_folder / "dropped.parquet").to_pylist()
    found = {row["id"]: row["detail"] for row in dropped if row["reason"] == "near-duplicate"}
    assert list(found) == [f"a.jsonl#{i}" for i, text in enumerate(rows) if text in near]
    assert all(detail.startswith("0.9") and detail.endswith(" like a.jsonl#0") for detail in found.values())

    with monkeypatch.context() as read_by_workers:  # which also share one file
        read_by_workers.setattr(pipeline, "LARGE", 0)
        read_by_workers.setattr("preprocess.spans.SPAN_BYTES", 5_000)
        read_by_workers.setattr(Source, "_open", lambda source: 1 / 0)
        preprocess(cold := elsewhere(first, tmp_path / "2", workers=1, cache=str(tmp_path / "cold")))
    assert checksums(cold) == checksums(first)

    with monkeypatch.context() as nothing_that_could_screen:
        started = lambda *words, **needs: any(isinstance(one, tuple) for one in words[3]) and 1 / 0  # noqa: E731
        nothing_that_could_screen.setattr(Work, "through_pool", started)
        preprocess(first)
    with pytest.raises(
        UserError, match=r"made with --near-duplicates 0\.8, not without it and --quality own\.toml, not none;"
    ):
        preprocess(replace(first, quality="none", near_duplicates=None))


def test_articles_that_share_text_with_an_evaluation_are_dropped(
    options: Options, undisturbed: dict[str, str], texts: list[str], tmp_path: Path
) -> None:
    """A vocabulary is trained without them, as if they had never been there."""
    number = texts.index(max(texts, key=len))
    words = texts[number].split()
    items = [{"context": " ".join(words[3:16]), "choices": [texts[number][:9]]}, {"context": " ".join(words[:12])}]
    items += [{"context": " ".join(chr(0xAC00 + i) for i in range(20))}]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    shared = {"cache": str(options.cache_folder), "tokenizer": Options.tokenizer, "vocab_size": 400}
    secret = [text + " 전화 02-123-4567" * (i in (0, number)) for i, text in enumerate(texts)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in secret))
    asked = {
        "held_out": (str(tmp_path / "eval.jsonl"),),
        "personal_data": "mask",
        "input": (str(tmp_path / "a.jsonl"),),
    }
    clean = elsewhere(options, tmp_path / "clean", **shared, **asked)
    preprocess(clean)
    corpus = TokenCorpus.open(clean.output_folder)
    dropped = pq.read_table(clean.output_folder / "dropped.parquet").to_pylist()
    assert [row for row in dropped if row["reason"] == "held out"] == [
        {
            "id": f"a.jsonl#{number}",
            "source": "a.jsonl",
            "status": "dropped",
            "reason": "held out",
            "detail": f"shares with eval.jsonl: {' '.join(words[3:16])}",
        }
    ]
    assert corpus.articles["id"].to_pylist() == [f"a.jsonl#{i}" for i in range(COUNT) if i != number]
    assert corpus.manifest["settings"]["held_out"]["name"] == "eval.jsonl"
    assert corpus.manifest["counts"]["masked"] == {"phone": 1}, "of those that are in the corpus"
    rest = [json.dumps({"text": text}) + "\n" for i, text in enumerate(secret) if i != number]
    (tmp_path / "without.jsonl").write_text("".join(rest))
    asked = {"personal_data": "mask", "input": (str(tmp_path / "without.jsonl"),)}
    preprocess(without := elsewhere(options, tmp_path / "without", **shared, **asked))
    assert open_tokenizer(corpus.tokenizer_folder).vocab == open_tokenizer(without.output_folder / "tokenizer").vocab
    (tmp_path / "eval.jsonl").write_text(json.dumps(items[1]) + "\n")
    with pytest.raises(UserError, match=r"was made with other content of --held-out eval\.jsonl; name another folder"):
        preprocess(clean)


def test_output_may_be_a_url(
    options: Options, undisturbed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    remote = replace(options, output="memory://bucket/corpus", cache=str(options.cache_folder))
    memory = fsspec.filesystem("memory")
    try:
        preprocess(remote)
        found = {name.removeprefix("/bucket/corpus/"): memory.cat_file(name) for name in memory.find("/bucket/corpus")}
        assert b"<h1>Token corpus" in found.pop(REPORT)
        assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == undisturbed
        preprocess(remote)
        memory.pipe_file("/bucket/corpus/manifest.json", b"{}")
        with pytest.raises(UserError, match="--output memory://bucket/corpus holds another corpus"):
            preprocess(remote)
    finally:
        memory.rm("/bucket", recursive=True)
    with pytest.raises(UserError, match="--output nosuch://x cannot be written"):
        preprocess(replace(remote, output="nosuch://x"))


def test_second_run_at_the_same_time_is_refused(options: Options, tmp_path: Path) -> None:
    other = elsewhere(options, tmp_path)
    (other.output_folder / ".work").mkdir(parents=True)
    with FileLock(other.output_folder / ".work" / ".lock"), pytest.raises(UserError, match=r"--output .* is in use"):
        preprocess(other)


def test_cache_may_be_in_use_by_another_run(options: Options, undisturbed: dict[str, str], tmp_path: Path) -> None:
    other = elsewhere(options, tmp_path, cache=str(options.cache_folder))
    with FileLock(options.cache_folder / ".lock"):  # as version 0.1 holds it
        preprocess(other)
    assert checksums(other) == undisturbed


def test_input_without_articles_is_an_error(options: Options, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    with pytest.raises(UserError, match=r"it has no article \(1 no text at the path\)"):
        preprocess(replace(options, input=(str(tmp_path / "a.json"),), output=str(tmp_path / "corpus")))

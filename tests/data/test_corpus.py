"""The token corpus: what is written can be read, shards and splits are correct, and damage is detected."""

import hashlib
import json
import os
import random
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kogpt.common.errors import UserError
from kogpt.data import corpus_writer
from kogpt.data.corpus import TokenCorpus
from kogpt.data.corpus_writer import CorpusWriter
from kogpt.tokenizer.wordpiece import Tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
DROPPED = [
    {"id": "x", "source": "x.json", "status": "dropped", "reason": "empty", "detail": ""},
    {"id": "y", "source": "y.json", "status": "dropped", "reason": "duplicate", "detail": "of a0"},
    {"id": "a1", "source": "a.json", "status": "degraded", "reason": "cap", "detail": "1 eojeol"},
]


def tokenizer(vocab_size=300):
    vocab = SPECIAL + [f"w{i}" for i in range(vocab_size - 5)]
    return Tokenizer(vocab, spacing="morphemes", analyzer={"name": "none"}, source="test", base_size=vocab_size)


def articles(count, seed=0, vocab_size=300):
    generator = random.Random(seed)
    return [[generator.randrange(5, vocab_size) for _ in range(generator.randrange(0, 40))] for _ in range(count)]


def write(folder, texts, *, val_fraction=0.1, shard_ids=200, vocab_size=300, dropped=DROPPED, at_once=0, **finish):
    writer = CorpusWriter(
        folder, tokenizer(vocab_size), val_fraction=val_fraction, settings={"limit": None}, shard_ids=shard_ids
    )
    for start in range(0, len(texts), at_once) if at_once else ():
        own = list(enumerate(texts))[start : start + at_once]
        columns = {
            "id": [f"a{i}" for i, _ in own],
            "source": ["a.json"] * len(own),
            "text_sha256": [hashlib.sha256(f"{i} {ids}".encode()).hexdigest() for i, ids in own],
            "chars": [2 * len(ids) for _, ids in own],
        }
        ids = np.array([i for _, article in own for i in article], "<u4")
        writer.add_many(pa.table(columns), ids, np.array([len(a) for _, a in own]), np.array([i % 3 for i, _ in own]))
    for i, ids in enumerate(texts if not at_once else ()):
        sha = hashlib.sha256(f"{i} {ids}".encode()).hexdigest()
        writer.add(
            id=f"a{i}", source="a.json", text_sha256=sha, chars=2 * len(ids), ids=np.array(ids, int), unknown_ids=i % 3
        )
    gone = sum(row["status"] == "dropped" for row in dropped)
    defaults = {"articles_in": len(texts) + gone, "removed_controls": 4, "removed_surrogates": 1}
    return writer.finish(dropped=dropped, **(defaults | finish))


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_articles_come_back(tmp_path):
    texts = articles(100)
    fingerprint = write(tmp_path, texts)
    corpus = TokenCorpus.open(tmp_path)
    assert corpus.fingerprint == fingerprint
    assert corpus.fingerprint == hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert len(corpus) == 100
    for i, ids in enumerate(texts):
        assert corpus.article(i).tolist() == [2, *ids, 3]
        assert corpus.article(i).dtype == np.uint16
    assert corpus.verify() == []
    assert corpus.vocab_size == 300
    counts = corpus.manifest["counts"]
    total = sum(len(ids) + 2 for ids in texts)
    assert (counts["articles_in"], counts["written"], counts["dropped"]) == (102, 100, {"duplicate": 1, "empty": 1})
    assert (counts["degraded"], counts["ids"], counts["removed_controls"]) == (1, total, 4)
    assert sum(split["ids"] for split in counts["splits"].values()) == total
    assert pq.read_table(tmp_path / "dropped.parquet").to_pylist() == DROPPED
    assert corpus.articles.column_names == [
        "id", "source", "text_sha256", "chars", "ids", "unknown_ids", "split", "offset",
    ]  # fmt: skip


def test_shards_are_plain_npy_and_no_article_crosses_them(tmp_path):
    texts = articles(100)
    write(tmp_path, texts)
    shards = [np.load(path) for path in sorted(tmp_path.glob("tokens-*.npy"))]
    assert len(shards) > 5
    assert all(len(shard) <= 200 for shard in shards)
    whole = np.concatenate(shards)
    assert whole.tolist() == [i for ids in texts for i in (2, *ids, 3)]
    for shard in shards:
        assert shard[0] == 2
        assert shard[-1] == 3


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_many_articles_at_once_give_the_same_bytes(tmp_path, at_once):
    texts = [*articles(60), [8] * 500, [], *articles(60, seed=1), [9] * 198, [9] * 199, [9]]
    write(tmp_path / "one", texts)
    write(tmp_path / "many", texts, at_once=at_once)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


def test_an_article_longer_than_a_shard_has_its_own(tmp_path):
    texts = [[7] * 10, [8] * 500, [9] * 10]
    write(tmp_path, texts)
    corpus = TokenCorpus.open(tmp_path)
    assert [corpus.article(i).tolist()[1:-1] for i in range(3)] == texts


def test_large_vocabularies_take_uint32_and_two_bytes_are_enough_up_to_65536(tmp_path):
    for size, dtype in ((65_536, "uint16"), (65_537, "uint32")):
        write(tmp_path / dtype, [[size - 1]] * 3, vocab_size=size)
        corpus = TokenCorpus.open(tmp_path / dtype)
        assert corpus.manifest["dtype"] == dtype
        assert corpus.article(0).tolist() == [2, size - 1, 3]


def test_bytes_per_id(tmp_path):
    write(tmp_path, [[5] * 500] * 200, shard_ids=1 << 16)
    ids = TokenCorpus.open(tmp_path).manifest["counts"]["ids"]
    assert sum(path.stat().st_size for path in tmp_path.glob("tokens-*")) / ids <= 2.2


def test_bytes_depend_on_nothing_else(tmp_path):
    write(tmp_path / "a", articles(50))
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_corpus as t;"
        "from pathlib import Path; t.write(Path(sys.argv[2]), t.articles(50))"
    )
    subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__), str(tmp_path / "b")],
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "1", "TZ": "Asia/Seoul"},
    )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_split_is_by_rank_of_the_texts_hash(tmp_path):
    texts = articles(60)
    write(tmp_path, texts, val_fraction=0.1)
    corpus = TokenCorpus.open(tmp_path)
    hashes = corpus.articles["text_sha256"].to_pylist()
    ranked = sorted(range(60), key=lambda i: hashlib.sha256((hashes[i] + "split").encode()).hexdigest())
    assert sorted(ranked[:6]) == corpus.split("val").tolist()
    assert sorted(ranked[6:]) == corpus.split("train").tolist()


@pytest.mark.parametrize(
    ("count", "fraction", "val"), [(0, 0.1, 0), (1, 0.1, 0), (2, 0.1, 1), (2, 0.99, 1), (9, 0.0, 0), (40, 0.001, 1)]
)
def test_split_sizes(tmp_path, count, fraction, val):
    write(tmp_path, articles(count), val_fraction=fraction)
    corpus = TokenCorpus.open(tmp_path)
    assert len(corpus.split("val")) == val == corpus.manifest["counts"]["splits"]["val"]["articles"]
    assert len(corpus.split("train")) == count - val
    assert len(corpus.stream("val")) == corpus.manifest["counts"]["splits"]["val"]["ids"]
    assert corpus.verify() == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_streams_are_the_articles_end_to_end(tmp_path, split):
    texts = articles(80, seed=3)
    write(tmp_path, texts, val_fraction=0.3)
    corpus = TokenCorpus.open(tmp_path)
    expected = [i for a in corpus.split(split) for i in (2, *texts[a], 3)]
    stream = corpus.stream(split)
    assert len(stream) == len(expected)
    assert stream.read(0, len(expected)).tolist() == expected
    assert stream.read(0, 5).dtype == np.int64
    generator = random.Random(0)
    for _ in range(300):
        start = generator.randrange(len(expected) + 1)
        count = generator.randrange(len(expected) - start + 1)
        assert stream.read(start, count).tolist() == expected[start : start + count]
    for start, count in ((-1, 2), (len(expected), 1), (0, len(expected) + 1)):
        with pytest.raises(IndexError):
            stream.read(start, count)


def test_neighbours_are_one_run(tmp_path):
    write(tmp_path, articles(500), val_fraction=0.0, shard_ids=1 << 20)
    stream = TokenCorpus.open(tmp_path).stream("train")
    assert len(stream._runs) == 1


def test_verify_finds_every_kind_of_damage(tmp_path):
    write(tmp_path, articles(60))
    corpus = TokenCorpus.open(tmp_path)
    for name in corpus.manifest["files"]:
        path = tmp_path / name
        good = path.read_bytes()
        middle = len(good) // 2
        path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
        assert corpus.verify() == [f"{name} has changed: its checksum differs from the manifest"]
        path.write_bytes(good[:-1])
        assert corpus.verify() == [f"{name} has {len(good) - 1:,} bytes instead of {len(good):,}"]
        path.unlink()
        assert corpus.verify() == [f"{name} is missing"]
        path.write_bytes(good)
    assert corpus.verify() == []


def test_damage_that_reading_meets_is_one_sentence(tmp_path):
    write(tmp_path, articles(60))
    shard = tmp_path / "tokens-00001.npy"
    shard.write_bytes(shard.read_bytes()[:-10])
    corpus = TokenCorpus.open(tmp_path)
    with pytest.raises(UserError, match=r"tokens-00001\.npy cannot be read"):
        corpus.stream("train").read(0, len(corpus.stream("train")))
    (tmp_path / "articles.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match=r"articles\.parquet cannot be read"):
        TokenCorpus.open(tmp_path)


def test_what_is_not_a_corpus_is_refused(tmp_path):
    with pytest.raises(UserError, match="not a finished token corpus"):
        TokenCorpus.open(tmp_path)
    for content in ("{}", "no json", "[]", json.dumps({"format": "kogpt-corpus", "version": 99})):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(UserError, match=r"manifest\.json is not"):
            TokenCorpus.open(tmp_path)


def test_accounts_must_add_up_and_nothing_is_a_corpus_before_finish(tmp_path):
    with pytest.raises(ValueError, match="7 articles in, but 5 written"):
        write(tmp_path, articles(5), articles_in=7, dropped=[])
    assert not (tmp_path / "manifest.json").exists()
    write(tmp_path, articles(3), shard_ids=10)  # what the failed one left is overwritten
    corpus = TokenCorpus.open(tmp_path)
    names = {name for name in contents(tmp_path) if name != "manifest.json"}
    assert names == set(corpus.manifest["files"])
    with pytest.raises(UserError, match="holds a finished corpus"):
        write(tmp_path, articles(5))


def test_bad_arguments(tmp_path):
    with pytest.raises(UserError, match=r"--val-fraction 1\.0"):
        write(tmp_path, [], val_fraction=1.0)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        write(tmp_path, [[300]])


def test_bytes_do_not_depend_on_how_many_rows_wait_in_memory(tmp_path, monkeypatch):
    write(tmp_path / "once", articles(60))
    monkeypatch.setattr(corpus_writer, "_ROWS", 7)
    write(tmp_path / "often", articles(60))
    assert contents(tmp_path / "often") == contents(tmp_path / "once")


def test_a_table_that_is_written_in_groups_has_the_bytes_of_one_that_is_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("kogpt.data.corpus_writer._ROW_GROUP", 16)
    monkeypatch.setattr("kogpt.data.corpus_writer._ROWS", 5)
    for count in (32, 40):
        folder = tmp_path / str(count)
        write(folder, articles(count), val_fraction=0.2)
        table = pq.read_table(folder / "articles.parquet")
        pq.write_table(table, tmp_path / "whole", compression="zstd", row_group_size=16)
        assert (folder / "articles.parquet").read_bytes() == (tmp_path / "whole").read_bytes()
        assert table["offset"].to_pylist() == np.cumsum([0, *table["ids"].to_pylist()])[:-1].tolist()

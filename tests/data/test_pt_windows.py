"""Windows of 256 tokens from a corpus and back, in three formats, compared with other readers of them."""

import hashlib
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from builders import write_corpus

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.pt_windows import export_windows, import_pt
from kogpt.data.windows import compat_windows
from kogpt.tokenizer.wordpiece import load_tokenizer

LENGTHS = [1, 50, 125, 126, 127, 253, 254, 255, 300, 382, 400, 509, 510, 511, 900]
IDS = [f"자료/기사 {i}%.json#0" for i in range(len(LENGTHS) - 1)] + ["긴" * 200]


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocab")
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"단{i}" for i in range(995))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(vocab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus") / "corpus"
    tokenizer = load_tokenizer(str(vocab), spacing="morphemes", analyzer={"name": "none"})
    generator = random.Random(0)
    articles = []
    for name, length in zip(IDS, LENGTHS, strict=True):
        ids = [generator.randrange(5, 1000) for _ in range(length)]
        sha = hashlib.sha256(str(ids).encode()).hexdigest()
        articles.append(
            {"id": name, "source": "자료", "text_sha256": sha, "chars": length, "ids": ids, "unknown_ids": 0}
        )
    return TokenCorpus.open(write_corpus(folder, tokenizer, articles, shard_ids=1000))


@pytest.fixture(scope="module")
def expected(corpus):
    """(article number, window, ids, mask) of all windows."""
    return [
        (i, k, *window)
        for i in range(len(corpus))
        for k, window in enumerate(compat_windows(corpus.article(i).tolist()))
    ]


def test_pt_is_what_the_original_writes(corpus, expected, tmp_path):
    assert export_windows(corpus.folder, tmp_path / "out", "pt") == len(expected)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert len(files) == len(expected)
    for i, k, ids, mask in expected[:-4]:
        name = f"{IDS[i].replace('%', '%25').replace('/', '%2F')}_window_{k}.pt"
        window = torch.load(tmp_path / "out" / name, weights_only=True)
        assert set(window) == {"input_ids", "attention_mask"}
        assert window["input_ids"].dtype == window["attention_mask"].dtype == torch.int64
        assert window["input_ids"].tolist() == ids
        assert window["attention_mask"].tolist() == mask


def test_parquet(corpus, expected, tmp_path):
    export_windows(corpus.folder, tmp_path / "out", "parquet")
    rows = pq.read_table(tmp_path / "out" / "windows.parquet").to_pylist()
    found = [(row["article"], row["window"], row["input_ids"], row["attention_mask"]) for row in rows]
    assert found == [(IDS[i], k, ids, mask) for i, k, ids, mask in expected]
    assert rows[0]["name"].endswith("_window_0")


def check_megatron(sequences, documents, expected):
    assert [list(map(int, sequence)) for sequence in sequences] == [ids[: sum(mask)] for _, _, ids, mask in expected]
    articles = [i for i, *_ in expected]
    bounds = [0, *(k for k in range(1, len(articles)) if articles[k] != articles[k - 1]), len(articles)]
    assert list(map(int, documents)) == bounds


def test_megatron_read_by_deepspeed(corpus, expected, tmp_path):
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset

    export_windows(corpus.folder, tmp_path / "out", "megatron")
    dataset = MMapIndexedDataset(str(tmp_path / "out" / "windows"), skip_warmup=True)
    check_megatron([dataset[k] for k in range(len(dataset))], dataset.doc_idx, expected)
    assert dataset[0].dtype == np.int32


@pytest.mark.ecosystem
def test_megatron_read_by_megatron(corpus, expected, tmp_path):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    export_windows(corpus.folder, tmp_path / "out", "megatron")
    dataset = IndexedDataset(str(tmp_path / "out" / "windows"))
    check_megatron([dataset[k] for k in range(len(dataset))], dataset.document_indices, expected)


def test_import_joins_the_articles_again(corpus, vocab, tmp_path):
    export_windows(corpus.folder, tmp_path / "pt", "pt")
    fingerprint = import_pt(tmp_path / "pt", tmp_path / "again", tokenizer=str(vocab), analyzer="none")
    again = TokenCorpus.open(tmp_path / "again")
    assert again.fingerprint == fingerprint
    assert again.verify() == []
    found = {name: again.article(i).tolist() for i, name in enumerate(again.articles["id"].to_pylist())}
    whole = {name: corpus.article(i).tolist() for i, name in enumerate(IDS)}
    for name, length in zip(IDS[:-1], LENGTHS[:-1], strict=True):
        if length + 2 < 128:
            assert name not in found
        elif length + 2 <= 512:
            assert found[name] == whole[name]
        else:
            assert found[name] == [*whole[name][:511], 3]
    assert len(found) == sum(length + 2 >= 128 for length in LENGTHS)
    assert import_pt(tmp_path / "pt", tmp_path / "b", tokenizer=str(vocab), analyzer="none") == fingerprint


def test_windows_without_cls_and_sep(vocab, tmp_path):
    (tmp_path / "pt").mkdir()
    ids = torch.arange(5, 261)
    torch.save({"input_ids": ids, "attention_mask": torch.ones(256)}, tmp_path / "pt" / "a_window_0.pt")
    import_pt(tmp_path / "pt", tmp_path / "corpus", tokenizer=str(vocab), analyzer="none")
    corpus = TokenCorpus.open(tmp_path / "corpus")
    assert corpus.article(0).tolist() == [2, *ids.tolist(), 3]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_bad_windows_cost_their_article_only_and_never_run_code(corpus, vocab, tmp_path):
    export_windows(corpus.folder, tmp_path / "pt", "pt")

    def path(i, k):
        return tmp_path / "pt" / f"자료%2F기사 {i}%25.json#0_window_{k}.pt"

    def change(i, k, **tensors):
        torch.save(torch.load(path(i, k), weights_only=True) | tensors, path(i, k))

    path(5, 0).write_bytes(path(5, 0).read_bytes()[:500])  # truncated
    path(3, 0).write_bytes(b"")  # what a full disk leaves
    path(6, 0).unlink()  # missing
    change(7, 1, input_ids=torch.full((256,), 9))  # contradicts window 0
    change(4, 0, input_ids=torch.full((256,), 1008))  # not in the vocabulary
    torch.save(Evil(tmp_path / "evil"), path(8, 0))
    torch.save([1, 2], path(9, 0))
    change(10, 0, attention_mask=torch.tensor([1, 0] * 128))
    import_pt(tmp_path / "pt", tmp_path / "corpus", tokenizer=str(vocab), analyzer="none")
    assert not (tmp_path / "evil").exists()
    dropped = pq.read_table(tmp_path / "corpus" / "dropped.parquet").to_pylist()
    assert sorted(row["id"] for row in dropped) == sorted(IDS[i] for i in range(3, 11))
    details = {IDS.index(row["id"]): row["detail"] for row in dropped}
    assert "window_0.pt is not a window" in details[5]
    assert "is missing" in details[6]
    assert "does not continue" in details[7]
    assert "outside the 1008 tokens" in details[4]
    assert "mask" in details[10]
    counts = TokenCorpus.open(tmp_path / "corpus").manifest["counts"]
    assert counts["dropped"] == {"bad windows": 8}


def test_refusals(corpus, vocab, tmp_path):
    with pytest.raises(UserError, match="one of pt, parquet, megatron"):
        export_windows(corpus.folder, tmp_path / "out", "csv")
    with pytest.raises(UserError, match="not a finished token corpus"):
        export_windows(tmp_path, tmp_path / "out", "pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").touch()
    with pytest.raises(UserError, match="exists already"):
        export_windows(corpus.folder, tmp_path / "out", "pt")
    with pytest.raises(UserError, match="no file like"):
        import_pt(tmp_path / "out", tmp_path / "new", tokenizer=str(vocab), analyzer="none")
    with pytest.raises(UserError, match="is not a folder"):
        import_pt(tmp_path / "absent", tmp_path / "new", tokenizer=str(vocab), analyzer="none")


def test_what_the_user_has_there_already_is_left_alone(corpus, vocab, tmp_path):
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "thesis").write_text("mine")
    export_windows(corpus.folder, tmp_path / "out", "pt")
    (tmp_path / "tokens-00000.npy").write_text("mine")
    with pytest.raises(UserError, match="an unfinished corpus does not"):
        import_pt(tmp_path / "out", tmp_path, tokenizer=str(vocab), analyzer="none")
    assert (tmp_path / "out.tmp" / "thesis").read_text() == (tmp_path / "tokens-00000.npy").read_text() == "mine"


def test_a_failed_export_leaves_nothing(corpus, tmp_path):
    damaged = tmp_path / "corpus"
    damaged.mkdir()
    for path in corpus.folder.rglob("*"):
        target = damaged / path.relative_to(corpus.folder)
        target.mkdir() if path.is_dir() else target.write_bytes(path.read_bytes())
    shard = damaged / "tokens-00001.npy"
    shard.write_bytes(shard.read_bytes()[:200])
    for format in ("pt", "parquet", "megatron"):
        with pytest.raises(UserError, match=r"tokens-00001\.npy"):
            export_windows(damaged, tmp_path / "out", format)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus"]

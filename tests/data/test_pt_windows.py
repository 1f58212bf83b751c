"""Windows of 256 tokens from a corpus and back, in three formats, compared with other readers of them."""

import hashlib
import os
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from builders import constitution, encoded, make_tokenizer, write_corpus

from kogpt import cli_corpora
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


@pytest.mark.parametrize("spacing", ["original", "morphemes"])
def test_the_tokenizer_of_a_corpus_says_how_it_spaces(tmp_path, spacing):
    tokenizer = make_tokenizer(constitution(), 400, spacing)
    texts = [text[:400] for text in constitution()]
    source = TokenCorpus.open(write_corpus(tmp_path / "corpus", tokenizer, encoded(tokenizer, texts)))
    export_windows(source.folder, tmp_path / "pt", "pt")
    import_pt(tmp_path / "pt", tmp_path / "again", tokenizer=str(source.tokenizer_folder))
    again = TokenCorpus.open(tmp_path / "again")
    assert again.manifest["tokenizer"] == source.manifest["tokenizer"]
    assert again.manifest["analyzer"] == source.manifest["analyzer"]
    columns = ["id", "ids", "unknown_ids"] + (["chars", "text_sha256"] if spacing == "original" else [])
    whole = {row["id"]: row for row in source.articles.select(columns).to_pylist()}
    found = again.articles.select(columns).to_pylist()
    assert found == [whole[row["id"]] for row in found]
    assert len(found) >= 3
    with pytest.raises(UserError, match=r"--analyzer kiwi: the vocabulary of .* is used with none"):
        import_pt(tmp_path / "pt", tmp_path / "new", tokenizer=str(source.tokenizer_folder), analyzer="kiwi")


def test_what_is_left_out_is_said_and_nothing_is_no_corpus(corpus, vocab, tmp_path, caplog, capsys):
    export_windows(corpus.folder, tmp_path / "pt", "pt")
    cli_corpora.import_pt(tmp_path / "pt", tmp_path / "new", tokenizer=str(vocab), analyzer="none", stride=64)
    counts = TokenCorpus.open(tmp_path / "new").manifest["counts"]
    assert 0 < counts["dropped"]["bad windows"] < counts["articles_in"]
    assert capsys.readouterr().out == f"{counts['written']} articles -> {tmp_path / 'new'}\n"
    [said] = caplog.messages
    assert said.startswith(f"{counts['dropped']['bad windows']} of {counts['articles_in']} articles are left out")
    assert ": window 1 does not continue window 0 at stride 64); " in said
    assert str(tmp_path / "new" / "dropped.parquet") in said
    for path in (tmp_path / "pt").glob("*_window_0.pt"):
        if not path.with_name(path.name.replace("_window_0", "_window_1")).exists():
            path.unlink()
    with pytest.raises(UserError, match=r"no article of .*: window 1 does .* at stride 64\); give the --stride"):
        import_pt(tmp_path / "pt", tmp_path / "none", tokenizer=str(vocab), analyzer="none", stride=64)
    assert not (tmp_path / "none" / "manifest.json").exists()


def test_windows_that_do_not_overlap_are_joined_and_only_those(corpus, vocab, tmp_path):
    """At a stride of their length, overlapping windows have no token that contradicts it: some would come twice."""
    export_windows(corpus.folder, tmp_path / "pt", "pt")
    import_pt(tmp_path / "pt", tmp_path / "new", tokenizer=str(vocab), analyzer="none", stride=256)
    dropped = pq.read_table(tmp_path / "new" / "dropped.parquet").to_pylist()
    said = "window 1 begins with the last 128 tokens of window 0: stride 256 is too large"
    assert [row["detail"] for row in dropped] == [said for length in LENGTHS if length + 2 >= 256]
    (tmp_path / "apart").mkdir()
    for i in range(len(corpus)):
        for k, (ids, mask) in enumerate(compat_windows(corpus.article(i).tolist(), stride=256, max_length=1000)):
            window = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
            torch.save(window, tmp_path / "apart" / f"{i}_window_{k}.pt")
    import_pt(tmp_path / "apart", tmp_path / "again", tokenizer=str(vocab), analyzer="none", stride=256)
    again = TokenCorpus.open(tmp_path / "again")
    found = {name: again.article(i).tolist() for i, name in enumerate(again.articles["id"].to_pylist())}
    assert found == {str(i): corpus.article(i).tolist() for i in range(len(corpus))}


@pytest.mark.skipif(os.name == "nt" or sys.platform == "darwin", reason="the names of these systems are Unicode")
def test_names_may_be_in_another_encoding(corpus, vocab, tmp_path):
    export_windows(corpus.folder, tmp_path / "pt", "pt")
    good, bad = (os.fsdecode(word.encode("cp949") + b"_window_0.pt") for word in ("가", "나"))
    one = next((tmp_path / "pt").glob("자료*_window_0.pt"))
    (tmp_path / "pt" / good).write_bytes(one.read_bytes())
    (tmp_path / "pt" / bad).touch()
    import_pt(tmp_path / "pt", tmp_path / "corpus", tokenizer=str(vocab), analyzer="none")
    articles = TokenCorpus.open(tmp_path / "corpus").articles
    assert r"\udcb0\udca1" in articles["id"].to_pylist()
    assert r"\udcb0\udca1" in articles["source"].to_pylist()
    [dropped] = pq.read_table(tmp_path / "corpus" / "dropped.parquet").to_pylist()
    assert dropped["id"] == r"\udcb3\udcaa"
    assert dropped["detail"].startswith(r"\udcb3\udcaa_window_0.pt is not a window")


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

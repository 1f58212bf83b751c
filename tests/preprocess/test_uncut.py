"""`--uncut`: a share of the training articles that are not cut into morphemes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pipelines import COUNT, checksums, elsewhere

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.split import is_uncut
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.wordpiece import open_tokenizer
from preprocess import stages
from preprocess.cluster import connect, leave
from preprocess.options import Options
from preprocess.pipeline import preprocess

SHARE = 0.2


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    connect("local", 2)
    yield
    leave()


def test_a_share_of_the_articles_is_one_by_their_text() -> None:
    hashes = [sha256(str(i).encode()).hexdigest() for i in range(5000)]
    chosen = {share: {h for h in hashes if is_uncut(h, share)} for share in (0.0, 0.1, 0.3)}
    assert not chosen[0.0]
    assert len(chosen[0.1]) == pytest.approx(500, abs=70)
    assert chosen[0.1] < chosen[0.3]


def cuts_everywhere(name: str) -> Callable[[], Callable[[str], Any]]:
    """Stage 1 by an analyzer for which every character is a morpheme."""

    def setup() -> Callable[[str], Any]:
        import numpy as np

        def work(text: str) -> Any:
            return np.arange(1, len(text), dtype="<i4").tobytes(), "", None

        return work

    return setup


def test_they_are_encoded_without_cuts_and_counted(
    options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "MorphemeStage", cuts_everywhere)
    asked = {"tokenizer": Options.tokenizer, "vocab_size": 1500, "uncut": SHARE}
    preprocess(one := elsewhere(options, tmp_path / "1", **asked))
    preprocess(other := elsewhere(options, tmp_path / "2", **asked, workers=1, cache=str(tmp_path / "cold")))
    assert checksums(one) == checksums(other)
    corpus = TokenCorpus.open(one.output_folder)
    assert corpus.manifest["settings"]["uncut"] == SHARE
    tokenizer = open_tokenizer(corpus.tokenizer_folder)
    found = {"train": 0, "val": 0}
    for i, (split, hash) in enumerate(
        zip(*(corpus.articles[c].to_pylist() for c in ("split", "text_sha256")), strict=True)
    ):
        ids = corpus.article(i)[1:-1].tolist()
        text = tokenizer.decode(ids)
        cuts = [] if is_uncut(hash, SHARE) else list(range(1, len(text)))
        assert ids == tokenizer.encode(text, Analysis(cuts, [], None))
        found[split] += not cuts
    assert found == {"train": corpus.manifest["counts"]["uncut"], "val": 0}
    assert 0.1 * COUNT < found["train"] < 0.3 * COUNT
    whole = [piece for piece in tokenizer.vocab[: tokenizer.base_size] if len(piece.removeprefix("##")) > 1]
    assert len(whole) > 100, "the vocabulary has no words of the uncut articles"
    with pytest.raises(UserError, match=r"was made with --uncut 0\.2, not 0\.0; name another folder"):
        preprocess(replace(one, uncut=0.0))


def test_no_article_can_be_in_both() -> None:
    with pytest.raises(UserError, match="more than all articles together"):
        Options(input=("x",), output="y", uncut=0.9, val_fraction=0.2)

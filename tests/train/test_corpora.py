"""Several corpora in one training: their shares, their vocabularies, and how long the training may be."""

from pathlib import Path

import pytest
import torch
from builders import bills, constitution, encoded, make_tokenizer, without_roles, write_corpus

from kogpt.common.errors import UserError
from kogpt.common.flags import WeightedPath
from kogpt.data.loader import Share
from kogpt.tokenizer.wordpiece import Tokenizer
from kogpt.train.corpora import Corpora, open_corpora


@pytest.fixture(scope="module")
def folders(tokenizer: Tokenizer, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Corpora: `law` as all others have it, `bills` with the same vocabulary, `old` without role tokens, `other`."""
    made = tmp_path_factory.mktemp("corpora")
    old, other = without_roles(tokenizer), make_tokenizer()
    return {
        "law": corpus,
        "bills": write_corpus(made / "bills", tokenizer, encoded(tokenizer, bills()[:3], "kobill")),
        "old": write_corpus(made / "old", old, encoded(old, constitution()[:6])),
        "other": write_corpus(made / "other", other, encoded(other, constitution()[:6])),
    }


def _open(folders: dict[str, Path], main: dict[str, float | None], mix: dict[str, float] | None = None) -> Corpora:
    return open_corpora(
        [WeightedPath(folders[name], share) for name, share in main.items()],
        [WeightedPath(folders[name], share) for name, share in (mix or {}).items()],
    )


def test_shares_are_those_of_the_whole(folders: dict[str, Path]) -> None:
    alone = _open(folders, {"law": None})
    assert [part.share for part in alone.parts] == [1.0]
    assert alone.fingerprint == alone.main.fingerprint
    mixed = _open(folders, {"law": 3.0, "bills": 1.0}, {"old": 0.2})
    assert [part.share for part in mixed.parts] == pytest.approx([0.6, 0.2, 0.2])
    assert [part.name for part in mixed.parts] == ["corpus", "bills", "old"]
    assert mixed.fingerprint == " ".join(f"{p.corpus.fingerprint}={p.share:g}" for p in mixed.parts)


def test_the_largest_vocabulary_counts_and_others_may_lack_its_role_tokens(folders: dict[str, Path]) -> None:
    mixed = _open(folders, {"old": 0.5, "law": 0.5})
    assert mixed.tokenizer_folder == folders["law"] / "tokenizer"
    assert mixed.vocab_size == mixed.main.vocab_size
    with pytest.raises(UserError, match=r"does not go together with .*: it has another vocabulary \(.* tokens instead"):
        _open(folders, {"law": None}, {"other": 0.1})
    with pytest.raises(UserError, match="another vocabulary"):
        _open(folders, {"old": None}, {"law": 0.1})  # the run would lack the role tokens of what it replays


def test_a_corpus_is_named_once(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="named twice"):
        _open(folders, {"law": None}, {"law": 0.1})


def test_an_epoch_reads_what_is_not_replayed_once(folders: dict[str, Path]) -> None:
    share = Share(4, 1, 0, 1, torch.device("cpu"))
    alone = _open(folders, {"law": None})
    batches = alone.batches(32, 1, share)
    assert alone.epoch(batches) == batches.sources[0].windows
    mixed = _open(folders, {"law": None}, {"bills": 0.2})
    assert mixed.epoch(mixed.batches(32, 1, share)) == pytest.approx(batches.sources[0].windows / 0.8, abs=1)


def test_a_training_is_no_longer_than_the_corpora_may_be_read(folders: dict[str, Path]) -> None:
    mixed = Corpora(_open(folders, {"law": 0.9, "bills": 0.1}).parts, max_repeat=2)
    batches = mixed.batches(32, 1, Share(4, 1, 0, 1, torch.device("cpu")))
    most = sum(source.windows for source in batches.sources) * 2 // 4
    mixed.check_length(batches, most, 4)
    with pytest.raises(UserError, match=f"at most {most:,} steps"):
        mixed.check_length(batches, most + 1, 4)
    said = mixed.lines(batches, most * 4)
    assert said[0] == "Shares of the windows: corpus 90.0%, bills 10.0%."
    assert said[1].startswith("corpus is used up (--max-repeat) after ")
    assert not mixed.lines(batches, 10)[1:]

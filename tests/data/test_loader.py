"""Batches: every window once per epoch at any number of ranks."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from builders import write_corpus

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.loader import Share, TrainBatches
from kogpt.tokenizer.wordpiece import open_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(corpus: Path) -> TokenCorpus:
    return TokenCorpus.open(corpus)


def _step(corpus: TokenCorpus, consumed: int, world: int) -> list[list[int]]:
    """All rows of a global batch of 12 over all ranks, each with its last target appended."""
    rows = []
    for rank in range(world):
        share = Share(2, 6 // world, rank, world, CPU)
        step = TrainBatches([(corpus, 1.0)], max_seq_len=32, seed=5, share=share).step(consumed)
        assert step.targets == 12 * 32
        for ids, targets, positions, documents in step.micro_batches:
            assert positions is documents is None
            assert ids.shape == targets.shape == (2, 32)
            assert torch.equal(ids[:, 1:], targets[:, :-1])
            rows += [[*row.tolist(), int(last)] for row, last in zip(ids, targets[:, -1], strict=True)]
    return sorted(rows)


def test_the_global_batch_is_the_same_at_any_number_of_ranks(corpus: TokenCorpus) -> None:
    for consumed in (0, 12, 600):
        assert _step(corpus, consumed, 1) == _step(corpus, consumed, 2) == _step(corpus, consumed, 3)
    assert _step(corpus, 0, 1) != _step(corpus, 12, 1)


def test_an_epoch_covers_every_target(corpus: TokenCorpus) -> None:
    batches = TrainBatches([(corpus, 1.0)], max_seq_len=32, seed=5, share=Share(1, 1, 0, 1, CPU))
    whole, windows = corpus.stream("train"), batches.sources[0].windows
    stream = whole.read(0, len(whole))
    seen = {tuple(t.tolist()[0]) for n in range(windows) for _, t, *_ in batches.step(n).micro_batches}
    expected = {tuple(stream[min(i * 32, len(stream) - 33) + 1 :][:32].tolist()) for i in range(windows)}
    assert seen == expected


def test_the_windows_of_a_mixture_have_the_shares(corpus: TokenCorpus, tmp_path: Path) -> None:
    """Counted by what is in them, over a thousand windows of both ranks: each corpus repeats a token of its own."""
    corpora, tokenizer = [], open_tokenizer(corpus.tokenizer_folder)
    for token, share in ((100, 0.6), (101, 0.3), (102, 0.1)):
        about = {"id": str(token), "source": "", "text_sha256": "", "chars": 1, "unknown_ids": 0}
        folder = write_corpus(tmp_path / str(token), tokenizer, [about | {"ids": [token] * 500}], val_fraction=0)
        corpora.append((TokenCorpus.open(folder), share))
    found: Counter[int] = Counter()
    for rank in (0, 1):
        batches = TrainBatches(corpora, max_seq_len=16, seed=5, share=Share(5, 2, rank, 2, CPU))
        for consumed in range(20_020, 21_020, 20):
            for batch in batches.step(consumed).micro_batches:
                found.update(batch.ids[:, 8].tolist())
    assert found == {100: 600, 101: 300, 102: 100}


def test_too_small_a_corpus_is_refused(corpus: TokenCorpus) -> None:
    share = Share(1, 1, 0, 1, CPU)
    with pytest.raises(UserError, match="fewer than one window"):
        TrainBatches([(corpus, 1.0)], max_seq_len=10**6, seed=0, share=share)

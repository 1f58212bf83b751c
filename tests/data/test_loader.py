"""Batches: every window once per epoch at any number of ranks, every validation target once."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.loader import EvalBatches, Share, TrainBatches
from kogpt.model.gpt2 import IGNORED

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(corpus: Path) -> TokenCorpus:
    return TokenCorpus.open(corpus)


def _step(corpus: TokenCorpus, consumed: int, world: int) -> list[list[int]]:
    """All rows of a global batch of 12, whoever reads them, with the target behind."""
    rows = []
    for rank in range(world):
        share = Share(2, 6 // world, rank, world, CPU)
        for ids, targets in TrainBatches(corpus, max_seq_len=32, seed=5, share=share).step(consumed):
            assert ids.shape == targets.shape == (2, 32)
            assert torch.equal(ids[:, 1:], targets[:, :-1])
            rows += [[*row.tolist(), int(last)] for row, last in zip(ids, targets[:, -1], strict=True)]
    return sorted(rows)


def test_the_global_batch_is_the_same_at_any_number_of_ranks(corpus: TokenCorpus) -> None:
    for consumed in (0, 12, 600):
        assert _step(corpus, consumed, 1) == _step(corpus, consumed, 2) == _step(corpus, consumed, 3)
    assert _step(corpus, 0, 1) != _step(corpus, 12, 1)


def test_an_epoch_covers_every_target(corpus: TokenCorpus) -> None:
    batches = TrainBatches(corpus, max_seq_len=32, seed=5, share=Share(1, 1, 0, 1, CPU))
    stream = batches.stream.read(0, len(batches.stream))
    seen = {tuple(t.tolist()[0]) for n in range(batches.windows) for _, t in batches.step(n)}
    expected = {tuple(stream[min(i * 32, len(stream) - 33) + 1 :][:32].tolist()) for i in range(batches.windows)}
    assert seen == expected


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_validation_target_is_scored_once(world: int, corpus: TokenCorpus) -> None:
    wanted = Counter(int(id) for article in corpus.split("val") for id in corpus.article(article)[1:])
    found: Counter[int] = Counter()
    shapes = []
    for rank in range(world):
        batches = EvalBatches(corpus, max_seq_len=32, stride=16, share=Share(3, 1, rank, world, CPU))
        rounds = list(batches)
        shapes.append(len(rounds))
        for _, targets, scored in rounds:
            chosen = targets[targets != IGNORED]
            assert len(chosen) == scored
            found.update(chosen.tolist())
        assert batches.rounds == len(rounds)
        assert batches.chars == corpus.manifest["counts"]["splits"]["val"]["chars"]
    assert found == wanted
    assert len(set(shapes)) == 1, "all ranks take part in every round"


def test_too_small_a_corpus_and_too_wide_a_stride_are_refused(corpus: TokenCorpus) -> None:
    share = Share(1, 1, 0, 1, CPU)
    with pytest.raises(UserError, match="fewer than one window"):
        TrainBatches(corpus, max_seq_len=10**6, seed=0, share=share)
    with pytest.raises(UserError, match="--stride 33 exceeds --max-seq-len 32"):
        EvalBatches(corpus, max_seq_len=32, stride=33, share=share)

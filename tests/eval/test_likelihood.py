"""The scorer scores every target once, on any number of ranks, and agrees with sums computed position by position."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_corpus
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kogpt.data.batch import Batch
from kogpt.data.corpus import TokenCorpus
from kogpt.eval.likelihood import (
    Row,
    bits_per_char,
    corpus_articles,
    held_out,
    row_nll,
    score_batches,
    standard_error,
)
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.loss import IGNORED


def test_ten_characters_of_three_bits() -> None:
    assert bits_per_char(math.log(2) * 30, 10) == pytest.approx(3.0)


def test_the_standard_error_is_the_spread_over_samples_of_articles() -> None:
    """Against articles drawn anew many times, of which the long ones are worse."""
    numbers = np.random.default_rng(0)

    def drawn() -> tuple[np.ndarray, np.ndarray]:
        chars = numbers.integers(50, 2000, 200)
        return chars * (2 + chars / 2000 + 0.3 * numbers.standard_normal(200)), chars

    found = [
        (nll.sum() / math.log(2) / chars.sum(), standard_error(nll, chars.tolist()))
        for nll, chars in (drawn() for _ in range(400))
    ]
    assert np.mean([error for _, error in found]) == pytest.approx(np.std([bits for bits, _ in found]), rel=0.1)
    assert math.isnan(standard_error(np.array([3.0]), [2]))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_validation_target_is_scored_once(world: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    corpus = TokenCorpus.open(make_corpus(tmp_path_factory.mktemp("corpus") / "kolaw"))
    text = held_out(corpus_articles(corpus), 32, 16)
    wanted = Counter(int(id) for article in corpus.split("val") for id in corpus.article(article)[1:])
    found: Counter[int] = Counter()
    numbers: list[int] = []

    def token_nll(batch: Batch) -> Tensor:
        found.update(batch.targets[batch.targets != IGNORED].tolist())
        assert batch.ids.shape[0] <= 3
        return (batch.targets != IGNORED).float()

    rounds = []
    for rank in range(world):
        share: dict[str, Any] = {"device": torch.device("cpu"), "batch_rows": 3, "rank": rank, "world_size": world}
        batches = list(score_batches(token_nll, text.rows, **share))
        rounds.append(len(batches))
        for chosen, nll in batches:
            numbers += chosen
            assert nll.tolist() == [len(text.rows[i].tokens) - 1 - text.rows[i].first for i in chosen]
    assert found == wanted
    assert text.targets == wanted.total()
    assert text.chars == corpus.manifest["counts"]["splits"]["val"]["chars"]
    assert sorted(numbers) == list(range(len(text.rows)))
    assert len(set(rounds)) == 1, "all ranks take part in every round"


@given(rows=st.integers(0, 60), batch_rows=st.integers(1, 16), world=st.integers(1, 5))
def test_batches_are_all_alike_and_as_few_as_possible(rows: int, batch_rows: int, world: int) -> None:
    """So the ranks have the same work, and hardly any of it is for rows that do not exist."""
    sizes: list[int] = []

    def token_nll(batch: Batch) -> Tensor:
        sizes.append(len(batch.ids))
        return torch.zeros(batch.ids.shape)

    given_rows = [Row([1, 2], 0)] * rows
    for rank in range(world):
        share: dict[str, Any] = {"device": torch.device("cpu"), "rank": rank, "world_size": world}
        assert len(list(score_batches(token_nll, given_rows, batch_rows=batch_rows, **share))) == len(sizes) / (
            rank + 1
        )
    assert len(sizes) == world * math.ceil(rows / (batch_rows * world))
    assert set(sizes) <= {max(sizes, default=0)}
    assert max(sizes, default=0) <= batch_rows
    assert rows <= sum(sizes) < rows + max(1, len(sizes))


def test_rows_of_any_length_score_what_each_scores_alone() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=50, max_seq_len=100, n_layer=1, n_head=2, n_embd=16)).eval()
    rows = [Row(torch.randint(50, (n,)).tolist(), first) for n, first in ((101, 3), (1, 0), (7, 0), (70, 68), (2, 0))]
    together = row_nll(model, rows)
    for row, nll in zip(rows, together, strict=True):
        expected = 0.0
        for t in range(row.first + 1, len(row.tokens)):
            logits = model(torch.tensor([row.tokens[:t]]))[0, -1]
            expected -= logits.double().log_softmax(-1)[row.tokens[t]].item()
        assert nll == pytest.approx(expected, rel=1e-5)
    assert together[1] == 0.0

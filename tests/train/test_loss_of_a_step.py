"""The loss of a step is the sum over all scored targets of the global batch, divided by their number.

Rows have no, one, five, or all targets scored. For every micro-batch, accumulation, and number of ranks, the result
must equal that of the whole batch at once.
"""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from masked import MaskedBatches
from trainings import GLOBAL_BATCH, Plan, deepspeed_file, flags, records, together

from kogpt.data.corpus import TokenCorpus
from kogpt.data.loader import Share
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.loss import IGNORED, linear_cross_entropy

STEPS = 2


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2, 4])
def test_parts_add_up_to_the_whole_batch(ranks: int, micro: int) -> None:
    """In float64 to 1e-12: each rank sums over its micro-batches, and gradients are averaged over ranks."""
    torch.manual_seed(0)
    rows, length, width, vocab = 12, 9, 5, 23
    hidden = torch.randn(rows, length, width, dtype=torch.float64)
    weight = torch.randn(vocab, width, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(vocab, (rows, length))
    for row in range(rows):
        targets[row, (1, length, 0, 5)[row % 4] :] = IGNORED
    count = int((targets != IGNORED).sum())
    whole = F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    [expected] = torch.autograd.grad(whole, weight)

    losses: list[float] = []
    gradients: list[torch.Tensor] = []
    for rank in range(ranks):
        for start in range(rank * rows // ranks, (rank + 1) * rows // ranks, micro):
            part = slice(start, min(start + micro, (rank + 1) * rows // ranks))
            loss = linear_cross_entropy(hidden[part].flatten(0, 1), weight, targets[part].flatten(), chunk=7)
            gradients += torch.autograd.grad(loss * (ranks / count), weight)
            losses.append(loss.item() / count)
    assert sum(losses) == pytest.approx(whole.item(), abs=1e-12)
    assert (sum(gradients) / ranks - expected).abs().max() < 1e-12


@pytest.fixture(scope="module")
def reference(corpus: Path) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step, computed for the whole batch at once in float64."""
    opened = TokenCorpus.open(corpus)
    share = Share(GLOBAL_BATCH, 1, 0, 1, torch.device("cpu"))
    batches = MaskedBatches([(opened, 1.0)], max_seq_len=32, seed=1, share=share)
    torch.manual_seed(1)
    model = GPT(GPTConfig(opened.vocab_size, max_seq_len=32, n_layer=1, n_head=1, n_embd=64)).double()
    found = []
    for step in range(STEPS):
        targets, [batch] = batches.step(step * GLOBAL_BATCH)
        assert targets == (batch.targets != IGNORED).sum()
        assert 0 < len({int((row != IGNORED).sum()) for row in batch.targets}) > 2
        logits = model(batch.ids).flatten(0, 1)
        loss = F.cross_entropy(logits, batch.targets.flatten(), ignore_index=IGNORED)
        norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).norm()
        found.append((loss.item(), norm.item()))
    return found


@pytest.mark.parametrize("world", [1, 2])
def test_engine_at_any_micro_batch_accumulation_and_stage(
    world: int, corpus: Path, reference: list[tuple[float, float]], tmp_path: Path
) -> None:
    """In fp32: 1e-6 of the loss, 1e-5 of the gradient norm. A learning rate of 0 keeps the weights unchanged."""
    runs = {}
    for stage, micro in [(0, 1), (0, 8 // world), (1, 2), (2, 1), (2, 4), (3, 2)]:
        run = tmp_path / f"{stage}-{micro}"
        config = deepspeed_file(run.with_suffix(".json"), stage, lr=1e-30)
        config.write_text(json.dumps(json.loads(config.read_text()) | {"train_micro_batch_size_per_gpu": micro}))
        runs[run] = Plan(flags(corpus, run, config, STEPS), {"masked_targets": True})
    assert together(world, list(runs.values()), tmp_path / "ranks") == [0] * len(runs)
    for run in runs:
        for record, (loss, norm) in zip(records(run), reference, strict=True):
            assert record["loss"] == pytest.approx(loss, rel=1e-6), run.name
            assert record["grad_norm"] == pytest.approx(norm, rel=1e-5), run.name

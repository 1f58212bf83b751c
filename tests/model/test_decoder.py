"""What holds for the model of every architecture: causality, cache, packed documents, precision, dropout, learning."""

import math

import pytest
import torch
import torch.nn.functional as F
from allocations import Allocations
from builders import SHAPES, scattered, shape_of

from kogpt.model.decoder import Decoder
from kogpt.model.kv_cache import KVCache
from kogpt.model.registry import ARCHITECTURES, build, config_from_dict
from kogpt.optim.parameter_groups import parameter_groups
from kogpt.train.memory import memory_per_rank

pytestmark = pytest.mark.parametrize("arch", SHAPES)
VOCAB, CONTEXT = 301, 32


def make(arch: str) -> Decoder:
    return scattered(shape_of(arch))


def test_the_configuration_survives_a_checkpoint(arch):
    config = shape_of(arch)
    assert config_from_dict(config.to_dict()) == config
    assert config.to_dict()["arch"] == arch
    assert set(SHAPES) == set(ARCHITECTURES), "every architecture has a small model for the tests"


@pytest.mark.parametrize("t", [0, 7, 30])
def test_a_changed_id_changes_nothing_before_it(arch, t):
    model = make(arch)
    ids = torch.randint(VOCAB, (2, CONTEXT))
    changed = ids.clone()
    changed[:, t + 1] = (changed[:, t + 1] + 1) % VOCAB
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, : t + 1], after[:, : t + 1])
    assert (before[:, t + 1] - after[:, t + 1]).abs().max() > 1e-4


def test_loss_at_initialisation_is_that_of_a_guess(arch):
    config = config_from_dict({"arch": arch, **ARCHITECTURES[arch].config.shape_of_depth(2), "vocab_size": 5000})
    torch.manual_seed(0)
    ids, targets = torch.randint(5000, (2, 8, 32))
    assert abs(build(config)(ids, targets).item() / targets.numel() - math.log(5000)) < 0.05


def test_overfits_one_batch(arch):
    torch.manual_seed(0)
    model = build(shape_of(arch))
    ids = torch.randint(VOCAB, (2, CONTEXT + 1))
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.0), lr=5e-3)
    for _ in range(120):
        loss = model(ids[:, :-1], ids[:, 1:]) / ids[:, 1:].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_loss_is_float32_under_autocast(arch):
    model = make(arch)
    ids, targets = torch.randint(VOCAB, (2, 4, CONTEXT))
    exact = model(ids, targets)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(ids, targets)
    loss.backward()
    assert loss.dtype == torch.float32
    assert abs(loss.item() - exact.item()) / targets.numel() < 5e-3
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_give_about_the_same(arch, dtype):
    model = make(arch)
    ids, targets = torch.randint(VOCAB, (2, 4, CONTEXT))
    exact = model(ids, targets).item()
    loss = model.to(dtype)(ids, targets)
    loss.backward()
    assert abs(loss.item() - exact) / targets.numel() < 2e-2
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_cache_equals_the_full_forward(arch):
    model = make(arch)
    ids = torch.randint(VOCAB, (3, 20))
    full = model(ids)
    cache = KVCache(model.config, 3)
    parts = [model(part, cache=cache) for part in ids.split([9, 1, 6, 1, 3], dim=1)]
    assert (torch.cat(parts, 1) - full).abs().max() < 1e-5

    wide = KVCache(model.config, 4)  # rows of different lengths, in places that hold something already
    model(torch.randint(VOCAB, (4, 30)), cache=wide)
    wide.lengths, starts = [0] * 4, [9, 16, 5]
    for row, place, start in zip(ids, [3, 0, 2], starts, strict=True):
        wide.rows = [place]
        model(row[None, :start], cache=wide)
    wide.rows = [3, 0, 2]
    for step in range(4):
        tokens = torch.stack([row[start + step] for row, start in zip(ids, starts, strict=True)])
        out = model(tokens[:, None], cache=wide)
        assert max((out[i, 0] - full[i, start + step]).abs().max() for i, start in enumerate(starts)) < 1e-5
    with pytest.raises(ValueError, match="13 tokens, but only 12 fit"):
        model(ids[:, :13], cache=cache)
    with pytest.raises(ValueError, match="33 tokens, but only 32 fit"):
        model(torch.zeros(1, 33, dtype=torch.int64))


def test_packed_documents_are_what_they_are_alone(arch):
    """Documents in one row, with positions from 0 and no attention between them, equal those in separate rows."""
    model = make(arch)
    ids, targets = torch.randint(VOCAB, (2, 1, 20))
    lengths = [7, 1, 12]
    packed = {
        "positions": torch.cat([torch.arange(n) for n in lengths])[None],
        "documents": torch.tensor([0, 7, 8, 20], dtype=torch.int32),
    }
    alone = [model(part) for part in ids.split(lengths, dim=1)]
    assert (model(ids, **packed) - torch.cat(alone, 1)).abs().max() < 1e-5
    assert (model(ids, positions=packed["positions"]) - torch.cat(alone, 1)).abs().max() > 1e-3
    parts = zip(ids.split(lengths, dim=1), targets.split(lengths, dim=1), strict=True)
    assert model(ids, targets, **packed).item() == pytest.approx(sum(model(*part).item() for part in parts), rel=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "autocast"])
def test_all_layers_share_the_mask_of_documents(arch, precision):
    """At long contexts it is larger than what a layer keeps besides. The estimate of memory counts it once."""
    rows, length = 2, 256
    documents = torch.cat([torch.arange(row * length, (row + 1) * length, 50) for row in range(rows)]).int()
    documents = F.pad(documents, (0, 1), value=rows * length)
    ids = torch.randint(VOCAB, (rows, length))
    peaks = []
    for given in (None, documents):
        model = scattered(shape_of(arch, n_layer=6, max_seq_len=length))
        with Allocations() as found, torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            model(ids, ids, documents=given).backward()
        peaks.append(found.peak)
    shape = {"stage": 0, "world_size": 1, "micro_batch": rows, "seq_len": length, "precision": precision}
    without, counted = (memory_per_rank(model.config, **shape, document_mask=mask) for mask in (False, True))
    more = counted.total - without.total
    assert more == rows * length**2 * (4 if precision == "fp32" else 2)
    assert peaks[1] - peaks[0] < 1.5 * more


def test_dropout_works_in_training_only(arch):
    model = scattered(shape_of(arch, dropout=0.5))
    ids = torch.randint(VOCAB, (1, 32))
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))

"""The memory estimate, compared with the tensors that DeepSpeed and torch allocate; and how ZeRO partitions them."""

import gc
from itertools import product
from typing import Any

import pytest
from allocations import Allocations, alive
from engines import batch, plan_for

from kogpt.model.gpt2 import GPTConfig
from kogpt.model.qwen3 import Qwen3Config
from kogpt.optim.parameter_groups import hidden_count
from kogpt.train.engine import TrainingEngine
from kogpt.train.memory import memory_per_rank

GPT2 = GPTConfig(vocab_size=50257, max_seq_len=1024, n_layer=12, n_head=12, n_embd=768)
WIDE = GPTConfig(vocab_size=64, max_seq_len=8, n_layer=3, n_head=2, n_embd=256)
"""Parameters outweigh everything else."""
QWEN3 = Qwen3Config(64, 8, 3, n_head=2, n_embd=256, n_kv_head=1, n_inner=704, tied=False)
BUCKETS = {
    **dict.fromkeys(("reduce_bucket_size", "allgather_bucket_size", "stage3_prefetch_bucket_size"), 1000),
    "overlap_comm": False,
}


@pytest.mark.parametrize("accumulating", [False, True])
@pytest.mark.parametrize(
    ("config", "optimizer", "stage", "precision"),
    [
        *product([WIDE], ["AdamW"], [0, 1, 2, 3], ["fp32", "bf16"]),
        *((QWEN3, name, *kind) for name in ("AdamW", "Muon") for kind in ((0, "bf16"), (2, "bf16"), (3, "fp32"))),
        *((WIDE, "Muon", *kind) for kind in ((0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "bf16"))),
    ],
    ids=lambda value: getattr(value, "arch", str(value)),
)
def test_the_estimate_is_what_is_allocated(
    config: Any, optimizer: str, stage: Any, precision: str, accumulating: bool, ranks: Any
) -> None:
    """One rank, which holds all parts: within 10 % of the peak of the second step."""
    micro = 2 if accumulating else 8
    zero = {"stage": stage} | (BUCKETS if stage else {})
    changes: dict[str, Any] = {"train_micro_batch_size_per_gpu": micro, "optimizer": {"type": optimizer}}
    plan = plan_for(precision, stage, zero_optimization=zero, **changes)
    gc.collect()
    before = alive()

    def step() -> None:
        for number in range(plan.grad_accum):
            loss = engine.loss(batch(number, rows=micro, config=config))
            engine.backward(loss, 8 * config.max_seq_len)
            del loss
        engine.update(1e-3)

    with Allocations() as found:
        engine = TrainingEngine(config, plan, ranks, 1, None)
        step()
        gc.collect()
        idle, found.peak = found.now, found.now
        held = alive() - before
        step()
    expected = memory_per_rank(
        config,
        stage=stage,
        world_size=1,
        precision=plan.precision,
        micro_batch=micro,
        seq_len=config.max_seq_len,
        grad_accum=plan.grad_accum,
        chunk_logits=1,
        muon_parameters=hidden_count(config) if optimizer == "Muon" else 0,
    )
    each = (held + found.peak - idle) / config.parameter_count
    assert each == pytest.approx(expected.total / config.parameter_count, rel=0.1)


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_bytes_per_parameter_by_stage(ranks: int) -> None:
    """The table in the module's header: the parts that all ranks hold, and those that are partitioned."""

    def each(stage: Any, precision: Any, **more: Any) -> float:
        shape: Any = {"micro_batch": 1, "seq_len": 8}
        memory = memory_per_rank(GPT2, stage=stage, world_size=ranks, precision=precision, **shape, **more)
        return (memory.total - memory.activations - memory.buffers) / GPT2.parameter_count

    n = ranks
    assert [each(0, "fp32"), each(0, "autocast"), each(0, "autocast", grad_accum=2)] == [16, 16, 18]
    for stage, expected in {1: 8 + 16 / n, 2: 4 + 20 / n, 3: 16 / n + max(4 + 4 / n, 8 / n)}.items():
        assert each(stage, "fp32") == pytest.approx(expected, rel=1e-6)
    for stage, expected in {1: 4 + 18 / n, 2: 2 + 20 / n, 3: 14 / n + max(2 + 2 / n, 8 / n)}.items():
        assert each(stage, "bf16") == pytest.approx(expected, rel=1e-6)
    for stage, expected in {1: 8 + 14 / n, 2: 2 + 18 / n, 3: 14 / n + max(2 + 4 / n, 8 / n)}.items():
        assert each(stage, "bf16", grad_accum=4) == pytest.approx(expected, rel=1e-6)
    assert each(2, "bf16", offload_optimizer=True) == pytest.approx(2 + 2 / n, rel=1e-6)


def test_what_a_loss_and_a_forgetful_model_hold() -> None:
    shape: Any = {"stage": 0, "world_size": 1, "precision": "autocast", "micro_batch": 16, "seq_len": 1024}
    memory = memory_per_rank(GPT2, **shape)
    assert 1.5e9 < memory.buffers < 2.2e9, "gpu: chunks of 2^27 logits"
    assert memory_per_rank(GPT2, **shape, checkpoint_activations=True).activations < memory.activations / 4

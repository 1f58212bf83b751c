"""Bytes per parameter against the formulas of the ZeRO paper."""

import pytest

from kogpt.model.gpt2 import GPTConfig
from kogpt.train.memory import memory_per_rank

GPT2 = GPTConfig(vocab_size=50257, max_seq_len=1024, n_layer=12, n_head=12, n_embd=768)


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_bytes_per_parameter_by_stage(ranks):
    """The formulas of the ZeRO paper, for mixed precision: 16, 4 + 12/N, 2 + 14/N, 16/N."""

    def each(stage, precision, **more):
        memory = memory_per_rank(
            GPT2,
            stage=stage,
            world_size=ranks,
            precision=precision,
            micro_batch=1,
            seq_len=8,
            **more,
        )
        return (memory.total - memory.activations) / GPT2.parameter_count

    n = ranks
    half = [16, 4 + 12 / n, 2 + 14 / n, 16 / n]
    full = [16, 8 + 8 / n, 4 + 12 / n, 16 / n]
    for stage in range(4):
        assert each(stage, "bf16") == pytest.approx(half[stage], rel=1e-6)
        assert each(stage, "fp32") == pytest.approx(full[stage], rel=1e-6)
        assert each(stage, "bf16", offload_optimizer=True) == pytest.approx(
            half[stage] - 12 / (n if stage else 1), rel=1e-6
        )

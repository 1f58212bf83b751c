"""Training without DeepSpeed: what is refused, and what mps would not do. tests/test_elsewhere.py compares the bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from builders import scattered, shape_of
from engines import batch

from kogpt.common import system
from kogpt.common.errors import UserError
from kogpt.train import deepspeed_config, distributed
from kogpt.train.plain import NOTE, PlainEngine

OFFLOAD = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}


@pytest.fixture(autouse=True)
def _no_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "has_deepspeed", lambda: False)


def _plan(content: dict[str, Any], device: str = "cpu", has_bf16: bool = True) -> deepspeed_config.EnginePlan:
    whole = {"train_batch_size": 8} | content
    return deepspeed_config.plan(Path("ds.json"), whole, world_size=1, device=device, has_bf16=has_bf16)


def test_several_ranks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"2 ranks need DeepSpeed, which is not installed; install .* or start one"):
        distributed.start()


@pytest.mark.parametrize("content", [OFFLOAD, {"fp16": {"enabled": True}, "zero_optimization": {"stage": 1}}])
def test_what_one_rank_has_zero_for_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="off-loading need DeepSpeed, which is not installed; install"):
        _plan(content, device="cuda")


def test_a_gpu_without_bf16_trains_in_fp32() -> None:
    """With DeepSpeed it would be fp16."""
    for device in ("cuda", "mps"):
        fitted = _plan({"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}, device, has_bf16=False)
        assert (fitted.precision, fitted.stage) == ("fp32", 0)
        assert NOTE in fitted.notes
        assert any("GPU of this run has no bf16" in note for note in fitted.notes)


def test_an_update_is_skipped_where_the_optimizer_cannot_do_so() -> None:
    model = scattered(shape_of("gpt2"))
    optimizer: Any = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    engine = PlainEngine(model, optimizer, torch.device("cpu"), grad_accum=2, autocast=False)
    engine.device = torch.device("mps")
    for skipped in (1.0, 0.0):
        before = model.state_dict()["wte.weight"].clone()
        for seed in range(2):
            engine.backward(model(*batch(seed, config=model.config)), scale_wrt_gas=False)
            optimizer.found_inf = torch.tensor(skipped)
            engine.step()
        assert torch.equal(model.state_dict()["wte.weight"], before) == bool(skipped)
        assert all(parameter.grad is None for parameter in model.parameters())

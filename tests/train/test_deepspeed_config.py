"""Fitting the DeepSpeed file to the machine. Every change is reported."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.train.deepspeed_config import ADAM_SHARE, EnginePlan, plan

BASE: dict[str, Any] = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 8}


def _plan(
    content: dict[str, Any], ranks: int = 1, device: str = "cpu", has_bf16: bool = True, **has: Any
) -> EnginePlan:
    return plan(Path("f.json"), content, world_size=ranks, device=device, has_bf16=has_bf16, **has)


@given(total=st.integers(1, 4096), micro=st.integers(1, 64), ranks=st.integers(1, 64))
def test_the_global_batch_is_kept(total: int, micro: int, ranks: int) -> None:
    content = {"train_batch_size": total, "train_micro_batch_size_per_gpu": micro}
    if total % ranks:
        with pytest.raises(UserError, match=rf"{total} cannot be .* {ranks} ranks; .* another number of ranks: \d"):
            _plan(content, ranks)
        return
    fitted = _plan(content, ranks)
    assert fitted.micro_batch * fitted.grad_accum * ranks == total
    assert fitted.micro_batch <= micro


def test_a_stated_accumulation_must_fit() -> None:
    with pytest.raises(
        UserError, match=r"the 64 windows of a step are not .* 8 x .* 3 x 2 ranks; remove the accumulation"
    ):
        _plan(BASE | {"gradient_accumulation_steps": 3}, ranks=2)
    assert _plan(BASE | {"gradient_accumulation_steps": 4}, ranks=2).grad_accum == 4


def test_a_gpu_without_bf16_gets_fp16_with_loss_scaling_and_it_is_said() -> None:
    content = BASE | {"bf16": {"enabled": True}}
    fitted = _plan(content, device="cuda", has_bf16=False)
    assert fitted.precision == "fp16"
    assert fitted.engine["fp16"]["enabled"]
    assert fitted.engine["fp16"]["loss_scale"] == 0  # dynamic
    assert not fitted.engine["bf16"]["enabled"]
    assert fitted.stage == 1
    assert "no bf16" in " ".join(fitted.notes)
    assert _plan(content, ranks=2, device="cuda").precision == "autocast"
    assert _plan(content | {"zero_optimization": {"stage": 2}}, ranks=2, device="cuda").precision == "bf16"
    assert content == BASE | {"bf16": {"enabled": True}}, "the file's content is not changed"


@pytest.mark.parametrize("asked", ["bf16", "torch_autocast"])
def test_a_cpu_without_bf16_trains_in_fp32_and_it_is_said(asked: str) -> None:
    fitted = _plan(BASE | {asked: {"enabled": True}}, has_bf16=False)
    assert fitted.precision == "fp32"
    assert not fitted.engine[asked]["enabled"]
    assert "fp32 instead" in " ".join(fitted.notes)


@pytest.mark.parametrize("asked", ["bf16", "torch_autocast"])
def test_gpus_before_ampere_train_in_fp16_and_those_before_volta_in_fp32(asked: str) -> None:
    """DeepSpeed refuses fp16 before compute capability 7, and bf16 is emulated before 8: attention has no kernel."""
    content = BASE | {asked: {"enabled": True}}
    for has_fp16, precision in ((True, "fp16"), (False, "fp32")):
        fitted = _plan(content, device="cuda", has_bf16=False, has_fp16=has_fp16)
        assert fitted.precision == precision
        assert not fitted.engine[asked]["enabled"]
        assert f"{precision} " in " ".join(fitted.notes)
    with pytest.raises(UserError, match="of compute capability 7 or later"):
        _plan(BASE | {"fp16": {"enabled": True}, "zero_optimization": {"stage": 2}}, device="cuda", has_fp16=False)


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UserError, match="CPUs do not support it"):
        _plan(BASE | {"fp16": {"enabled": True}, "zero_optimization": {"stage": 2}})


def test_one_rank_shares_nothing_out() -> None:
    zero = {"zero_optimization": {"stage": 2, "overlap_comm": True}, "gradient_clipping": 1.0}
    alone, two = _plan(BASE | zero), _plan(BASE | zero, ranks=2)
    assert (alone.stage, two.stage) == (0, 2)
    assert "ZeRO stage 0 instead of 2" in " ".join(alone.notes)
    offload = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    assert _plan(BASE | offload).stage == 2


def test_bf16_at_stage_0_is_autocast_over_fp32_weights() -> None:
    fitted = _plan(BASE | {"bf16": {"enabled": True}})
    assert fitted.precision == "autocast"
    assert fitted.engine["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert not fitted.engine["bf16"]["enabled"]


def test_gradients_are_summed_in_fp32_unless_told_otherwise() -> None:
    """It is set only if gradients are summed and there is a choice."""
    half = BASE | {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}}

    def named(content: dict[str, Any], ranks: int = 2) -> str | None:
        return _plan(content, ranks).engine.get("data_types", {}).get("grad_accum_dtype")

    assert named(half) == "fp32"
    assert named(half | {"data_types": {"grad_accum_dtype": "bf16"}}) == "bf16"
    assert named(half, ranks=8) is None, "one micro-batch a step"
    assert named(half, ranks=1) is None, "fp32 weights"
    with pytest.raises(UserError, match='"fp16", but training is in bf16'):
        named(half | {"data_types": {"grad_accum_dtype": "fp16"}})
    alone = _plan(half | {"data_types": {"grad_accum_dtype": "bf16"}})
    assert "the weights are fp32, and so are" in " ".join(alone.notes)


def test_without_a_micro_batch_64_is_the_limit() -> None:
    assert _plan({"train_batch_size": 640}).micro_batch == 64
    assert _plan({"train_batch_size": 48}, ranks=2).micro_batch == 24


def test_muon_needs_only_lr_and_what_adamw_takes_is_said() -> None:
    alone = _plan(BASE | {"optimizer": {"type": "Muon", "params": {"lr": 0.01}}})
    assert alone.muon == {"lr": 0.01, "momentum": 0.95, "weight_decay": 0.1, "ns_method": "standard"}
    assert alone.adam == {"lr": ADAM_SHARE * 0.01, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.0}
    assert alone.lr == 0.01
    assert "AdamW updates the embeddings, the head, and the vectors" in " ".join(alone.notes)
    params = {"muon_lr": 0.03, "adam_lr": 1e-3, "betas": [0.8, 0.9], "torch_adam": True}
    both = _plan(BASE | {"optimizer": {"type": "Muon", "params": params}})
    assert both.muon is not None
    assert (both.lr, both.adam["lr"], both.adam["betas"]) == (0.03, 1e-3, [0.8, 0.9])
    assert "optimizer" not in both.engine
    assert _plan(BASE).muon is None

"""The DeepSpeed file: what DeepSpeed would take in silence is refused; the rest is fitted to the machine, and said."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.train.deepspeed_config import EnginePlan, plan, read

BASE: dict[str, Any] = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 8}


def _plan(content: dict[str, Any], ranks: int = 1, device: str = "cpu", has_bf16: bool = True) -> EnginePlan:
    return plan(Path("f.json"), content, world_size=ranks, device=device, has_bf16=has_bf16)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bf61": {"enabled": True}}, '"bf61" is unknown'),
        ({"scheduler": {"type": "WarmupLR"}}, "the learning rate's course is set by --schedule"),
        ({"train_batch_size": "auto"}, '"train_batch_size" is "auto"'),
        ({"bf16": {"enabled": "auto"}}, '"bf16.enabled" is "auto"'),
        ({"train_micro_batch_size_per_gpu": 0}, "give a whole number of sequences"),
        ({"optimizer": {"type": "Lamb"}}, '"optimizer.type" is "Lamb"'),
        ({"optimizer": {"params": {"learning_rate": 1}}}, "unknown keys: learning_rate"),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, "both enabled"),
        ({"zero_optimization": {"stage": 4}}, "give 0, 1, 2 or 3"),
        ({"fp16": {"enabled": True}}, "use stage 1"),
    ],
)
def test_what_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(BASE | change))
    with pytest.raises(UserError) as caught:
        read(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_not_json(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read(path)


@given(total=st.integers(1, 4096), micro=st.integers(1, 64), ranks=st.integers(1, 64))
def test_the_global_batch_is_kept(total: int, micro: int, ranks: int) -> None:
    content = {"train_batch_size": total, "train_micro_batch_size_per_gpu": micro}
    if total % ranks:
        with pytest.raises(UserError, match=f"{total} cannot be shared out evenly among {ranks} ranks"):
            _plan(content, ranks)
        return
    fitted = _plan(content, ranks)
    assert fitted.micro_batch * fitted.grad_accum * ranks == total
    assert fitted.micro_batch <= micro


def test_a_stated_accumulation_must_fit() -> None:
    with pytest.raises(UserError, match=r"64 is not .* 8 x .* 3 x 2 ranks"):
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
    assert _plan(content, device="cuda").precision == _plan(content).precision == "bf16"
    assert content == BASE | {"bf16": {"enabled": True}}, "the file's content is not changed"


@pytest.mark.parametrize("asked", ["bf16", "torch_autocast"])
def test_a_cpu_without_bf16_trains_in_fp32_and_it_is_said(asked: str) -> None:
    fitted = _plan(BASE | {asked: {"enabled": True}}, has_bf16=False)
    assert fitted.precision == "fp32"
    assert not fitted.engine[asked]["enabled"]
    assert "fp32 instead" in " ".join(fitted.notes)


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(UserError, match="CPUs do not offer it"):
        _plan(BASE | {"fp16": {"enabled": True}, "zero_optimization": {"stage": 2}})


def test_one_rank_shares_nothing_out() -> None:
    zero = {"zero_optimization": {"stage": 2, "overlap_comm": True}, "gradient_clipping": 1.0}
    alone, two = _plan(BASE | zero), _plan(BASE | zero, ranks=2)
    assert (alone.stage, two.stage) == (0, 2)
    assert alone.plain
    assert "ZeRO stage 0 instead of 2" in " ".join(alone.notes)
    offload = {"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}
    assert _plan(BASE | offload).stage == 2

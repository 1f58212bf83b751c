"""The DeepSpeed file: what DeepSpeed would ignore, or answer with a stack trace, gives a clear error."""

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.train.deepspeed_config import plan
from kogpt.train.deepspeed_file import KNOWN, VALUES, check_sections, read

BASE: dict[str, Any] = {"train_batch_size": 64, "train_micro_batch_size_per_gpu": 8}
CASES = Path(__file__).resolve().parents[3] / "shared" / "cases" / "ds_config"


def _adam(**params: Any) -> dict[str, Any]:
    return {"optimizer": {"type": "AdamW", "params": params}}


def _muon(**params: Any) -> dict[str, Any]:
    return {"optimizer": {"type": "Muon", "params": params}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bf61": {"enabled": True}}, '"bf61" is unknown'),
        ({"scheduler": {"type": "WarmupLR"}}, "the learning rate is set by --schedule"),
        ({"train_batch_size": "auto"}, '"train_batch_size" is "auto"'),
        ({"bf16": {"enabled": "auto"}}, '"bf16.enabled" is "auto"'),
        ({"train_batch_size": True}, "give a whole number of sequences"),
        ({"train_micro_batch_size_per_gpu": 0}, "give a whole number of sequences"),
        ({"gradient_accumulation_steps": 2.0}, "give a whole number"),
        ({"gradient_clipping": -1.0}, '"gradient_clipping" is -1.0; give the largest gradient norm'),
        ({"gradient_clipping": None}, '"gradient_clipping" is null'),
        ({"gradient_clipping": float("nan")}, '"gradient_clipping" is NaN'),
        ({"optimizer": {"type": "Lamb"}}, '"optimizer.type" is "Lamb"'),
        ({"optimizer": "AdamW"}, '"optimizer" is "AdamW"; write an object'),
        ({"optimizer": None}, '"optimizer" is null; write an object'),
        ({"optimizer": {"params": None}}, '"optimizer.params" is null; write an object'),
        ({"optimizer": {"type": "AdamW", "legacy_fusion": False}}, "unknown keys: legacy_fusion"),
        (_adam(learning_rate=1), "unknown keys: learning_rate"),
        (_adam(lr=-3e-4), '"optimizer.params.lr" is -0.0003; give a number above 0'),
        (_adam(lr="3e-4"), '"optimizer.params.lr" is "3e-4"'),
        (_adam(betas=[0.9]), "give two numbers from 0 to below 1"),
        (_adam(betas=[0.9, 1.0]), "give two numbers from 0 to below 1"),
        (_adam(eps=-1e-8), '"optimizer.params.eps"'),
        (_adam(weight_decay=-0.1), '"optimizer.params.weight_decay"'),
        (_adam(momentum=0.95), "unknown keys: momentum"),
        (_muon(nesterov=True, ns_steps=5), "unknown keys: nesterov, ns_steps"),
        (_muon(muon_lr=0), '"optimizer.params.muon_lr" is 0; give a number above 0'),
        (_muon(adam_lr="auto"), '"optimizer.params.adam_lr" is "auto"'),
        (_muon(momentum=1.0), '"optimizer.params.momentum" is 1.0; give a number from 0 to below 1'),
        (_muon(ns_method="polar"), '"optimizer.params.ns_method" is "polar"; give "standard" or "gram"'),
        (
            _muon() | {"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu", "ratio": 0.5}}},
            'with Muon, "zero_optimization.offload_optimizer" can only be {"device": "cpu"}',
        ),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": True}}, "both enabled"),
        ({"bf16": True}, '"bf16" is true; write an object'),
        ({"fp16": False}, '"fp16" is false; write an object'),
        ({"zero_optimization": 2}, '"zero_optimization" is 2; write an object'),
        ({"zero_optimization": {"stage": 4}}, "give 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": True}}, "give 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": 2.0}}, "give 0, 1, 2 or 3"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": True}}, 'offload_optimizer" is true'),
        ({"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}}, 'needs "stage" 1'),
        ({"zero_optimization": {"stage": 2, "overlap_com": True}}, "overlap_com"),
        ({"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "tape"}}}, "offload_optimizer.device"),
        ({"data_types": {"grad_accum_dtype": "int8"}}, '"data_types.grad_accum_dtype" is "int8"'),
        ({"data_types": {"grads": "fp32"}}, "unknown keys: grads"),
        ({"fp16": {"enabled": True}}, "use stage 1"),
        ({"fp16": {"loss_scale": "high"}}, '"fp16.loss_scale"'),
    ],
)
def test_what_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(BASE | change))
    with pytest.raises(UserError) as caught:
        check_sections(path, read(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "is not a JSON object"),
        ('{"train_batch_size": 64, "train_batch_size": 8}', '"train_batch_size" appears twice'),
        ('{"train_batch_size": 64, "bf16": {"enabled": true, "enabled": false}}', '"enabled" appears twice'),
    ],
)
def test_what_is_no_such_file(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read(path)


ODD = st.sampled_from([None, True, False, 0, 1, 2, 3, -1, 2.0, 1e400, "", "auto", "cpu", [], [0.9], {}, {"stage": 2}])


@settings(max_examples=300)
@given(place=st.sampled_from(sorted({*KNOWN, *VALUES, "zero_optimization.offload_optimizer"})), value=ODD)
def test_any_value_anywhere_is_planned_or_refused(place: str, value: Any, tmp_path_factory: Any) -> None:
    content: Any = copy.deepcopy(BASE)
    *sections, name = place.split(".")
    inside = content
    for section in sections:
        inside = inside.setdefault(section, {})
    inside[name] = value
    path = tmp_path_factory.getbasetemp() / "odd.json"
    path.write_text(json.dumps(content))
    with contextlib.suppress(UserError):  # anything else is a stack trace
        checked = read(path)
        check_sections(path, checked)
        for ranks in (1, 2):
            plan(path, checked, world_size=ranks, device="cuda", has_bf16=True)


@pytest.mark.parametrize("path", sorted(CASES.glob("*.json")) or [None], ids=lambda path: path and path.stem)
def test_files_that_ended_in_a_stack_trace(path: Path | None) -> None:
    if path is None:
        pytest.skip(f"{CASES} is not here")
    with pytest.raises(UserError, match=path.name):
        check_sections(path, read(path))

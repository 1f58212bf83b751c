"""The model is built a layer at a time: the weights of a whole build, and at ZeRO stage 3 never the whole model.

Nor does a step at stage 3 hold what only one layer needs.
"""

from typing import Any

import deepspeed
import pytest
import torch
from engines import SHAPES, batch, plan_for
from torch import nn

from kogpt.model import registry
from kogpt.optim.parameter_groups import parameter_groups
from kogpt.train.construction import build
from kogpt.train.engine import TrainingEngine


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("stage", [0, 2])
def test_the_weights_are_those_of_a_model_built_at_once(shape: Any, stage: int, ranks: Any) -> None:
    torch.manual_seed(7)
    expected = registry.build(shape)
    torch.manual_seed(7)
    built = build(shape, plan_for(stage=stage), ranks, None)
    assert built.state_dict().keys() == expected.state_dict().keys()
    for name, value in expected.state_dict().items():
        assert torch.equal(built.state_dict()[name], value), name
    assert all(parameter.requires_grad for parameter in built.parameters())


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_stage_3_holds_one_layer_at_a_time(shape: Any, ranks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a layer is divided, those before it are divided already, and those behind it hold nothing yet."""
    model: list[nn.Module] = []
    held: list[tuple[int, int, int]] = []
    whole_init, whole_build = deepspeed.zero.Init, registry.build

    def watched_build(config: Any) -> Any:
        model.append(whole_build(config))
        return model[0]

    def watched_init(module: nn.Module, **rest: Any) -> Any:
        now = {id(parameter) for parameter in module.parameters()}
        states = [
            "now" if id(p) in now else "empty" if p.device.type == "meta" else "divided" if hasattr(p, "ds_id") else "?"
            for p in model[0].parameters()
        ]
        assert states == sorted(states, key=["divided", "now", "empty"].index)
        held.append((states.count("divided"), states.count("now"), states.count("empty")))
        return whole_init(module=module, **rest)

    monkeypatch.setattr(registry, "build", watched_build)
    monkeypatch.setattr(deepspeed.zero, "Init", watched_init)
    torch.manual_seed(7)
    built = build(shape, plan_for("bf16", 3), ranks, None)
    count = len(list(built.parameters()))
    assert [divided for divided, _, _ in held] == [sum(now for _, now, _ in held[:i]) for i in range(len(held))]
    assert sum(now for _, now, _ in held) == count
    assert max(now for _, now, _ in held) <= 2, "a matrix and its bias"

    torch.manual_seed(7)
    for name, value in whole_build(shape).named_parameters():
        part: Any = built.get_parameter(name)
        assert part.ds_shape == value.shape
        assert torch.equal(part.ds_tensor[: value.numel()], value.detach().bfloat16().flatten()), name

    decayed, kept = parameter_groups(built, 0.1)
    assert [len(group["params"]) for group in (decayed, kept)] == [
        len(group["params"]) for group in parameter_groups(whole_build(shape), 0.1)
    ]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_stage_3_releases_the_vocabulary_between_its_uses(shape: Any, ranks: Any) -> None:
    """Also where tokens attend within their own document. DeepSpeed gathers a weight that is only looked at, and keeps
    it until the end of the step, in each step from then on."""
    small = {"stage": 3, "stage3_param_persistence_threshold": 0, "stage3_prefetch_bucket_size": 0}
    small |= dict.fromkeys(("stage3_max_live_parameters", "stage3_max_reuse_distance"), 1)
    engine = TrainingEngine(shape, plan_for("bf16", 3, zero_optimization=small), ranks, 1, None)
    vocabulary: list[Any] = [engine.module.get_parameter(name) for name in engine.module.VOCABULARY]
    gathered: list[str] = []

    def look(*_: Any) -> None:
        gathered.extend(part.ds_status.name for part in vocabulary)

    engine.module.blocks[1].register_forward_pre_hook(look)
    for number in range(2):
        ids = batch(number, config=shape)
        engine.backward(engine.loss(ids._replace(documents=torch.tensor([0, ids.ids.numel()], dtype=torch.int32))), 100)
    assert gathered == ["NOT_AVAILABLE"] * 2 * len(vocabulary)

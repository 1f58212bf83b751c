"""Getting and setting parts of the state, also for optimizers with other slots than Adam's; a rate for each group."""

from pathlib import Path
from typing import Any

import deepspeed
import pytest
import torch
from engines import SHAPE, batch, plan_for, train_step

from kogpt.checkpoint.layout import step_folder
from kogpt.checkpoint.writer import publish, write_shards
from kogpt.common.errors import UserError
from kogpt.model.gpt2 import GPT
from kogpt.train.engine import TrainingEngine
from kogpt.train.full_state import FullState
from kogpt.train.restorer import Restorer

STAGES = [0, 2, 3]


class Mixed(torch.optim.Optimizer):
    """Momentum for matrices, the mean of squares for the rest; no count of updates."""

    def __init__(self, model: torch.nn.Module) -> None:
        matrices = [p for p in model.parameters() if p.dim() == 2]
        others = [p for p in model.parameters() if p.dim() != 2]
        super().__init__([{"params": matrices, "slot": "momentum"}, {"params": others, "slot": "squares"}], {"lr": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                slot = self.state[p].setdefault(group["slot"], torch.zeros_like(p))
                slot.lerp_(p.grad if group["slot"] == "momentum" else p.grad**2, 0.5)
                p.sub_(slot if group["slot"] == "momentum" else p.grad / (slot.sqrt() + 1e-3), alpha=group["lr"])


def _sgd(model: GPT) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, weight_decay=0.1)


class Training:
    """Some steps of an engine with an optimizer that is defined here."""

    def __init__(self, stage: int, make: Any) -> None:
        torch.manual_seed(stage)
        model = GPT(SHAPE)
        self.optimizer = make(model)
        config = plan_for(stage=stage).engine | {
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": stage},
        }
        self.engine, *_ = deepspeed.initialize(model=model, optimizer=self.optimizer, config=config)
        self.state = FullState(self.engine, self.optimizer, 0, 1)

    def steps(self, first: int, last: int) -> list[float]:
        losses = []
        for step in range(first, last):
            for group in self.optimizer.param_groups:
                group["lr"] = 1e-2
            for micro in range(4):
                loss = self.engine(*batch(step * 100 + micro)) / (8 * SHAPE.max_seq_len)
                self.engine.backward(loss, scale_wrt_gas=False)
                self.engine.step()
            losses.append(loss.item())
        return losses


def _save(state: FullState, run: Path) -> Path:
    temporary = run / "checkpoints" / ".step-1.test"
    parts = dict(state.shards())
    files = write_shards(temporary, 0, 1, list(parts), lambda shard: parts[shard]())
    publish(temporary, step_folder(run, 1), files, {}, {"optimizer_step": state.step})
    return step_folder(run, 1)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("make", "matrix", "vector"),
    [(_sgd, ("momentum_buffer",), ("momentum_buffer",)), (Mixed, ("momentum",), ("squares",))],
)
def test_any_optimizer_goes_on_exactly(
    stage: int, make: Any, matrix: tuple[str, ...], vector: tuple[str, ...], ranks: Any, tmp_path: Path
) -> None:
    training = Training(stage, make)
    assert training.state.step is None
    training.steps(0, 3)
    folder = _save(training.state, tmp_path)
    expected = training.steps(3, 6)

    again = Training(stage, make)
    checkpoint = Restorer(folder, ranks)
    assert checkpoint.slots["wte.weight"] == matrix
    assert checkpoint.slots["ln_f.bias"] == vector
    checkpoint.restore(again.state)
    for name in again.state.parameters:
        parameter = again.state.parameters[name]
        if not hasattr(parameter, "ds_id") and stage != 0:  # the engine's own start fills these two
            parameter.data.copy_(checkpoint.weight(name))
        elif hasattr(parameter, "ds_id"):
            parameter.ds_tensor.data.copy_(checkpoint.weight(name).flatten())
    assert again.steps(3, 6) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_fresh_slots_are_zero_and_the_weights_untouched(stage: int, ranks: Any) -> None:
    engine = TrainingEngine(SHAPE, plan_for(stage=stage), ranks, 5, None)
    torch.manual_seed(5)
    fresh = dict(GPT(SHAPE).named_parameters())
    state = engine.state
    assert state.step == 0
    for name, value in fresh.items():
        assert state.slots(name) == ("exp_avg", "exp_avg_sq")
        assert torch.equal(state.get(name).view(value.shape), value)
        assert not any(state.get(name, slot).any() for slot in state.slots(name))


def test_the_slots_of_another_optimizer_are_refused(ranks: Any, tmp_path: Path) -> None:
    folder = _save(Training(0, _sgd).state, tmp_path)
    engine = TrainingEngine(SHAPE, plan_for(), ranks, 1, None)
    with pytest.raises(UserError, match=r"another optimizer .*momentum_buffer"):
        Restorer(folder, ranks).restore(engine.state)


def test_each_group_has_its_own_peak_of_the_learning_rate(ranks: Any) -> None:
    engine = TrainingEngine(SHAPE, plan_for(), ranks, 1, None)
    engine.optimizer.param_groups[0]["peak_lr"] = 0.0
    before = {name: value.clone() for name, value in engine.module.named_parameters()}
    train_step(engine, 0)
    for name, value in engine.module.named_parameters():
        assert torch.equal(value, before[name]) == (value.dim() == 2), name


def test_ranks_share_out_evenly_what_all_of_them_hold(ranks: Any) -> None:
    engine = TrainingEngine(SHAPE, plan_for(), ranks, 1, None)
    train_step(engine, 0)
    state = engine.state
    whole = {(shard.name, shard.slot): part().tolist() for shard, part in state.shards()}
    for world in (2, 3, 7):
        pieces: dict[tuple[str, str | None], list[float]] = {}
        sizes = []
        for rank in range(world):
            state.rank, state.world_size = rank, world
            shards = state.shards()
            sizes.append(sum(shard.numel for shard, _ in shards))
            for shard, part in shards:
                pieces.setdefault((shard.name, shard.slot), []).extend(part().tolist())
        assert pieces == whole
        assert max(sizes) - min(sizes) <= 3

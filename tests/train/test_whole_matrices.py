"""Muon at every ZeRO stage: the weights of torch.optim.Muon, and the same losses on any number of ranks."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import SHAPE, batch, plan_for, train_step
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call
from trainings import Plan, copy_as_of, deepspeed_file, flags, losses, records, together

from kogpt.checkpoint.layout import MANIFEST, step_folder
from kogpt.model.gpt2 import GPT
from kogpt.optim.parameter_groups import hidden_matrices
from kogpt.train import whole_matrices
from kogpt.train.engine import TrainingEngine
from kogpt.train.whole_matrices import Part, Place

STAGES = (0, 1, 2, 3)
MUON: dict[str, Any] = {"type": "Muon", "params": {"lr": 0.02, "adam_lr": 3e-3}}
UNUSUAL: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.3, "betas": [0.8, 0.9], "eps": 1e-4}
"""No default among them, so that one which does not reach the update is noticed."""
ARCHS = {"gpt2": (), "qwen3": ("--arch", "qwen3", "--depth", "3", "--kv-heads", "1")}
"""That of the tests, and that of new runs, which attends within articles: two heads share their keys and values."""


def _newton_schulz_in_fp32(grad: torch.Tensor, coefficients: Any, ns_steps: int, eps: float) -> torch.Tensor:
    """torch.optim.Muon's own, but for its conversion to bf16."""
    a, b, c = coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(ns_steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if grad.size(0) > grad.size(1) else x


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    """The weights after 20 steps of a plain loop with torch.optim.Muon; query, key, and value are three matrices."""
    torch.manual_seed(5)
    model = GPT(SHAPE)
    hidden = hidden_matrices(model)
    leaves = {
        name: [part.clone().requires_grad_() for part in value.detach().chunk(3 if "qkv.weight" in name else 1)]
        for name, value in model.named_parameters()
    }
    matrices = [leaf for name in hidden for leaf in leaves[name]]
    rest = [leaf for name, parts in leaves.items() if name not in hidden for leaf in parts]
    muon = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.3, momentum=0.9)
    adam = torch.optim.AdamW(rest, lr=3e-3, betas=(0.8, 0.9), eps=1e-4, weight_decay=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.optim._muon._zeropower_via_newtonschulz", _newton_schulz_in_fp32)
        for step in range(20):
            for micro in range(4):
                weights = {name: torch.cat(parts) for name, parts in leaves.items()}
                loss = functional_call(model, weights, tuple(batch(step * 100 + micro))[:2])
                (loss / (8 * SHAPE.max_seq_len)).backward()
            torch.nn.utils.clip_grad_norm_([*matrices, *rest], 1.0)
            for optimizer in (muon, adam):
                optimizer.step()
                optimizer.zero_grad()
    return {name: torch.cat(parts).detach() for name, parts in leaves.items()}


@pytest.mark.parametrize(
    ("zero", "method"),
    [
        *(({"stage": stage}, "standard") for stage in STAGES),
        ({"stage": 0}, "gram"),
        *(({"stage": stage, "offload_optimizer": {"device": "cpu"}}, "standard") for stage in (2, 3)),
    ],
    ids=str,
)
def test_the_weights_of_torch_muon(
    zero: dict[str, Any], method: str, reference: dict[str, torch.Tensor], ranks: Any
) -> None:
    params = MUON["params"] | UNUSUAL | {"ns_method": method}
    plan = plan_for(stage=zero["stage"], zero_optimization=zero, optimizer={"type": "Muon", "params": params})
    engine = TrainingEngine(SHAPE, plan, ranks, 5, None)
    for step in range(20):
        train_step(engine, step)
    state = engine.state
    for name, expected in reference.items():
        difference = (state.get(name).view(expected.shape) - expected).abs()
        assert difference.max() < 2e-6, name
        slots = ("momentum_buffer",) if name in hidden_matrices(GPT(SHAPE)) else ("exp_avg", "exp_avg_sq")
        assert state.slots(name) == slots
    assert state.step == 20


@pytest.mark.parametrize("stage", STAGES)
def test_the_clip_does_not_act_on_the_update(stage: int, ranks: Any) -> None:
    """A clip above the gradient's norm changes nothing; one below it does not make the first update smaller."""

    def change(clip: float) -> dict[str, torch.Tensor]:
        engine = TrainingEngine(SHAPE, plan_for(stage=stage, optimizer=MUON, gradient_clipping=clip), ranks, 5, None)
        before = {name: engine.state.get(name).clone() for name in engine.state.parameters}
        train_step(engine, 0)
        return {name: engine.state.get(name) - value for name, value in before.items()}

    never, rarely, always = change(0.0), change(100.0), change(1e-2)
    for name in hidden_matrices(GPT(SHAPE)):
        assert torch.equal(never[name], rarely[name])
        assert torch.allclose(never[name], always[name], atol=1e-5), name  # only 1e-7 in the divisor differs
        assert never[name].norm() > 0.02


def test_many_small_rounds_are_one_large_one(ranks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for limit in (1 << 23, 600):
        monkeypatch.setattr(whole_matrices, "MUON_ROUND", limit)
        engine = TrainingEngine(SHAPE, plan_for(stage=2, optimizer=MUON), ranks, 5, None)
        train_step(engine, 0)
        weights.append({name: engine.state.get(name) for name in engine.state.parameters})
    for name, value in weights[0].items():
        assert torch.allclose(weights[1][name], value, atol=1e-6), name


@settings(max_examples=50)
@given(sizes=st.lists(st.integers(1, 40), max_size=30), world=st.integers(1, 5), cut=st.booleans())
def test_every_matrix_has_an_owner_and_the_work_is_even(sizes: list[int], world: int, cut: bool) -> None:
    places = [Place((size, 8), 1, torch.empty(0), 0, (Part(0, size * (4 if cut else 8)),) * world) for size in sizes]
    load, seen = [0] * world, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole_matrices, "MUON_ROUND", 200)
        for chosen, owners in whole_matrices.rounds(places, world):
            for rank in range(world):
                mine = [place for place, owner in zip(chosen, owners, strict=True) if owner == rank]
                assert len(mine) <= 1 or sum(place.numel for place in mine) <= 200
                load[rank] += sum(place.cost for place in mine)
            seen += [place.shape[0] for place in chosen]
    assert sorted(seen) == sorted(sizes)
    assert max(load) - min(load) <= max((place.cost for place in places), default=0)


def test_a_gradient_that_is_not_finite_changes_nothing(ranks: Any) -> None:
    """Stage 0, where the host does not wait for the norm; at the others DeepSpeed skips the step."""
    engine = TrainingEngine(SHAPE, plan_for(optimizer=MUON), ranks, 5, None)
    train_step(engine, 0)
    state = engine.state
    kept = {
        (name, slot): state.get(name, slot).clone() for name in state.parameters for slot in (None, *state.slots(name))
    }
    for micro in range(4):
        engine.backward(engine.loss(batch(micro)) * (float("inf") if micro == 1 else 1.0), 128)
    engine.update(1.0)
    for (name, slot), value in kept.items():
        assert torch.equal(state.get(name, slot), value), (name, slot)
    assert all(train_step(engine, 1) < 10 for _ in range(2))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_ranks_any_stage(world: int, corpus: Path, tmp_path: Path) -> None:
    """The losses of one rank to 1e-4; killed and resumed bit by bit; resumed on one rank, and from one, to rounding."""
    kinds = [*product(ARCHS, STAGES, ["fp32"]), ("gpt2", 2, "bf16")]
    every = ("--save-every", "4", "--eval-every", "100")

    def plan(run: Path, arch: str, stage: int, precision: str = "fp32") -> Plan:
        file = deepspeed_file(run.with_suffix(".json"), stage, precision, optimizer=MUON)
        return Plan(flags(corpus, run, file, 8, *every, *ARCHS[arch]))

    def folders(name: str) -> dict[tuple[str, int, str], Path]:
        return {kind: tmp_path / "-".join(map(str, (name, *kind))) for kind in kinds}

    whole, again = folders("whole"), folders("again")
    done = [0] * len(kinds)
    assert together(world, [plan(run, *kind) for kind, run in whole.items()], tmp_path / "a", seconds=600) == done
    alone = {arch: tmp_path / f"alone-{arch}" for arch in ARCHS}
    fewer = {arch: copy_as_of(whole[arch, 2, "fp32"], 4, tmp_path / f"fewer-{arch}") for arch in ARCHS}
    one = [plan(runs[arch], arch, 0) for runs in (alone, fewer) for arch in ARCHS]
    assert together(1, one, tmp_path / "b", seconds=600) == [0] * 4
    for kind, run in again.items():
        copy_as_of(whole[kind], 4, run)
    more = {arch: copy_as_of(alone[arch], 4, tmp_path / f"more-{arch}") for arch in ARCHS}
    several = [plan(run, *kind) for kind, run in again.items()] + [plan(more[arch], arch, 3) for arch in ARCHS]
    assert together(world, several, tmp_path / "c", seconds=600) == [*done, 0, 0]
    for arch in ARCHS:
        for run in (fewer[arch], more[arch]):
            assert losses(run) == pytest.approx(losses(alone[arch]), abs=1e-4), run.name
            assert records(run)[-1]["lr"] == pytest.approx(0.1 * 0.02), "that of the hidden matrices"
    for kind, run in whole.items():
        near = 1e-4 if kind[2] == "fp32" else 5e-2
        assert losses(run) == pytest.approx(losses(alone[kind[0]]), abs=near), kind
        assert losses(again[kind]) == losses(run), kind
        first, second = (json.loads((step_folder(r, 8) / MANIFEST).read_text()) for r in (run, again[kind]))
        assert first["files"] == second["files"], kind

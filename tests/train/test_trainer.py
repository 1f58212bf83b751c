"""The training loop, compared with a plain PyTorch loop at every ZeRO stage, and with injected failures."""

import json
import math
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import GLOBAL_BATCH, Plan, copy_as_of, deepspeed_file, flags, losses, records, together

from kogpt.checkpoint.layout import MANIFEST, STATE, step_folder
from kogpt.checkpoint.verify import newest_good
from kogpt.data.corpus import TokenCorpus
from kogpt.data.sampler import epoch_order
from kogpt.model.qwen3 import Qwen3Config
from kogpt.model.registry import build, config_from_dict
from kogpt.optim.parameter_groups import parameter_groups
from kogpt.optim.schedule import Schedule, learning_rate

STEPS = 50
STAGES = (0, 1, 2, 3)
GOLDEN = Path(__file__).with_name("golden_losses.json")


def plain_losses(corpus: Path, steps: int, schedule: Schedule = "cosine", **shape: Any) -> list[float]:
    """The losses of a plain loop without ranks, micro-batches, ZeRO, or fused optimizers."""
    opened = TokenCorpus.open(corpus)
    stream = opened.stream("train")
    ids = torch.from_numpy(stream.read(0, len(stream)))
    count = math.ceil((len(ids) - 1) / 32)
    torch.manual_seed(1)
    model = build(config_from_dict({"vocab_size": opened.vocab_size, "max_seq_len": 32, **shape}))
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), betas=(0.9, 0.95), eps=1e-8, foreach=False)
    order = [window for epoch in range(10) for window in epoch_order(count, 1, epoch)]
    found = []
    for step in range(steps):
        starts = [min(int(w) * 32, len(ids) - 33) for w in order[step * GLOBAL_BATCH : (step + 1) * GLOBAL_BATCH]]
        rows = torch.stack([ids[start : start + 33] for start in starts])
        logits = model(rows[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, schedule=schedule, peak=1e-3, total_steps=steps, warmup_steps=2)
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.fixture(scope="module")
def reference(corpus: Path) -> list[float]:
    return plain_losses(corpus, STEPS, n_layer=1, n_head=1, n_embd=64)


def _arguments(corpus: Path, run: Path, stage: int, precision: str, steps: int, *more: str) -> list[str]:
    config = deepspeed_file(run.with_suffix(".json"), stage, precision)
    return flags(corpus, run, config, steps, *more)


@pytest.mark.parametrize("world", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_stage_gives_the_losses_of_a_plain_loop(
    world: int, corpus: Path, reference: list[float], tmp_path: Path
) -> None:
    """fp32 to 1e-5. bf16 to 2e-2: a weight has 8 bits, so each is off by up to 2^-9 = 0.2 %, and so is each activation;
    on a loss of 6 that is some thousandths in each step, and the two trainings drift apart from there."""
    runs = [("fp32", stage) for stage in STAGES] + [("bf16", stage) for stage in STAGES if world != 1]
    more = ("--warmup", "0.04", "--prompts", "대한민국은")
    plans = [Plan(_arguments(corpus, tmp_path / f"{p}-{s}", s, p, STEPS, *more)) for p, s in runs]
    assert together(world, plans, tmp_path / "ranks") == [0] * len(plans)
    for precision, stage in runs:
        found = losses(tmp_path / f"{precision}-{stage}")
        deviation = max(abs(a - b) for a, b in zip(found, reference, strict=True))
        assert deviation < (1e-5 if precision == "fp32" else 2e-2), f"{precision}, stage {stage}: {deviation}"
    # These numbers must not change by accident. If a change is intended, write the new ones to the file.
    assert losses(tmp_path / "fp32-0")[::7] == pytest.approx(json.loads(GOLDEN.read_text()), abs=2e-4)
    bits = {round(records(tmp_path / f"fp32-{stage}")[-1]["val_bits_per_char"], 4) for stage in STAGES}
    assert len(bits) == 1
    said = (tmp_path / "ranks" / "log").read_text()
    assert len(set(re.findall(r"대한민국은\|.*", said))) <= 2, "greedy continuations: one in fp32, one in bf16"


@pytest.mark.timeout(900)
def test_another_architecture_at_every_stage_and_resumed_in_the_middle(corpus: Path, tmp_path: Path) -> None:
    shape = ("--arch", "qwen3", "--depth", "3", "--kv-heads", "1", "--untied-head", "--schedule", "wsd", "--decay", "0")
    attend = ("--attend", "window")  # as the plain loop
    plans = [
        Plan(
            _arguments(corpus, tmp_path / f"{stage}", stage, "fp32", steps, *shape, *attend, "--warmup", f"{2 / steps}")
        )
        for stage in STAGES
        for steps in (6, 12)
    ]
    assert together(2, plans, tmp_path / "ranks", seconds=600) == [0] * 8
    fields = {"arch": "qwen3", **Qwen3Config.shape_of_depth(3), "n_kv_head": 1, "tied": False}
    expected = plain_losses(corpus, 12, "wsd", **fields)
    for stage in STAGES:
        assert losses(tmp_path / f"{stage}") == pytest.approx(expected, abs=1e-5), f"stage {stage}"


def test_resume_is_exact_on_as_many_ranks_and_close_on_others(corpus: Path, tmp_path: Path) -> None:
    """Weights, Adam's moments and step, dropout, data order, and schedule continue as if not interrupted."""
    kinds = [*((stage, "fp32") for stage in STAGES), (2, "bf16"), (3, "bf16")]
    every = ("--save-every", "6", "--eval-every", "100")
    wet = {kind: tmp_path / f"dropout-{kind[0]}-{kind[1]}" for kind in kinds}
    plans = [Plan(_arguments(corpus, run, *kind, 12, *every, "--dropout", "0.1")) for kind, run in wet.items()]
    dry = tmp_path / "dry"
    assert together(2, [*plans, Plan(_arguments(corpus, dry, 2, "fp32", 12, *every))], tmp_path / "a") == [0] * 7

    again = {kind: copy_as_of(run, 6, tmp_path / f"again-{run.name}") for kind, run in wet.items()}
    plans = [Plan(_arguments(corpus, run, *kind, 12, *every, "--dropout", "0.1")) for kind, run in again.items()]
    assert together(2, plans, tmp_path / "b") == [0] * 6
    for kind in kinds:
        assert losses(again[kind]) == losses(wet[kind]), f"stage, precision {kind}"
        assert len(losses(again[kind])) == 12
        one, other = (json.loads((step_folder(run, 12) / MANIFEST).read_text()) for run in (wet[kind], again[kind]))
        assert one["files"] == other["files"], f"{kind}: weights, slots and counters"

    alone = {stage: copy_as_of(dry, 6, tmp_path / f"alone-{stage}") for stage in STAGES}
    plans = [Plan(_arguments(corpus, run, stage, "fp32", 12, *every)) for stage, run in alone.items()]
    assert together(1, plans, tmp_path / "c") == [0] * 4
    for stage, run in alone.items():
        assert losses(run) == pytest.approx(losses(dry), abs=1e-5), f"2 ranks, stage 2 -> 1 rank, stage {stage}"


def test_a_run_that_is_lengthened_does_not_warm_up_again(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ("--save-every", "5", "--eval-every", "100", "--schedule", "wsd", "--warmup", "0.4", "--decay", "0")
    for steps in (10, 30):  # 40 % of 30 would be 12
        assert together(1, [Plan(_arguments(corpus, run, 0, "fp32", steps, *more))], tmp_path / str(steps)) == [0]
    rates = [record["lr"] for record in records(run)]
    assert rates[:3] == pytest.approx([rates[3] / 4, rates[3] / 2, rates[3] * 3 / 4])
    assert rates[3:] == [rates[3]] * 27


@pytest.mark.parametrize(("before", "after"), [(1, 2), pytest.param(2, 4, marks=pytest.mark.slow)])
def test_resume_on_more_ranks(before: int, after: int, corpus: Path, tmp_path: Path) -> None:
    """At every stage the windows of each step are the same, and the losses are equal to rounding error."""
    every = ("--save-every", "6", "--eval-every", "100")

    def train(world: int, prefix: str) -> dict[int, Path]:
        runs = {stage: tmp_path / f"{prefix}-{stage}" for stage in STAGES}
        seen = {stage: tmp_path / f"windows-{prefix}-{stage}" for stage in STAGES}
        for folder in seen.values():
            folder.mkdir()
        plans = [
            Plan(_arguments(corpus, run, stage, "fp32", 12, *every), {"note_windows": str(seen[stage])})
            for stage, run in runs.items()
        ]
        assert together(world, plans, tmp_path / prefix) == [0] * len(STAGES)
        return runs

    whole = train(before, "whole")
    for stage in STAGES:
        copy_as_of(whole[stage], 6, tmp_path / f"more-{stage}")
    more = train(after, "more")
    for stage in STAGES:
        assert losses(more[stage]) == pytest.approx(losses(whole[stage]), abs=1e-5), f"stage {stage}"
        for step in range(7, 13):
            order = [_windows(tmp_path / f"windows-{prefix}-{stage}", step) for prefix in ("whole", "more")]
            assert len(order[0]) == GLOBAL_BATCH
            assert order[0] == order[1], f"stage {stage}, step {step}"


def _windows(folder: Path, step: int) -> list[bytes]:
    """The windows of a step, all ranks together, without their order in the batch, which changes nothing."""
    found = b"".join(path.read_bytes() for path in folder.glob(f"step-{step}-rank-*"))
    size = 32 * 8  # ids of int64
    return sorted(found[start : start + size] for start in range(0, len(found), size))


def test_what_breaks_inside_a_rank(corpus: Path, tmp_path: Path) -> None:
    """A gradient that is not finite, a full disk, or a signal during evaluation, on one of two ranks."""
    poisoned = [*((stage, "fp32") for stage in STAGES), (0, "bf16"), (2, "bf16")]
    plans = [Plan(_arguments(corpus, tmp_path / f"nan-{s}-{p}", s, p, 6), {"rank": 1, "nan": [3]}) for s, p in poisoned]
    forever = Plan(_arguments(corpus, tmp_path / "hopeless", 2, "fp32", 40), {"rank": 1, "nan": list(range(3, 41))})
    every = ("--save-every", "2")
    full = Plan(_arguments(corpus, tmp_path / "full", 2, "fp32", 6, *every), {"rank": 0, "full_disk": [4]})
    signalled = {"rank": 1, "signal_in_evaluation": signal.SIGTERM}
    stopped = Plan(_arguments(corpus, tmp_path / "stopped", 2, "fp32", 9, "--eval-every", "4"), signalled)
    *ends, hopeless, filled, terminated = together(2, [*plans, forever, full, stopped], tmp_path / "ranks")

    assert ends == [0] * len(poisoned)
    for stage, precision in poisoned:
        run = records(tmp_path / f"nan-{stage}-{precision}")
        assert [record["skipped_steps"] for record in run] == [0, 0, 1, 1, 1, 1], f"stage {stage} {precision}"
        assert [record["loss"] is None for record in run] == [False, False, True, False, False, False]
        state = step_folder(tmp_path / f"nan-{stage}-{precision}", 6) / STATE
        assert json.loads(state.read_text())["optimizer_step"] == 5

    assert "20 steps in a row were not finite" in hopeless
    assert 'with half the learning rate: "optimizer": {"type": ' in hopeless
    assert json.loads((tmp_path / "hopeless" / "run.json").read_text())["state"] == "failed"

    assert filled == 0
    names = sorted(path.name for path in (tmp_path / "full" / "checkpoints").iterdir())
    assert names == ["best", "latest", "step-00000002", "step-00000006"]
    assert len(records(tmp_path / "full")) == 6
    assert "CHECKPOINT NOT SAVED at step 4" in (tmp_path / "ranks" / "log").read_text()

    assert terminated == 143
    assert newest_good(tmp_path / "stopped") == step_folder(tmp_path / "stopped", 4)
    assert json.loads((tmp_path / "stopped" / "run.json").read_text())["state"] == "stopped"

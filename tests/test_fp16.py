"""fp16 with loss scaling, which a GPU without bf16 uses. The test runs the same code on a CPU."""

import json
from pathlib import Path

import pytest
from trainings import Plan, copy_as_of, deepspeed_file, flags, losses, records, together

from kogpt.checkpoint.layout import STATE, step_folder

STEPS = 12
TOO_HIGH = 22
"""An initial loss scale of 2^22: the first gradients overflow until it is lower."""


def _plan(corpus: Path, run: Path, stage: int, scale_power: int | None = None) -> Plan:
    """A DeepSpeed file with bf16, for a machine without it."""
    config = deepspeed_file(run.with_suffix(".json"), stage, "bf16")
    if scale_power is not None:
        content = json.loads(config.read_text()) | {"fp16": {"initial_scale_power": scale_power}}
        config.write_text(json.dumps(content))
    every = ("--save-every", "4", "--eval-every", "100")
    return Plan(flags(corpus, run, config, STEPS, *every), {"old_gpu": True})


def test_it_learns_as_fp32_does_finds_its_scale_and_goes_on_with_it(corpus: Path, tmp_path: Path) -> None:
    reference = tmp_path / "fp32"
    config = deepspeed_file(tmp_path / "fp32.json", 2)
    calm = {stage: tmp_path / f"calm-{stage}" for stage in (0, 2, 3)}
    wild = {stage: tmp_path / f"wild-{stage}" for stage in (1, 2, 3)}
    # In the same order as in the other process, because DeepSpeed's stage 3 changes torch's `linear` for good.
    plans = [_plan(corpus, run, stage, TOO_HIGH) for stage, run in wild.items()]
    plans += [_plan(corpus, run, stage) for stage, run in calm.items()]
    plans += [Plan(flags(corpus, reference, config, STEPS, "--eval-every", "100"))]
    assert together(2, plans, tmp_path / "a") == [0] * len(plans)

    for stage, run in calm.items():
        assert losses(run) == pytest.approx(losses(reference), abs=2e-3), f"stage {stage}"
        assert {record["loss_scale"] for record in records(run)} == {2.0**12}
        assert records(run)[-1]["skipped_steps"] == 0

    again = {stage: copy_as_of(run, 4, tmp_path / f"again-{run.name}") for stage, run in wild.items()}
    plans = [_plan(corpus, run, stage, TOO_HIGH) for stage, run in again.items()]
    assert together(2, plans, tmp_path / "b") == [0] * len(plans)
    for stage, run in wild.items():
        skipped = [record["skipped_steps"] for record in records(run)]
        scales = [record["loss_scale"] for record in records(run)]
        assert skipped[3] >= 3, "still searching where the other start goes on"
        assert skipped[-1] == skipped[-2] < STEPS, f"found: {skipped}"
        assert scales[-1] < 2.0**TOO_HIGH
        state = json.loads((step_folder(run, STEPS) / STATE).read_text())
        assert state["optimizer_step"] == STEPS - skipped[-1]
        assert losses(again[stage]) == losses(run), f"stage {stage}"
        assert [record["loss_scale"] for record in records(again[stage])] == scales

"""Checkpoints in the background: slow, full, and unshared disks, too little memory, kills, and the run's lock."""

import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import PROJECT, Plan, copy_as_of, deepspeed_file, flags, killed, losses, records, together, wait_until

from kogpt.checkpoint.layout import MANIFEST, pointed, step_folder
from kogpt.checkpoint.shards import Shard
from kogpt.checkpoint.verify import newest_good, verify
from kogpt.common.errors import UserError
from kogpt.train import saver
from kogpt.train.run_folder import hold
from kogpt.train.step_metrics import is_better

LIMIT, SLOW = 4.0, 5.5
"""The time-out of collectives, and the time to write or open one rank's part of a checkpoint, in seconds."""


def _plan(corpus: Path, run: Path, stage: int, *more: str, steps: int = 4, **sabotage: object) -> Plan:
    config = deepspeed_file(run.with_suffix(".json"), stage)
    return Plan(flags(corpus, run, config, steps, "--eval-every", "100", *more), sabotage)


def _files(run: Path, step: int) -> dict[str, dict[str, object]]:
    """The manifest entries of the tensor files."""
    files = json.loads((step_folder(run, step) / MANIFEST).read_text())["files"]
    return {name: entry for name, entry in files.items() if name.endswith(".safetensors")}


def test_a_disk_slower_than_the_time_out_of_collectives_ends_in_nobodys(corpus: Path, tmp_path: Path) -> None:
    """At every stage one of two ranks writes, and then reads, for longer than the time-out of collectives.

    Once rank 0 takes as long to write run.json, and once a rank takes as long for its first step, as if it compiled.
    """
    runs = {stage: tmp_path / f"run-{stage}" for stage in range(4)}
    slow: dict[str, Any] = {"rank": 1, "stall_seconds": LIMIT}
    plans = [_plan(corpus, run, stage, slow_write=SLOW, **slow) for stage, run in runs.items()]
    plans[0].sabotage["slow_state"] = SLOW
    plans[1].sabotage["slow_first_step"] = 3 * LIMIT  # rank 0 needs some of it for its own first step
    plans += [_plan(corpus, run, stage, steps=6, slow_read=SLOW, **slow) for stage, run in runs.items()]
    assert together(2, plans, tmp_path / "ranks") == [0] * 8
    for run in runs.values():
        assert len(losses(run)) == 6
        assert newest_good(run) == step_folder(run, 6)


def test_training_goes_on_beside_a_save_and_waits_for_the_one_before(corpus: Path, tmp_path: Path) -> None:
    run, log, free = tmp_path / "run", tmp_path / "ranks/log", tmp_path / "free"
    plan = _plan(corpus, run, 0, "--save-every", "2", rank=1, hold_write=str(free))
    waits = "The previous checkpoint is still being written, and training waits"
    with ThreadPoolExecutor(1) as thread:
        training = thread.submit(together, 2, [plan], log.parent)
        try:
            wait_until(lambda: training.done() or (log.exists() and waits in log.read_text()), 200, waits)
        finally:
            free.touch()
        assert training.result() == [0]
    assert waits in log.read_text()
    assert newest_good(run) == step_folder(run, 4)


def test_no_room_no_shared_folder_and_a_full_disk(corpus: Path, tmp_path: Path) -> None:
    """The bytes are the same in every case. A failed checkpoint leaves nothing behind, whichever rank failed."""
    every = ("--save-every", "2")
    cases: dict[str, dict[str, Any]] = {
        "plain-1": {},
        "room-1": {"no_room": True},
        "apart-1": {"unshared": True},
        "full-1": {"rank": 1, "full_disk": [2]},
        "full-apart-1": {"unshared": True, "full_disk": [2]},
        "last-1": {"rank": 1, "full_disk": [4]},
        "plain-3": {},
        "apart-3": {"unshared": True},
    }
    plans = [_plan(corpus, tmp_path / name, int(name[-1]), *every, **case) for name, case in cases.items()]
    ends = together(2, plans, tmp_path / "a")
    assert [end for end in ends if end != 0] == [ends[5]]
    assert "the last checkpoint could not be saved" in ends[5]
    assert "continue from step-00000002" in ends[5]
    assert len(_files(tmp_path / "plain-1", 4)) == 4
    for name in ("room-1", "apart-1", "apart-3"):
        assert _files(tmp_path / name, 4) == _files(tmp_path / f"plain-{name[-1]}", 4), name
    said = (tmp_path / "a/log").read_text()
    assert said.count("no host memory free for a copy") == 2
    assert len(re.findall("CHECKPOINT NOT SAVED at step 2: .*File too large", said)) == 2
    for name in ("full-1", "full-apart-1"):
        assert sorted(os.listdir(tmp_path / name / "checkpoints")) == ["best", "latest", "step-00000004"]
    assert sorted(os.listdir(tmp_path / "last-1/checkpoints")) == ["best", "latest", "step-00000002"]

    again = {name: copy_as_of(tmp_path / name, 2, tmp_path / f"again-{name}") for name in cases if "full" not in name}
    plans = [_plan(corpus, run, int(name[-1]), *every, unshared="apart" in name) for name, run in again.items()]
    assert together(2, plans, tmp_path / "b") == [0] * len(plans)
    for name, run in again.items():
        assert _files(run, 4) == _files(tmp_path / f"plain-{name[-1]}", 4), f"{name} went on exactly"


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_in_the_middle_of_a_save_the_checkpoint_before_stands(rank: int, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan = _plan(corpus, run, 1, "--save-every", "2", steps=400, rank=rank, die_in_save=4)
    codes = killed(2, plan, tmp_path / "ranks")
    assert codes[rank] == -signal.SIGKILL
    assert all(codes)
    assert pointed(run, "latest") == "step-00000002"
    assert newest_good(run) == step_folder(run, 2)
    assert list((run / "checkpoints").glob(".step-00000004.*"))
    together(2, [_plan(corpus, run, 1, "--save-every", "2", steps=4)], tmp_path / "again")
    assert not list((run / "checkpoints").glob(".step-*"))
    assert len(losses(run)) == 4


def test_an_evaluation_that_a_stop_cuts_short_is_made_up_for(corpus: Path, tmp_path: Path) -> None:
    """At the last step, when the run would count as finished, and before it. The metrics hold every step once."""
    stop = {"rank": 1, "signal_in_evaluation": signal.SIGTERM}
    runs = {steps: tmp_path / f"run-{steps}" for steps in (4, 6)}
    config = deepspeed_file(tmp_path / "ds.json", 2)
    commands = {steps: flags(corpus, run, config, steps, "--eval-every", "4") for steps, run in runs.items()}
    plans = [Plan(command, stop) for command in commands.values()]
    assert together(2, plans, tmp_path / "a") == [143, 143]
    assert [len(records(run)) for run in runs.values()] == [3, 3]
    assert together(2, [Plan(command) for command in commands.values()], tmp_path / "b") == [0, 0]
    for steps, run in runs.items():
        found = records(run)
        assert [record["step"] for record in found] == list(range(1, steps + 1))
        assert {r["step"] for r in found if r["val_loss"] is not None} == {4, steps}
        assert verify(step_folder(run, steps)) is None
        assert json.loads((run / "run.json").read_text())["state"] == "finished"


def test_a_run_folder_belongs_to_one_training(corpus: Path, tmp_path: Path) -> None:
    """The second one refuses and does not touch the first one's files. The kernel releases the lock of a dead one."""
    run = tmp_path / "run"
    lock = hold(run)
    writing = run / "checkpoints" / ".step-00000002.cafe"
    writing.mkdir(parents=True)
    [end] = together(1, [_plan(corpus, run, 0)], tmp_path / "second")
    assert f"The run folder {run} is in use by another training" in end
    assert writing.exists()
    program = "from kogpt.train.run_folder import *; lock = hold(Path(input())); print(1, flush=True); input()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        other.stdin.write(f"{tmp_path / 'other'}\n".encode())
        other.stdin.flush()
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(UserError, match="in use"):
            hold(tmp_path / "other")
        other.kill()
    hold(tmp_path / "other").release()
    lock.release()
    hold(run).release()
    assert not writing.exists()


def test_pinned_copies_are_counted_as_large_as_they_are_and_given_back(
    ranks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """torch rounds pinned blocks up to powers of two, and keeps them after use."""
    mebi = 1 << 20
    assert [saver.copy_bytes(numel, False) for numel in (mebi, mebi + 1)] == [4 * mebi, 4 * mebi + 4]
    assert [saver.copy_bytes(numel, True) for numel in (1, 3, mebi, mebi + 1)] == [4, 16, 4 * mebi, 8 * mebi]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(saver, "copy_bytes", lambda numel, pinned: 10**18 if pinned else 4)
    left = []
    monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: left.append(len(parts)), raising=False)
    parts: Any = [(Shard("weight", None, (3,), 0, 3), lambda: torch.ones(3))]
    saving = saver.Saver(tmp_path, replace(ranks, device=torch.device("cuda")), "token", shared=True)
    monkeypatch.setattr(saving, "_begin", lambda order, parts: saving._save(order, parts))
    monkeypatch.setattr(saver.Saver, "wait", lambda self: None)
    monkeypatch.setattr(saver, "reduce_max", lambda ranks, value: [value])
    saving.start(saver.Order(2, {}, {}, False, 1, None), parts)
    assert "no host memory free for a copy" in caplog.text
    assert left == [0], "after all copies were written"
    assert saving.outcomes()[0].error is None


@pytest.mark.parametrize(
    ("loss", "best", "expected"),
    [
        (2.0, None, True),
        (2.0, 3.0, True),
        (3.0, 2.0, False),
        (2.0, 2.0, False),
        (float("nan"), None, False),
        (2.0, float("nan"), True),
        (None, None, False),
    ],
)
def test_a_loss_that_is_no_number_is_never_the_best(loss: float | None, best: float | None, expected: bool) -> None:
    assert is_better(loss, best) == expected

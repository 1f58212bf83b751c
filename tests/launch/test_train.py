"""launch/train.py as users start it: under the `deepspeed` command, killed, told to stop, and with wrong options."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from trainings import PROJECT, TRAIN, Job, Plan, deepspeed_file, flags, launch, losses, records, together, wait_until

from kogpt.checkpoint.layout import CONFIG, MANIFEST, MODEL, OPTIMIZER, pointed, shard_file, step_folder
from kogpt.checkpoint.load import load_for_inference
from kogpt.checkpoint.verify import newest_good, verify
from kogpt.data.corpus import TokenCorpus
from kogpt.tracking import wandb_run
from kogpt.tracking.wandb_run import last_step_offline, offline_records
from kogpt.train.deepspeed_config import plan
from kogpt.train.deepspeed_file import read

STEPS = 90


def _ranks_of(job: Job) -> list[psutil.Process]:
    """The training processes below the `deepspeed` command."""
    below = psutil.Process(job.processes[0].pid).children(recursive=True)
    return [process for process in below if process.cmdline()[1:3] == ["-u", str(TRAIN)]]


def _wait_for_step(run: Path, step: int, job: Job) -> None:
    def there() -> bool:
        assert job.processes[0].poll() is None, job.said
        return len(records_so_far(run)) >= step

    wait_until(there, 120, f"step {step}: {job.said}")


def records_so_far(run: Path) -> list[bytes]:
    path = run / "metrics.jsonl"
    return path.read_bytes().splitlines() if path.exists() else []


QUANTITIES = {
    *("loss", "lr", "grad_norm", "loss_scale", "skipped_steps", "epoch", "tokens", "tokens_per_s", "chars_per_s"),
    *("step", "step_s", "data_wait", "memory_gib_rank0", "memory_gib_rank1"),
}
"""Of each step in W&B; MFU only where the GPU's peak is known."""


def test_killed_it_goes_on_bit_for_bit_and_w_and_b_has_every_step_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))  # where an offline artifact waits for `wandb sync`
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # another test of this process may have left one
    foreign = wandb_run._core("start", "--idle-timeout", "300s").stdout.strip()
    monkeypatch.setenv("WANDB_SERVICE", foreign)  # as in a notebook that has used W&B
    config = deepspeed_file(tmp_path / "ds.json", 2, optimizer={"type": "Muon"})
    every = ["--save-every", "25", "--eval-every", "1000", "--arch", "qwen3"]  # as new runs are
    run = tmp_path / "killed"
    watched = ["--wandb", "offline", "--wandb-artifact", "--prompts", "대한민국은", "모든 국민은"]
    arguments = [*flags(corpus, run, config, STEPS, *every), *watched]
    with launch(arguments, tmp_path / "log") as job:
        _wait_for_step(run, 30, job)
        wait_until(lambda: newest_good(run) is not None, 60, "step 25 is saved, beside the steps that follow")
        job.kill()
    assert len(records_so_far(run)) < STEPS
    with launch(arguments, tmp_path / "log") as job:
        assert job.wait() == [0], job.said
    assert "Continuing after step" in job.said
    assert "Traceback" not in job.said

    whole = tmp_path / "whole"
    assert together(2, [Plan(flags(corpus, whole, config, STEPS, *every))], tmp_path / "ranks") == [0]
    assert losses(run) == losses(whole)
    assert [record["step"] for record in records(run)] == list(range(1, STEPS + 1))

    history = offline_records(run)
    assert sorted(entry["step"]["num"] for entry in history) == list(range(1, STEPS + 1))
    logged = {entry["step"]["num"]: entry["item"]["loss"] for entry in history}
    assert [logged[step] for step in sorted(logged)] == losses(run)
    assert len({entry["item"]["lr"] for entry in history}) > STEPS / 2
    _check_what_w_and_b_has(run, corpus, history)
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    wandb_run._core("stop", WANDB_SERVICE=foreign)


def _check_what_w_and_b_has(run: Path, corpus: Path, history: list[dict[str, Any]]) -> None:
    """All quantities at each step, those of evaluations at each checkpoint, the origin of the run and its end."""
    items = {entry["step"]["num"]: entry["item"] for entry in history}
    assert all(items[step].keys() >= QUANTITIES for step in items)
    evaluated = {step for step in items if {"val_loss", "val_bits_per_char"} <= items[step].keys()}
    assert evaluated == {25, 50, 75, STEPS}

    tables = (run / "wandb").glob("offline-run-*/files/media/table/*.json")
    rows = {tuple(row[:2]) for table in tables for row in json.loads(table.read_text())["data"]}
    assert rows == {(step, prompt) for step in evaluated for prompt in ("대한민국은", "모든 국민은")}

    config = offline_records(run, "run")[-1]["config"]["update"]
    assert config["corpus"] == TokenCorpus.open(corpus).fingerprint
    assert re.fullmatch(r"[0-9a-f]{40}\+?", config["git_commit"])
    assert (config["options"]["schedule"]["steps"], config["zero_stage"], config["world_size"]) == (STEPS, 2, 2)

    summary: dict[str, Any] = {}
    for record in offline_records(run, "summary"):
        summary |= record["update"]
    assert (summary["state"], summary["step"], summary["mfu"]) == ("finished", STEPS, "unknown")
    assert summary["last_evaluation"]["val_bits_per_char"] == items[STEPS]["val_bits_per_char"]

    [artifact] = [a for a in offline_records(run, "artifact") if a["type"] == "model"]
    files = {entry["path"] for entry in artifact["manifest"]["contents"]}
    assert {shard_file(MODEL, 1, 2), shard_file(OPTIMIZER, 0, 2), CONFIG, MANIFEST} <= files


def _terminate_rank(job: Job) -> None:
    _ranks_of(job)[1].terminate()


def _terminate_command(job: Job) -> None:
    os.kill(job.processes[0].pid, signal.SIGTERM)


def _kill_command(job: Job) -> None:
    os.kill(job.processes[0].pid, signal.SIGKILL)


def _terminate_launcher(job: Job) -> None:
    psutil.Process(job.processes[0].pid).children()[0].terminate()


def _kill_launcher(job: Job) -> None:
    psutil.Process(job.processes[0].pid).children()[0].kill()


def _interrupt_all(job: Job) -> None:
    os.killpg(job.processes[0].pid, signal.SIGINT)


CRASH, SLOW = pytest.mark.crash, pytest.mark.slow


@pytest.mark.parametrize(
    "stop",
    [
        _terminate_command,
        pytest.param(_terminate_rank, marks=CRASH),
        pytest.param(_kill_command, marks=SLOW),
        pytest.param(_terminate_launcher, marks=SLOW),
        pytest.param(_kill_launcher, marks=CRASH),
        pytest.param(_interrupt_all, marks=SLOW),
    ],
)
def test_told_to_stop_it_saves_the_step_and_ends(stop: Callable[[Job], None], corpus: Path, tmp_path: Path) -> None:
    """Within 30 s: after that the launcher kills."""
    run = tmp_path / "run"
    config = deepspeed_file(tmp_path / "ds.json", 2)
    never = ("--eval-every", "100000", "--save-every", "100000")
    arguments = [*flags(corpus, run, config, 100_000, *never), "--wandb", "offline"]
    with launch(arguments, tmp_path / "log") as job:
        _wait_for_step(run, 3, job)
        ranks = _ranks_of(job)
        assert len(ranks) == 2
        stop(job)
        wait_until(lambda: not any(map(_alive, ranks)), 30, f"the ranks end: {job.said}")
        job.wait(40)
        if stop is not _kill_launcher:  # whose parent then reports success, whatever the ranks do
            assert job.processes[0].returncode != 0
    last = len(records(run))
    assert newest_good(run) == step_folder(run, last), job.said
    assert "W&B does not answer" not in job.said
    assert last_step_offline(run) == last, "W&B's service outlives the signal"


def _alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("victim", [pytest.param(0, marks=CRASH), 1])
@pytest.mark.parametrize("command", [True, pytest.param(False, marks=CRASH)])
def test_one_rank_dies_and_the_others_end(victim: int, command: bool, corpus: Path, tmp_path: Path) -> None:
    """Within 60 s and not with 0; also without a launcher that would see to it."""
    run = tmp_path / "run"
    config = deepspeed_file(tmp_path / "ds.json", 3)
    arguments = flags(corpus, run, config, 100_000, "--eval-every", "100000", "--save-every", "10")
    with launch(arguments, tmp_path / "log", command=command) as job:
        _wait_for_step(run, 15, job)
        wait_until(lambda: newest_good(run) is not None, 60, "step 10 is saved, beside the steps that follow")
        ranks = _ranks_of(job) if command else [psutil.Process(process.pid) for process in job.processes]
        started = time.monotonic()
        ranks[victim].kill()
        codes = job.wait(60)
        wait_until(lambda: not any(map(_alive, ranks)), 60 - (time.monotonic() - started), "all ranks end")
        assert all(codes), codes
    assert newest_good(run) is not None


@pytest.mark.crash
def test_a_rank_that_hangs_ends_the_others(corpus: Path, tmp_path: Path) -> None:
    """SIGSTOP: alive for the kernel, silent for its peers; their collectives give up."""
    run = tmp_path / "run"
    arguments = flags(corpus, run, deepspeed_file(tmp_path / "ds.json", 2), 100_000, "--eval-every", "100000")
    with launch(arguments, tmp_path / "log", command=False) as job:
        _wait_for_step(run, 15, job)
        job.processes[1].send_signal(signal.SIGSTOP)
        job.processes[0].wait(60)
        assert job.processes[0].returncode not in (0, None)


@pytest.mark.parametrize("stage", [pytest.param(0, marks=SLOW), pytest.param(3, marks=CRASH)])
@pytest.mark.timeout(900)  # eight starts, one after another
def test_killed_over_and_over_also_in_a_save(stage: int, corpus: Path, tmp_path: Path) -> None:
    """kill -9 at five moments, then to the end: the losses of an undisturbed run; never an unusable checkpoint."""
    config = deepspeed_file(tmp_path / "ds.json", stage)
    every = ["--save-every", "2", "--eval-every", "1000"]
    run, whole = tmp_path / "killed", tmp_path / "whole"
    arguments = flags(corpus, run, config, STEPS, *every)
    for moment in range(5):
        with launch(arguments, tmp_path / "log") as job:
            _wait_for_step(run, 10 + 12 * moment, job)
            time.sleep(0.013 * moment)
            job.kill()
        named = pointed(run, "latest")
        assert named is not None
        assert verify(run / "checkpoints" / named) is None
    with launch(arguments, tmp_path / "log") as job:
        assert job.wait() == [0], job.said
    assert together(2, [Plan(flags(corpus, whole, config, STEPS, *every))], tmp_path / "ranks") == [0]
    assert losses(run) == losses(whole)


def _plain(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TRAIN), *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        cwd="/",
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"train_batch_size": "auto", "train_micro_batch_size_per_gpu": 0, "shceduler": {}}')
    done = _plain("--corpus", str(tmp_path / "none"), "--deepspeed-config", str(bad))
    assert done.returncode == 2
    for part in ("none is not a finished token corpus", '"shceduler" is unknown', '"auto"', "per_gpu"):
        assert part in done.stderr, done.stderr
    done = _plain("--preset", "small", "--depth", "3", "--steps", "0", "--stride", "0")
    assert done.returncode == 2
    for part in ("--preset small and --depth 3", "--steps is 0", "--stride is 0"):
        assert part in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_plain_python_trains_and_refuses_what_contradicts_the_checkpoint(corpus: Path, tmp_path: Path) -> None:
    config, run = deepspeed_file(tmp_path / "ds.json", 2), tmp_path / "run"
    arguments = flags(corpus, run, config, 2)
    done = _plain(*arguments, "--deterministic")
    assert done.returncode == 0, done.stderr
    assert len(losses(run)) == 2
    done = _plain(*arguments, "--seed", "7", "--dropout", "0.5")
    assert done.returncode == 2
    assert "--seed is 7 instead of 1" in done.stderr
    assert "dropout is 0.5 instead of 0.0" in done.stderr
    loaded = load_for_inference(run)
    assert loaded.tokenizer_folder == run / "tokenizer"
    assert loaded.info["step"] == 2


def test_ready_made_files_are_accepted() -> None:
    stages = {}
    for path in [PROJECT / "ds_config.json", *(PROJECT / "launch").glob("ds_*.json")]:
        content = {"train_batch_size": 64} | read(path)
        for ranks in (1, 2, 8):
            fitted = plan(path, content, world_size=ranks, device="cuda", has_bf16=True)
            assert fitted.micro_batch * fitted.grad_accum * ranks == content["train_batch_size"]
        stages[path.name] = (fitted.stage, fitted.offload)
    expected = {f"ds_zero{stage}.json": (stage, False) for stage in (0, 1, 3)}
    expected |= {"ds_config.json": (2, False), "ds_adamw.json": (2, False), "ds_zero2_offload.json": (2, True)}
    assert expected.items() <= stages.items()

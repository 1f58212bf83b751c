"""launch/sweep.yaml: W&B's command takes it, and each training that it describes has flags that training takes."""

import shlex
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from trainings import PROJECT
from wandb_server import wandb_server

from kogpt.tracking import wandb_run
from kogpt.train.options import parse

SWEEP = PROJECT / "launch" / "sweep.yaml"


def test_wandb_takes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with wandb_server() as server:
        environment = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": server.key, "HOME": str(tmp_path)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-m", "wandb", "sweep", str(SWEEP)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "wandb agent someone/kogpt/sweep1" in done.stderr
    [sweep] = server.sweeps
    assert yaml.safe_load(sweep["config"]) == yaml.safe_load(SWEEP.read_text())


def test_training_takes_every_combination(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The agent gives `--name=value` for ${args}, and bash the id of the run."""
    monkeypatch.chdir(PROJECT)
    sweep = yaml.safe_load(SWEEP.read_text())
    bash, dash_c, script, name, arguments = sweep["command"]
    assert (bash, dash_c, name, arguments) == ("bash", "-c", "train.py", "${args}")
    shown = script.replace("exec python launch/train.py", "printf '%s\\n'")
    assert sweep["metric"]["name"] == "val_bits_per_char"
    values = [one["values"] for one in sweep["parameters"].values()]
    for chosen in product(*values):
        flags = [f"--{key}={value}" for key, value in zip(sweep["parameters"], chosen, strict=True)]
        fixed = shlex.split(script)[3:-1]
        assert parse([*fixed, *flags]).model.dropout in (0.0, 0.1)
    monkeypatch.setenv("WANDB_RUN_ID", "a1b2")
    said = subprocess.run([bash, dash_c, shown, name, "--warmup=0.1"], capture_output=True, text=True, timeout=60)
    assert said.stdout.split()[2:4] == ["--out", "runs/sweep/a1b2"]
    assert said.stdout.split()[-1] == "--warmup=0.1"


def test_the_run_has_the_id_that_the_agent_chose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise the server does not know that it belongs to the sweep. A resumed one keeps it."""
    monkeypatch.setenv("WANDB_RUN_ID", "a1b2")
    assert wandb_run._id_of(tmp_path) == "a1b2"
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    assert wandb_run._id_of(tmp_path) == "a1b2"

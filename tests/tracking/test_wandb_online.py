"""W&B online: the real client against a server on this machine. Every step arrives once, whatever is lost between."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import wandb as client
from builders import record
from wandb_server import WandbServer, wandb_server

from kogpt.common import wandb
from kogpt.tracking import wandb_run

KILLED = """
import json, os, sys, time
from pathlib import Path
from kogpt.tracking import wandb_run
run = wandb_run.start(Path(sys.argv[1]), "online", "kogpt-test", {"seed": 1})
for line in sys.stdin:
    run.log(json.loads(line))
print("logged", flush=True)
time.sleep(600)
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WandbServer]:
    """A server that the environment names, with its key. Without `teardown` the client keeps its earlier settings."""
    client.teardown()
    with wandb_server() as made:
        monkeypatch.setenv("WANDB_BASE_URL", made.url)
        monkeypatch.setenv("WANDB_API_KEY", made.key)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr(wandb, "INIT_SECONDS", 120)
        yield made


def started(folder: Path) -> wandb_run.WandbRun:
    folder.mkdir(exist_ok=True)
    run = wandb_run.start(folder, "online", "kogpt-test", {"seed": 1})
    assert run is not None
    return run


def steps(server: WandbServer) -> list[tuple[int, float]]:
    [run] = server.runs.values()
    return [(line["_step"], line["loss"]) for line in run.history]


def wanted(last: int) -> list[tuple[int, Any]]:
    return [(step, pytest.approx(5 / step)) for step in range(1, last + 1)]


def wait_for(what: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def test_a_run_with_texts_and_an_alert(server: WandbServer, tmp_path: Path) -> None:
    run = started(tmp_path / "실험")
    evaluated = record(2, val_loss=2.5, continuations=[("대한민국은 ", "민주공화국이다")])
    run.catch_up([record(1), evaluated | {"val_bits_per_char/law": 3.0}])
    run.alert("training diverges", "The loss rose.", "WARN")
    run.finish("finished", {"tokens": 20})
    assert steps(server) == wanted(2)
    [[id, online]] = server.runs.items()
    assert id == (tmp_path / "실험" / "wandb_id").read_text()
    assert (online.exit_code, online.summary["state"], online.summary["tokens"]) == (0, "finished", 20)
    assert online.config["seed"]["value"] == 1
    assert (online.history[1]["val_loss"], online.history[1]["val_bits_per_char/law"]) == (2.5, 3.0)
    [table] = [json.loads(body) for name, body in server.uploads.items() if name.startswith(f"{id}/media/table/")]
    assert table["data"] == [[2, "대한민국은 ", "민주공화국이다"]]
    assert [(one["title"], one["severity"]) for one in server.alerts] == [("training diverges", "WARN")]


@pytest.mark.crash
@pytest.mark.parametrize("machine", [False, True], ids=["process", "machine"])
def test_a_killed_run_goes_on(machine: bool, server: WandbServer, tmp_path: Path) -> None:
    """With the process alone, W&B's service still sends what it has; with the machine, the service is gone as well."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write("".join(json.dumps(record(step)) + "\n" for step in range(1, 6)))
        process.stdin.close()
        assert process.stdout.readline() == "logged\n"
        if machine:
            wait_for(lambda: server.runs and steps(server))
        process.kill()
    if machine:
        socket = (tmp_path / "wandb_service").read_text().partition("-unix-")[2]
        [service] = {one.pid for one in psutil.net_connections("unix") if one.laddr == socket and one.pid}
        os.kill(service, signal.SIGKILL)
    run = started(tmp_path)
    assert run.seen == len(steps(server)), "the steps that the server has"
    run.catch_up([record(step) for step in range(1, 8)])
    run.log(record(8))
    run.finish("finished", {})
    assert steps(server) == wanted(8)
    [online] = server.runs.values()
    assert online.starts == 2


@pytest.mark.crash
def test_a_server_that_was_away_gets_everything(server: WandbServer, tmp_path: Path) -> None:
    run = started(tmp_path)
    run.log(record(1))
    server.away = True
    for step in range(2, 6):
        run.log(record(step))
    wait_for(lambda: server.turned_away)
    run.log(record(6))
    server.away = False
    run.log(record(7))
    run.finish("finished", {})
    assert steps(server) == wanted(7)


@pytest.mark.crash
def test_a_server_that_stays_away_does_not_hold_up_the_end(
    server: WandbServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it did not take is on disk, and a resumed run brings it."""
    monkeypatch.setattr(wandb, "FINISH_SECONDS", 2)
    run = started(tmp_path)
    run.log(record(1))
    server.away = True
    run.log(record(2))
    began = time.monotonic()
    run.finish("stopped", {})
    assert time.monotonic() - began < 60
    assert any(f"wandb sync {tmp_path}" in line for line in caplog.messages)
    server.away = False
    monkeypatch.setattr(wandb, "FINISH_SECONDS", 600)
    again = started(tmp_path)
    again.catch_up([record(step) for step in range(1, 4)])
    again.finish("finished", {})
    assert steps(server) == wanted(3)


@pytest.mark.crash
def test_a_wrong_key_costs_a_sentence(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "w" * 40)
    caplog.set_level(logging.INFO, "kogpt")
    run = started(tmp_path)
    run.log(record(1))
    run.finish("finished", {})
    warnings = [one for one in caplog.records if one.levelno >= logging.WARNING and one.name.startswith("kogpt")]
    [said] = [one.getMessage() for one in warnings]
    assert said == f"W&B online cannot start ({server.url} refuses the API key; log in again with `wandb login`)."
    assert server.runs == {}
    assert wandb_run.last_step_offline(tmp_path) == 1

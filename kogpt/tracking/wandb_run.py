"""The W&B run of a training: online, offline, or off, without questions. In: records of metrics.jsonl. Rank 0 only.

The id of the run is stored in RUN/wandb_id, so a resumed training continues the same W&B run. W&B writes its file only
every 15 seconds or so, and drops a step that it has already seen. `catch_up` finds out how far W&B got before a crash
(from the server, or from the offline files), logs the missing steps from metrics.jsonl, and skips the others. W&B never
stops a training; a problem with it is reported once.
"""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.common.wandb import OFFLINE_SECONDS, Mode, decided, quiet_settings
from kogpt.tracking.alerts import Level

log = logging.getLogger(__name__)

IDLE = "20s"


def log_evaluation(run: Path, mode: Mode, project: str, step: int, numbers: dict[str, float]) -> None:
    """Log an evaluation as its own W&B run, in a group named after the training's W&B id (which may still be running).

    Offline, it is in RUN/evaluations. Raises `UserError` if W&B cannot be used, because the user asked for it.
    """
    mode = decided(mode)
    if mode == "off":
        return
    import wandb

    folder = run / "evaluations"
    folder.mkdir(exist_ok=True)
    try:
        with wandb.init(
            project=project,
            name=f"{run.name} at step {step}",
            group=_id_of(run),
            job_type="evaluation",
            dir=folder,
            mode=mode,
            config={"run": run.name, "step": step},
            settings=quiet_settings(mode),
        ) as handle:
            handle.log(numbers)
    except (wandb.Error, TimeoutError, ValueError) as error:  # ValueError: a name that is not UTF-8
        raise UserError(f"W&B {mode} cannot log the evaluation ({_reason(error)}); use --wandb offline.") from None


def start(run: Path, mode: Mode, project: str, config: dict[str, Any]) -> "WandbRun | None":
    """Start the W&B run of a run folder; None if it is off, or if W&B cannot start (with a message)."""
    mode = decided(mode)
    if mode == "off":
        return None
    import wandb

    id = _id_of(run)
    _end_service(run)
    attempts: tuple[Literal["online", "offline"], ...] = ("online", "offline") if mode == "online" else ("offline",)
    for attempt in attempts:
        seen = 0 if attempt == "online" else _seen_offline(run)
        _start_service(run)
        try:
            handle = wandb.init(
                project=project,
                name=run.name,
                id=id,
                dir=run,
                mode=attempt,
                resume="allow" if attempt == "online" else None,
                config=config,
                settings=quiet_settings(attempt),
            )
        except Exception as error:  # no network, a bad setting in the environment, ...
            log.warning(f"W&B {attempt} cannot start ({_reason(error)}).")
            wandb.teardown()
            os.environ.pop("WANDB_SERVICE", None)  # that service now considers the id in use
            continue
        if attempt == "online":
            seen = handle.starting_step - 1
            log.info(f"W&B: {handle.url}")
        else:
            folder = run / "wandb"
            log.info(
                f"W&B offline in {folder}; upload with `wandb sync {folder}/offline-run-*`, "
                f"or view in the terminal with `wandb leet {folder}`."
            )
        return WandbRun(handle, run, seen)
    return None


def _reason(error: Exception) -> str:
    """In a line, why W&B does not start."""
    line = (str(error) or repr(error)).splitlines()[0]
    if re.search(r"\berror 401\b|\binvalid api key\b", line, re.IGNORECASE):
        server = os.environ.get("WANDB_BASE_URL", "W&B")
        return f"{server} refuses the API key; log in again with `wandb login`"
    return line


def _start_service(run: Path) -> None:
    """Start a detached W&B service, because Ctrl-C and a launcher's SIGTERM would end a child process.

    It still writes what the ranks log while they save and exit, and ends `IDLE` after its last client. Its address is
    stored in the run folder: after a kill -9 it may still have steps to write when the next start counts them.
    """
    os.environ.pop("WANDB_SERVICE", None)  # inherited: it outlives a kill -9 of this process, and keeps the run's id
    try:
        done = _core("start", "--idle-timeout", IDLE)
    except (OSError, subprocess.SubprocessError):
        return  # W&B then starts its own service
    os.environ["WANDB_SERVICE"] = done.stdout.strip()
    with atomic_write(run / "wandb_service") as file:
        file.write(done.stdout.strip().encode())


def _end_service(run: Path) -> None:
    """Make the service, of this start or of a killed one, write what it has and end."""
    path = run / "wandb_service"
    if not path.exists():
        return
    address = path.read_text(encoding="utf-8")
    socket = Path(address.partition("-unix-")[2])
    try:
        if socket.is_socket():
            _core("stop", WANDB_SERVICE=address)
        end = time.monotonic() + OFFLINE_SECONDS
        while socket.is_socket() and time.monotonic() < end:
            time.sleep(0.05)
    except (OSError, subprocess.SubprocessError):
        pass  # it has ended by itself
    path.unlink()
    if os.environ.get("WANDB_SERVICE") == address:
        del os.environ["WANDB_SERVICE"]


def _core(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wandb", "beta", "core", *arguments]
    env = os.environ | environment
    return subprocess.run(
        command, env=env, capture_output=True, encoding="utf-8", errors="replace", timeout=OFFLINE_SECONDS, check=True
    )


def _id_of(run: Path) -> str:
    path = run / "wandb_id"
    if not path.exists():
        id = os.environ.get("WANDB_RUN_ID") or os.urandom(4).hex()  # the agent of a sweep has chosen one
        with atomic_write(path) as file:
            file.write(id.encode())
    return path.read_text(encoding="utf-8").strip()


def offline_records(run: Path, kind: str = "history") -> list[dict[str, Any]]:
    """The records of one kind in the offline files of a run folder, from all starts, parsed from JSON."""
    return [record for folder in _offline_folders(run) for record in _records_in(folder, kind)]


def _offline_folders(run: Path) -> list[Path]:
    return sorted((run / "wandb").glob("offline-run-*"))


def _records_in(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Takes W&B's command more than a second for each folder."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=120, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return []
    found = []
    for line in done.stdout.splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if record.get("type") == kind:
                found.append(record[kind])
    return found


def _last_step_in(folder: Path) -> int:
    return max((record["step"]["num"] for record in _records_in(folder, "history")), default=0)


def last_step_offline(run: Path) -> int:
    """The last step in the offline files; 0 if there is none."""
    return max(map(_last_step_in, _offline_folders(run)), default=0)


def _seen_offline(run: Path) -> int:
    """`last_step_offline` at a start, when nothing writes into the folders of earlier starts any more.

    Each folder is inspected once and its last step kept in RUN/wandb_offline_steps: a run that was restarted many
    times must not take minutes to start while the other ranks wait.
    """
    path = run / "wandb_offline_steps"
    known: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_bytes())
    folders = _offline_folders(run)
    steps = {f.name: known[f.name] if f.name in known else _last_step_in(f) for f in folders}
    if folders:
        with atomic_write(path) as file:
            file.write(json.dumps(steps, indent=1).encode() + b"\n")
    return max(steps.values(), default=0)


class WandbRun:
    """A started W&B run that already has the steps up to `seen`."""

    def __init__(self, handle: Any, run: Path, seen: int) -> None:
        self.handle, self.run, self.seen = handle, run, seen
        self._broken = False

    def catch_up(self, records: list[dict[str, Any]]) -> None:
        """Log the records that W&B does not have yet."""
        for record in records:
            self.log(record)

    def log(self, record: dict[str, Any]) -> None:
        """Log a step, with the generated texts of its evaluation as a table, unless W&B already has it."""
        import wandb

        if record["step"] <= self.seen:
            return
        values = {key: value for key, value in record.items() if value is not None}
        texts = values.pop("continuations", [])
        self._try(lambda: self.handle.log(values, step=record["step"]))
        if texts:
            rows = [[record["step"], *pair] for pair in texts]
            table = wandb.Table(columns=["step", "prompt", "continuation"], data=rows)
            self._try(lambda: self.handle.log({"continuations": table}, step=record["step"]))

    def alert(self, title: str, text: str, level: Level) -> None:
        """Send an alert to whoever asked W&B for some, by e-mail or Slack."""
        self._try(lambda: self.handle.alert(title, text, level=level))

    def artifact(self, folder: Path) -> None:
        """Upload a checkpoint; offline, store it for `wandb sync`."""
        import wandb

        artifact = wandb.Artifact(f"checkpoint-{self.handle.id}", type="model")
        artifact.add_dir(str(folder))
        self._try(lambda: self.handle.log_artifact(artifact))

    def finish(self, state: str, summary: dict[str, Any]) -> None:
        """Write the summary and close. A run that did not finish is marked as failed."""
        import wandb

        self._try(lambda: self.handle.summary.update({**summary, "state": state}))
        try:
            self.handle.finish(exit_code=0 if state == "finished" else 1)
        except TimeoutError:
            log.warning(f"W&B did not take all steps in time; upload them with `wandb sync {self.run}/wandb/run-*`.")
        except Exception as error:
            self._report(error)
        self._try(wandb.teardown)
        _end_service(self.run)

    def _try(self, call: Callable[[], Any]) -> None:
        """Call W&B. If its service is dead, report it once and continue the training."""
        try:
            call()
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        if not self._broken:
            log.warning(f"W&B does not answer ({error}); metrics.jsonl is complete, and a resumed run catches up.")
        self._broken = True

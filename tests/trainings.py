"""Real trainings for tests: a small corpus, and ranks as processes, with or without the `deepspeed` command.

`launch` starts launch/train.py as a user does. `together` runs several trainings one after another in the same ranks,
because starting ranks costs more than fifty small steps. Its program is this file: `python trainings.py PLAN.json`. It
can also break something inside a rank on purpose (tests/sabotage.py).
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from kogpt.common.ports import free_port

PROJECT = Path(__file__).resolve().parents[1]
TRAIN = PROJECT / "launch" / "train.py"
MODEL = ["--arch", "gpt2", "--depth", "1", "--max-seq-len", "32"]
SCHEDULE = ["--schedule", "cosine", "--min-lr-ratio", "0.1"]
SHAPE = [*MODEL, *SCHEDULE, "--stride", "16", "--prompts", "--compile", "off"]
GLOBAL_BATCH = 8


def script(name: str, folder: str = "launch") -> ModuleType:
    """FOLDER/NAME.py as a module; nothing else imports an entry point."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", PROJECT / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def deepspeed_file(path: Path, stage: int, precision: str = "fp32", lr: float = 1e-3, **more: Any) -> Path:
    """A DeepSpeed file for the tests' small batches, with `more` keys."""
    content: dict[str, Any] = {
        "train_batch_size": GLOBAL_BATCH,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage},
        "optimizer": {"type": "AdamW", "params": {"lr": lr, "weight_decay": 0.1}},
        **more,
    }
    if precision != "fp32":
        content[precision] = {"enabled": True}
    path.write_text(json.dumps(content))
    return path


def records(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(run: Path) -> list[float]:
    """The training loss of every step."""
    return [record["loss"] for record in records(run)]


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until the condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@dataclass
class Job:
    """The processes of one training, each in a session of its own. `log` holds their output."""

    processes: list[subprocess.Popen[bytes]]
    log: Path

    def wait(self, seconds: float = 120) -> list[int]:
        """All exit codes. Fails with the output if a process is still running."""
        end = time.monotonic() + seconds
        for process in self.processes:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"still running after {seconds} s:\n{self.said}") from None
        return [process.returncode for process in self.processes]

    def kill(self) -> None:
        """Kill (-9) everything that was started."""
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"} | more


def _start(commands: Sequence[tuple[list[str], dict[str, str]]], log: Path) -> Job:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as file:
        return Job(
            [
                subprocess.Popen(
                    command, env=env, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
                )
                for command, env in commands
            ],
            log,
        )


def _ranks(world: int, program: list[str], log: Path) -> Job:
    port = str(free_port())
    shared = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return _start(
        [
            ([sys.executable, *program], _environment(**shared, RANK=str(rank), LOCAL_RANK=str(rank)))
            for rank in range(world)
        ],
        log,
    )


def flags(corpus: Path, out: Path, config: Path, steps: int, *more: str) -> list[str]:
    """A command line for a small training without W&B."""
    required = ["--corpus", str(corpus), "--out", str(out), "--deepspeed-config", str(config), "--steps", str(steps)]
    return [*SHAPE, *required, "--wandb", "off", *more]


def copy_as_of(run: Path, step: int, target: Path) -> Path:
    """Cut a run back to what a kill -9 after `step` would leave."""
    from kogpt.checkpoint.layout import step_folder

    shutil.copytree(run, target, ignore=shutil.ignore_patterns("step-*", "best", "latest"))
    folder = step_folder(run, step)
    shutil.copytree(folder, target / "checkpoints" / folder.name)
    return target


@contextmanager
def launch(arguments: list[str], log: Path, *, world: int = 2, command: bool = True):
    """Start launch/train.py under the `deepspeed` command (one process), or as `world` ranks without it."""
    if command:
        runner = [sys.executable, str(Path(sys.executable).with_name("deepspeed")), "-q", "--num_gpus", str(world)]
        runner += ["--master_port", str(free_port()), str(TRAIN), *arguments]
        job = _start([(runner, _environment(DS_ACCELERATOR="cpu"))], log)
    else:
        job = _ranks(world, [str(TRAIN), *arguments], log)
    try:
        yield job
    finally:
        job.kill()


@dataclass(frozen=True)
class Plan:
    """A training for `together`: its command line, and the failures to inject."""

    arguments: list[str]
    sabotage: dict[str, Any] = field(default_factory=dict)


def together(world: int, plans: list[Plan], scratch: Path, seconds: float = 200) -> list[Any]:
    """Run the trainings one after another in the same ranks. Returns the exit status or error message of each."""
    codes, said = _run_plans(world, plans, scratch, seconds)
    assert codes == [0] * world, said
    return json.loads((scratch / "ends.json").read_text())


def killed(world: int, plan: Plan, scratch: Path, seconds: float = 200) -> list[int]:
    """Run one training in which a rank dies, and return the exit codes of all ranks."""
    return _run_plans(world, [plan], scratch, seconds)[0]


def _run_plans(world: int, plans: list[Plan], scratch: Path, seconds: float) -> tuple[list[int], str]:
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / "plan.json"
    path.write_text(json.dumps([{"arguments": plan.arguments, "sabotage": plan.sabotage} for plan in plans]))
    job = _ranks(world, [str(Path(__file__)), str(path)], scratch / "log")
    try:
        return job.wait(seconds), job.said
    finally:
        job.kill()


def _main() -> None:
    sys.path.insert(0, str(PROJECT))
    from kogpt.train import distributed

    distributed.prepare_environment()
    import pytest
    from deepspeed.accelerator import get_accelerator
    from sabotage import sabotage

    from kogpt.common.errors import UserError
    from kogpt.common.log import set_up_logging
    from kogpt.train import deepspeed_config, deepspeed_file
    from kogpt.train.corpora import open_corpora
    from kogpt.train.options import parse
    from kogpt.train.setup import settle
    from kogpt.train.stop_signal import Stop
    from kogpt.train.trainer import Trainer, TrainingFailed

    plans = json.loads(Path(sys.argv[1]).read_text())
    ranks = distributed.start()
    set_up_logging(ranks.rank)
    ends: list[Any] = []
    for plan in plans:
        options = parse(plan["arguments"])
        path, old_gpu = options.run.deepspeed_config, plan["sabotage"].get("old_gpu", False)
        if old_gpu:  # torch's CPU kernels support fp16, but DeepSpeed does not offer it on a CPU
            get_accelerator().is_fp16_supported = lambda: True
        try:
            corpora = open_corpora(options.corpora, options.run.mix, options.run.max_repeat)
            setup = settle(options, deepspeed_file.read(path), corpora, ranks)
            fitted = deepspeed_config.plan(
                path,
                setup.content,
                world_size=ranks.world_size,
                device="cuda" if old_gpu else "cpu",
                has_bf16=not old_gpu,
            )
            trainer = Trainer(options, setup, fitted, corpora, ranks, Stop())
            with pytest.MonkeyPatch.context() as patch:
                sabotage(trainer, plan["sabotage"], patch)
                ends.append(trainer.train())
        except (UserError, TrainingFailed) as error:
            ends.append(str(error))
    if ranks.first:
        Path(sys.argv[1]).with_name("ends.json").write_text(json.dumps(ends))
    distributed.finish(ranks)
    distributed.leave(0)


if __name__ == "__main__":
    _main()

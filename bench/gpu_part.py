"""A part of bench/gpu_check.py: its settings, the trainings that it makes, and the results of its checks.

The trainings use kogpt.train.trainer under DeepSpeed, on random tokens, with one rank in this process. The result of a
check is PASS, FAIL, or skipped if this machine cannot run it. It is written at once, so that a crash does not lose it.
"""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from contestants import Task, make_corpus

from kogpt.train import deepspeed_config, deepspeed_file
from kogpt.train.corpora import open_corpora
from kogpt.train.distributed import Ranks
from kogpt.train.options import parse
from kogpt.train.setup import settle
from kogpt.train.stop_signal import Stop
from kogpt.train.trainer import Trainer


@dataclass
class Part:
    """A part: its settings and its checks."""

    name: str
    scratch: Path
    answer: Path
    toy: bool
    ranks: Ranks
    stop: Stop
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        return self.ranks.device.type == "cuda"

    def check(self, name: str, passed: bool | None, figure: Any) -> None:
        """Record a result. None means that this machine cannot run the check."""
        self.checks.append({"name": name, "passed": passed, "figure": str(figure)})
        self.answer.write_text(json.dumps({"part": self.name, "checks": self.checks}))

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """An exception inside counts as a failed check, and the next checks still run."""
        try:
            yield
        except Exception as error:
            self.check(name, False, f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}")

    def task(self, preset: str, context: int, windows: int, micro: int, arch: str = "gpt2") -> Task:
        """A shape and a batch; with --toy the smallest ones."""
        if self.toy:
            preset, context, windows, micro = "depth 1", 64, 4, 2
        corpus = self.scratch / "corpus"
        if not corpus.exists():
            make_corpus(corpus, vocab=1024 if self.toy else 50304, ids=40_000 if self.toy else 2_000_000)
        words = preset.split()
        shape = ("--arch", arch, *(("--depth", words[1]) if words[0] == "depth" else ("--preset", preset)))
        return Task(corpus, self.scratch, shape, context=context, windows=windows, micro=micro)

    def trainer(self, task: Task, out: str, settings: dict[str, Any], *flags: str, compiled: bool = False) -> Trainer:
        """A training of the project with a DeepSpeed file of these settings."""
        path = self.scratch / f"{out}.json"
        batch = {"train_batch_size": task.windows, "train_micro_batch_size_per_gpu": task.micro}
        adam = {"optimizer": {"type": "AdamW", "params": {"lr": 6e-4, "weight_decay": 0.1}}, "gradient_clipping": 1.0}
        path.write_text(json.dumps(batch | adam | settings))
        content = deepspeed_file.read(path)
        # One rank would always get stage 0, so plan for two ranks with half of the batch each.
        ranks = 2 if content["zero_optimization"]["stage"] else 1
        content["train_batch_size"] = ranks * task.windows
        options = parse(
            [*task.flags(self.scratch / out, path, 1_000), *flags, "--compile", "on" if compiled else "off"]
        )
        corpora = open_corpora(options.corpora)
        setup = settle(options, content, corpora, self.ranks)
        plan = deepspeed_config.plan(path, content, world_size=ranks, device=self.ranks.device.type, has_bf16=True)
        plan = replace(plan, global_batch=task.windows, engine=plan.engine | {"train_batch_size": task.windows})
        return Trainer(options, setup, plan, corpora, self.ranks, self.stop)


def steps(trainer: Trainer, count: int) -> list[float]:
    """The losses of this many steps."""
    found = []
    for _ in range(count):
        record, _ = trainer.train_step()
        found.append(record["loss"])
    return found


def free() -> None:
    """Free the memory of the last training."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def zero(stage: int, precision: str) -> dict[str, Any]:
    """Settings of a DeepSpeed file."""
    key = {"autocast": "torch_autocast"}.get(precision, precision)
    enabled = {} if precision == "fp32" else {key: {"enabled": True}}
    if precision == "autocast":
        enabled[key]["dtype"] = "bfloat16"  # type: ignore[assignment]
    return {"zero_optimization": {"stage": stage}, **enabled}

"""A part of bench/gpu_check.py: its settings, the trainings that it makes, and the results of its checks.

The trainings use kogpt.train.trainer under DeepSpeed, on random tokens, with one rank in this process. The result of a
check is PASS, FAIL, or skipped if this machine cannot run it. It is written at once, so that a crash does not lose it.
"""

import gc
import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contestants import Task, make_corpus, plan_of_one_rank

from kogpt.train import deepspeed_file
from kogpt.train.corpora import open_corpora
from kogpt.train.deepspeed_config import FP16
from kogpt.train.distributed import Ranks
from kogpt.train.options import parse
from kogpt.train.setup import settle
from kogpt.train.stop_signal import Stop
from kogpt.train.trainer import Trainer

MUON: dict[str, Any] = {"optimizer": {"type": "Muon", "params": {"lr": 0.02}}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {"gpt2": ("", {}), "qwen3": ("qwen3 Muon ", MUON)}
"""Of an architecture: what the names of its checks begin with, and its settings besides those of `zero`."""


@dataclass
class Part:
    """A part: its settings and its checks."""

    name: str
    scratch: Path
    answer: Path
    toy: bool
    ranks: Ranks
    stop: Stop

    @property
    def cuda(self) -> bool:
        return self.ranks.device.type == "cuda"

    def check(self, name: str, passed: bool | None, figure: Any) -> None:
        """Record a result. None means that this machine cannot run the check."""
        record(self.answer, name, passed, figure)

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """An exception inside counts as a failed check, or as a skipped one if the GPU is too small.

        The next checks still run. What needs memory belongs into a function that is called inside, because its
        variables end with it.
        """
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            first = str(error).splitlines()[0][:160] if str(error) else ""
            passed = None if isinstance(error, torch.OutOfMemoryError) else False
            self.check(name, passed, f"{type(error).__name__}: {first}")

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
        """A training of the project with a DeepSpeed file of these settings. Frees the memory of the last one."""
        free()
        path = self.scratch / f"{out}.json"
        batch = {"train_batch_size": task.windows, "train_micro_batch_size_per_gpu": task.micro}
        adam = {"optimizer": {"type": "AdamW", "params": {"lr": 6e-4, "weight_decay": 0.1}}, "gradient_clipping": 1.0}
        path.write_text(json.dumps(batch | adam | settings))
        content = deepspeed_file.read(path)
        options = parse(
            [*task.flags(self.scratch / out, path, 1_000), *flags, "--compile", "on" if compiled else "off"]
        )
        corpora = open_corpora(options.corpora)
        setup = settle(options, content, corpora, self.ranks)
        plan = plan_of_one_rank(path, content, self.ranks.device)
        return Trainer(options, setup, plan, corpora, self.ranks, self.stop)


def steps(trainer: Trainer, count: int) -> list[float]:
    """The losses of this many steps."""
    found = []
    for _ in range(count):
        record, _ = trainer.train_step()
        found.append(record["loss"])
    return found


def record(answer: Path, name: str, passed: bool | None, figure: Any) -> None:
    """Add a line with the result of a check to the file that bench/gpu_check.py reads."""
    with open(answer, "a") as file:
        file.write(json.dumps({"name": name, "passed": passed, "figure": str(figure)}) + "\n")


def free() -> None:
    """Free the memory that nobody uses, and forget what was compiled: the next training is as in a new process."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def zero(stage: int, precision: str) -> dict[str, Any]:
    """Settings of a DeepSpeed file."""
    halves: dict[str, dict[str, Any]] = {
        "fp32": {},
        "autocast": {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
        "bf16": {"bf16": {"enabled": True}},
        "fp16": {"fp16": FP16},
    }
    return {"zero_optimization": {"stage": stage}, **halves[precision]}

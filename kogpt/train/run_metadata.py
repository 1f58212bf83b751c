"""Run metadata: settings, corpus, code version, machine; and the run's copy of the tokenizer. Out: a dict for JSON."""

import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from kogpt.common.cores import cpu_name, usable_cores
from kogpt.common.files import atomic_folder
from kogpt.model.registry import config_from_dict
from kogpt.train.corpora import Corpora
from kogpt.train.deepspeed_config import EnginePlan
from kogpt.train.distributed import Ranks
from kogpt.train.memory import Memory
from kogpt.train.options import PROJECT, TrainOptions


def about(
    options: TrainOptions,
    plan: EnginePlan,
    corpora: Corpora,
    identity: dict[str, Any],
    memory: Memory,
    ranks: Ranks,
) -> dict[str, Any]:
    """The run metadata for run.json and the W&B configuration."""
    cuda = ranks.device.type == "cuda"
    return {
        "options": json.loads(json.dumps(asdict(options), default=str)),
        "deepspeed": plan.engine,
        "adam": plan.adam,
        "muon": plan.muon,
        "precision": plan.precision,
        "zero_stage": plan.stage,
        "parameters": config_from_dict(identity["model"]).parameter_count,
        "tokens_per_step": plan.global_batch * identity["model"]["max_seq_len"],
        "corpus_folder": str(corpora.main.folder),
        "corpus_counts": corpora.main.manifest["counts"],
        **{
            key: identity[key]
            for key in ("corpus", "seed", "global_batch", "model", "recipe", "kind", "init")
            if key in identity
        },
        "world_size": ranks.world_size,
        "device": torch.cuda.get_device_name(ranks.device) if cuda else ranks.device.type,
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "estimated_gib_per_rank": {key: value / 2**30 for key, value in asdict(memory).items()},
        "git_commit": git_commit(),
        "torch": torch.__version__,
    }


def git_commit() -> str | None:
    """The commit of the project's folder, with `+` if files differ from it; None without git."""
    try:
        command = ["git", "-C", str(PROJECT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def copy_tokenizer(source: Path, run: Path) -> None:
    """Copy the corpus's tokenizer to the run, so that the run folder is all that inference needs.

    A different tokenizer in the run folder is replaced: it is from an attempt that saved no checkpoint.
    """
    target, about = run / "tokenizer", "kogpt.json"  # contains the sha256 of the vocabulary
    if (target / about).exists() and (target / about).read_bytes() == (source / about).read_bytes():
        return
    with atomic_folder(target) as copy:
        shutil.copytree(source, copy, dirs_exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)

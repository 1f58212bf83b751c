"""The recipe of a checkpoint: what its config.json says, or, of a run from before recipes, its run.json.

Resuming such a run writes a new run.json, which has the recipe. It counts until the next checkpoint is saved. A run
without either (`kogpt import`) gets the defaults of version 0.1: AdamW, 64 windows, 200 steps, a cosine.
"""

from pathlib import Path
from typing import Any

from kogpt.tracking.run_file import read_run_file
from kogpt.train.recipe import ADAM_LR, OLD_BATCH, OLD_STEPS, TUNING_LR, adamw

OLD_FILE = "ds_config.json"
"""The DeepSpeed file of a fine-tuning whose learning rate was that of the file times TUNING_LR."""


def recipe_of(checkpoint: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The fields of a `Recipe` for the checkpoint with this config.json."""
    about = config if "recipe" in config else read_run_file(checkpoint.parent.parent)
    batch = config.get("global_batch", OLD_BATCH)
    if "recipe" in about:
        return {"batch": batch, **about["recipe"]}
    tuned = "init" in config
    old = {"schedule": "wsd" if tuned else "cosine", "warmup": 0.05}
    old |= {"decay": 0.5, "min_lr_ratio": 0.0} if tuned else {"decay": 0.2, "min_lr_ratio": 0.1}
    said = about.get("options", {})
    old |= {name: value for name, value in said.get("schedule", {}).items() if name in old and value is not None}
    file = Path(said.get("run", {}).get("deepspeed_config", OLD_FILE)).name
    share = TUNING_LR if tuned and file == OLD_FILE else 1.0
    return old | {
        "batch": batch,
        "steps": about.get("steps", OLD_STEPS),
        "optimizer": _optimizer(about, share),
    }


def _optimizer(about: dict[str, Any], share: float) -> dict[str, Any]:
    """That of run.json, with its learning rates times `share`, as a section of the DeepSpeed file."""
    adam, muon = about.get("adam"), about.get("muon")
    if adam is None:
        return adamw(share * ADAM_LR)
    if muon is None:
        return {"type": "AdamW", "params": adam | {"lr": share * adam["lr"]}}
    params = muon | {"betas": adam["betas"], "eps": adam["eps"]}
    return {"type": "Muon", "params": params | {"lr": share * muon["lr"], "adam_lr": share * adam["lr"]}}

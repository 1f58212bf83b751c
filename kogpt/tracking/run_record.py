"""What a run folder says about its training, as curves, costs, and settings. For `kogpt report` and `kogpt compare`.

In: run.json and metrics.jsonl of a run of any version, finished or not. Out: a `RunRecord`. A curve is a list of
(step, value); values that are missing are left out. Cost: a second for 100,000 steps.
"""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.model.registry import config_from_dict
from kogpt.tracking.metrics_file import read_metrics

Curve = list[tuple[float, float]]
_OWN = (
    "out",
    "wandb",
    "wandb_project",
    "wandb_artifact",
    "corpus",
    "mix",
    "prompts",
    "resume",
    "keep",
    "save_every",
    "profile",
)
"""Options that do not change the model, or are told by other fields."""
_PATHS = ("deepspeed_config", "init", "eval_tasks")
"""Shown by their names: folders differ between machines, and are nobody else's business."""


@dataclass(frozen=True)
class RunRecord:
    """A run: `about` is run.json, `metrics` the records of metrics.jsonl."""

    folder: Path
    about: dict[str, Any]
    metrics: list[dict[str, Any]]

    @classmethod
    def open(cls, folder: Path) -> "RunRecord":
        """Read a run folder. Raises `UserError` if it is none."""
        try:
            about = json.loads((folder / "run.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{folder} is not the folder of a training (no run.json); name one.") from None
        except ValueError as error:
            raise UserError(f"{folder / 'run.json'} is not JSON ({error}); resume the training to write it.") from None
        path = folder / "metrics.jsonl"
        return cls(folder, about, read_metrics(path) if path.exists() else [])

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.resolve().name

    def curve(self, key: str) -> Curve:
        """A number of the metrics over the steps."""
        return [(r["step"], r[key]) for r in self.metrics if r.get(key) is not None]

    @property
    def training_bits(self) -> Curve:
        """Bits per character of each step: its loss, by the corpus's mean number of characters per token.

        Nothing for conversations, of whose tokens only some are learnt.
        """
        if any("learnt_tokens" in one for one in self.corpora):
            return []
        return [
            (r["step"], r["loss"] / math.log(2) * r["tokens_per_s"] / r["chars_per_s"])
            for r in self.metrics
            if r["loss"] is not None and r.get("chars_per_s")
        ]

    @cached_property
    def hours(self) -> dict[int, float]:
        """The hours of training up to the end of each step; evaluations and checkpoints are not in it."""
        seconds = accumulate(r.get("step_s") or 0.0 for r in self.metrics)
        return {r["step"]: second / 3600 for r, second in zip(self.metrics, seconds, strict=True)}

    @property
    def device_hours(self) -> float:
        """Hours of training times devices."""
        return self.hours[self.step] * self.about.get("world_size", 1) if self.metrics else 0.0

    @cached_property
    def tokens(self) -> dict[int, int]:
        """The tokens up to the end of each step."""
        return {r["step"]: r["tokens"] for r in self.metrics}

    @property
    def step(self) -> int:
        """The last step."""
        return self.metrics[-1]["step"] if self.metrics else 0

    @property
    def flops(self) -> float | None:
        """Of the whole training, forward and backward, recomputation not counted; None for a model unknown here."""
        try:
            config = config_from_dict(self.about["model"])
        except (KeyError, UserError):
            return None
        return float(config.flops_per_token(config.max_seq_len)) * self.tokens.get(self.step, 0)

    @property
    def best(self) -> tuple[int, float] | None:
        """The step with the lowest validation loss, and its bits per character."""
        losses = self.curve("val_loss")
        if not losses:
            return None
        step = int(min(losses, key=lambda point: point[1])[0])
        return step, dict(self.curve("val_bits_per_char"))[step]

    @property
    def corpora(self) -> list[dict[str, Any]]:
        """For each corpus its name, folder, fingerprint ("corpus"), and share of the windows."""
        if "data" in self.about:
            return list(self.about["data"])
        folder = self.about.get("corpus_folder", "")
        return [{"name": Path(folder).name, "folder": folder, "corpus": self.about.get("corpus"), "share": 1.0}]

    @property
    def settings(self) -> dict[str, str]:
        """What may differ between runs, by name: "model.n_layer", "adam.lr", ..."""
        about = self.about
        options = about.get("options", {})
        chosen = {
            **{f"model.{key}": value for key, value in about.get("model", {}).items()},
            **{f"adam.{key}": value for key, value in (about.get("adam") or {}).items()},
            **{f"muon.{key}": value for key, value in (about.get("muon") or {}).items()},
            "corpus": ", ".join(f"{one['name']} {one['share']:.3g}" for one in self.corpora),
            "corpus.fingerprint": ", ".join(str(one["corpus"])[:12] for one in self.corpora),
            **options.get("schedule", {}),
            **{key: value for key, value in about.get("recipe", {}).items() if key != "optimizer"},
            **{key: value for key, value in options.get("run", {}).items() if key not in _OWN + _PATHS},
            **{key: Path(path).name for key in _PATHS if (path := options.get("run", {}).get(key))},
            **{key: about.get(key) for key in ("steps", "global_batch", "tokens_per_step", "precision", "zero_stage")},
            "gradient_clipping": about.get("deepspeed", {}).get("gradient_clipping"),
            **{key: about.get(key) for key in ("world_size", "device", "cpu", "cores", "torch")},
            "code version": _short(about.get("git_commit")),
        }
        return {key: _text(value) for key, value in chosen.items() if value is not None}


def _short(commit: str | None) -> str | None:
    return commit and commit[:12] + commit[40:]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def at(curve: Curve, places: dict[int, float] | dict[int, int], place: float) -> float | None:
    """The value of a curve where `places` (tokens or hours of each step) comes to `place`, between two of its points.

    None outside of the curve.
    """
    points = [(places[int(step)], value) for step, value in curve]
    for (a, low), (b, high) in pairwise(points):
        if a <= place <= b:
            return low + (high - low) * (place - a) / ((b - a) or 1)
    return next((value for a, value in points if a == place), None)


def over(curve: Curve, places: dict[int, float] | dict[int, int]) -> Curve:
    """The curve over tokens or hours instead of steps."""
    return [(places[int(step)], value) for step, value in curve]

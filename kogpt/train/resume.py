"""Find the checkpoint to resume from. In: the run folder and the options. Out: `Start`, the same on all ranks.

Model, corpus, seed, and global batch must be those of the checkpoint; otherwise it is refused, with both values named.
What neither a flag nor the DeepSpeed file sets is taken from the checkpoint (kogpt.train.setup). Ranks, ZeRO stage,
precision, micro-batch, and length may change. A checkpoint of `kogpt import` fixes only the model and the corpus.

The context of a model with rotary positions may grow, if a step keeps its number of tokens: four times as long, a
quarter as many windows. Then every count of steps, tokens, and passes goes on, and so does the learning rate. The
windows are others, in another order: of the current pass some text is read again, and some is not.
"""

import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogpt.checkpoint.layout import CONFIG, point, step_folders
from kogpt.checkpoint.verify import newest_good, verify
from kogpt.common.errors import UserError
from kogpt.model.registry import config_from_dict
from kogpt.train.distributed import Ranks, broadcast_object, on_first
from kogpt.train.older_runs import recipe_of
from kogpt.train.restorer import Restorer

log = logging.getLogger(__name__)

FLAGS = {
    "corpus": "--corpus (its fingerprint)",
    "seed": "--seed",
    "global_batch": '"train_batch_size" of --deepspeed-config',
    "model": "the model (--arch, --preset, --depth, --max-seq-len, --dropout, the corpus's vocabulary)",
}


@dataclass(frozen=True)
class Start:
    """The checkpoint to resume from and its state.json; None for a new run."""

    checkpoint: Restorer | None

    @property
    def state(self) -> dict[str, Any] | None:
        return None if self.checkpoint is None else self.checkpoint.state


def find_start(run: Path, resume: str, identity: dict[str, Any], ranks: Ranks) -> Start:
    """Rank 0 chooses, and all ranks get the same. `identity` has a value for each key of `FLAGS`."""

    def look() -> Path | None:
        folder = _look(run, resume)
        if folder is not None:
            _compare(folder, identity)
        return folder

    folder = broadcast_object(on_first(ranks, look))
    return Start(None if folder is None else Restorer(folder, ranks))


def begun(run: Path, resume: str) -> dict[str, Any] | None:
    """config.json of the checkpoint that would be resumed, with its "recipe"; None for a new run.

    "model" is as `ModelConfig.to_dict`, "recipe" has the fields of a `Recipe`. "branch_of" is the checkpoint of another
    run with which this one begins or began, if it does.
    """
    named = _named(run, resume)
    branch = {} if named is None or not _elsewhere(run, named) else {"branch_of": _name(named)}
    for folder in step_folders(run) if named is None else [named]:
        with suppress(OSError, ValueError, KeyError):  # a damaged one; `_look` reports it
            config = json.loads((folder / CONFIG).read_bytes())
            model, recipe = config_from_dict(config["model"]).to_dict(), recipe_of(folder, config)
            return config | {"model": model, "recipe": recipe} | branch
    return None


def _named(run: Path, resume: str) -> Path | None:
    """The checkpoint that --resume names; None if that is for `run` to say.

    So it is as well if `run` began there: the same command then continues it, and the checkpoint may be gone.
    """
    if resume in ("auto", "never"):
        return None
    folder = Path(resume)
    if _elsewhere(run, folder) and (begun(run, "auto") or {}).get("branch_of") == _name(folder):
        return None
    if not folder.is_dir():
        raise UserError(f"--resume {resume} is neither auto, never nor a checkpoint folder.")
    return folder


def _elsewhere(run: Path, folder: Path) -> bool:
    return folder.resolve().parent != (run / "checkpoints").resolve()


def _name(folder: Path) -> str:
    """RUN/checkpoints/STEP, without what is above the run: it may be moved."""
    return "/".join(folder.resolve().parts[-3:])


def _look(run: Path, resume: str) -> Path | None:
    if (folder := _named(run, resume)) is not None:
        if fault := verify(folder):
            raise UserError(f"--resume {folder} is not a complete checkpoint: {fault}; use another, or --resume auto.")
        newer = [other for other in step_folders(run) if other.name > folder.name]
        if newer:
            raise UserError(
                f"--out {run} holds newer checkpoints ({newer[0].name}) than --resume {folder}; "
                "name another --out to continue from it."
            )
        return folder.absolute()
    if resume == "never" and step_folders(run):
        raise UserError(f"--out {run} already holds checkpoints; remove --resume never, or name another folder.")
    newest = newest_good(run)
    if newest is None:
        if broken := step_folders(run):
            raise UserError(
                f"--out {run} holds {len(broken)} checkpoints, all of them damaged; copy them again, "
                f"remove {run / 'checkpoints'} to start over, or name another --out."
            )
        return None
    if resume not in ("auto", "never"):
        log.info(f"{run} has gone on from --resume {resume}, which is not read again.")
    point(newest, "latest")  # it may name a damaged checkpoint that was skipped
    return newest


def _compare(folder: Path, identity: dict[str, Any]) -> None:
    config = _with_longer_context(json.loads((folder / CONFIG).read_bytes()), identity)
    differences = []
    for key, flag in FLAGS.items():
        if key not in config:
            continue
        theirs, ours = config[key], identity[key]
        if isinstance(ours, dict):
            stored, theirs = theirs, config_from_dict(theirs).to_dict()
            # An imported checkpoint leaves dropout to the training; one of version 0.1 has no "arch".
            changed = [name for name in {"arch", *stored} & theirs.keys() if ours.get(name) != theirs[name]]
            differences += [f"{flag}: {name} is {ours.get(name)} instead of {theirs[name]}" for name in sorted(changed)]
        elif theirs != ours:
            differences.append(f"{flag} is {ours} instead of {theirs}")
    if differences:
        raise UserError(
            f"the checkpoint {folder} was made with other settings: {'; '.join(differences)}; "
            "repeat its settings, or name another --out."
        )


def _with_longer_context(config: dict[str, Any], identity: dict[str, Any]) -> dict[str, Any]:
    """The checkpoint's config.json as if it had the context and the global batch of `identity`, where that is allowed.

    Raises `UserError` if only the global batch does not fit.
    """
    model = config_from_dict(config["model"])
    before, after = model.max_seq_len, identity["model"]["max_seq_len"]
    imported = "global_batch" not in config  # it has not been trained, so any context is as good
    allowed = model.any_context and model.arch == identity["model"]["arch"] and (imported or after > before)
    if before == after or not allowed:
        return config
    longer = config | {"model": config["model"] | {"max_seq_len": after}}
    if imported:
        return longer
    tokens = config["global_batch"] * before
    if identity["global_batch"] * after != tokens:
        mend = f'set "train_batch_size" of --deepspeed-config to {tokens // after}'
        raise UserError(
            f"a step of this run has {tokens:,} tokens, which has to stay so when the context grows from {before:,} to "
            f"{after:,}; {mend if tokens % after == 0 else f'give --max-seq-len a divisor of {tokens:,}'}."
        )
    log.info(
        f"The context grows from {before:,} to {after:,} tokens, with {identity['global_batch']} windows a step. "
        f"Positions from {before:,} on are new to the model, which takes some training to use them."
    )
    return longer | {"global_batch": identity["global_batch"]}

"""--init: begin a run with the weights of another one. In: that run, the corpora. Out: the checkpoint of step 0.

The corpora must have the run's vocabulary, analyzer, and spacing. Of a run from before chats they may have the role
tokens in addition: the embedding grows by their rows. The optimizer is new. From step 0 on the run is like any other:
it resumes without --init, and `"init"` in each config.json says where its weights are from.
"""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from kogpt.checkpoint.choose import choose
from kogpt.checkpoint.layout import CONFIG, MODEL, step_folders
from kogpt.checkpoint.reader import CheckpointReader
from kogpt.checkpoint.start import match_vocabulary, write_start
from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.model.registry import config_from_dict
from kogpt.tokenizer.lineage import appended_roles
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.train.corpora import Corpora
from kogpt.train.older_runs import recipe_of
from kogpt.train.resume import begun

log = logging.getLogger(__name__)


def origin(run: Path, init: Path | None, resume: str) -> tuple[Path | None, dict[str, Any]]:
    """The checkpoint to begin `run` with, if --init names one and the run has not begun; what is known of the model.

    The second is the config.json of the checkpoint to go on with, or its "model", "recipe", and "init" for a new run.
    """
    if init is None or step_folders(run) or resume not in ("auto", "never"):
        if init is not None:
            log.info(f"The training goes on from a checkpoint, so --init {init} is not read again.")
        return None, begun(run, resume) or {}
    if not init.is_dir():
        raise UserError(f"--init {init} is not a folder; name a run or one of its checkpoints.")
    base = choose(init, kinds=(MODEL, CONFIG)).resolve()
    config = json.loads((base / CONFIG).read_bytes())
    about = {"run": base.parent.parent.name, "step": config["step"], "corpus": config.get("corpus")}
    model = config_from_dict(config["model"]).to_dict()
    return base, {"model": model, "recipe": recipe_of(base, config), "init": about}


def begin(run: Path, base: Path, corpora: Corpora, shape: ModelConfig, about: dict[str, Any]) -> None:
    """Write the checkpoint of step 0 of `run`, with `about` in its config.json, and say what is new in it.

    Raises `UserError` if the corpora, or the `shape` that flags ask for, do not fit the base run.
    """
    before, after = open_tokenizer(base.parent.parent / "tokenizer"), open_tokenizer(corpora.tokenizer_folder)
    try:
        added = appended_roles(before, after)
    except ValueError as error:
        raise UserError(
            f"--init {base} does not fit the corpus {corpora.main.folder}: {error}; build the corpus with "
            f"preprocess/run.py --tokenizer {base.parent.parent}."
        ) from None
    reader = CheckpointReader(base, (MODEL,))
    config = config_from_dict(reader.config["model"] | {"vocab_size": len(after.vocab)})
    if config.any_context:
        config = replace(config, max_seq_len=shape.max_seq_len)
    wanted = shape.to_dict() | {"dropout": config.dropout}
    has = config.to_dict()
    if other := [f"{name} {has[name]}, not {wanted.get(name)}" for name in has if has[name] != wanted.get(name)]:
        raise UserError(f"--init {base} has {', '.join(other)}; leave out the flags that set the model.")
    log.info(f"Starting with the weights of {base}.")
    weights = {name: reader.weight(name) for name in reader.shapes}
    if added:
        known = {piece: row for row, piece in enumerate(before.vocab)}
        match_vocabulary(weights, config, known, after.vocab)
        log.info(f"{base} has no rows for {' '.join(added)}: they start at the mean of all others.")
    write_start(run, weights, config, **about)

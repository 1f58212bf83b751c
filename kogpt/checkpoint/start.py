"""Step 0 of a run that begins with the weights of another model, for `kogpt import` and --init.

In: weights and the vocabularies of both. Out: a checkpoint without optimizer state, which training continues.

The layers are taken over unchanged. The rows of the embedding and the head are matched by token. A token that both
vocabularies have keeps its row. Every new token starts at the mean of the rows taken over, so that it is neither
likelier nor rarer than others at first (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language
Models").
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kogpt.checkpoint.layout import FORMAT, VERSION
from kogpt.checkpoint.writer import write_checkpoint
from kogpt.common.errors import UserError
from kogpt.model.config import ModelConfig
from kogpt.model.registry import model_class


def matched_rows(rows: Tensor, known: dict[str, int], pieces: list[str]) -> tuple[Tensor, int]:
    """The embedding [len(pieces), C] for the tokens `pieces` from one with rows `known`; and how many were found."""
    found = [(ours, known[piece]) for ours, piece in enumerate(pieces) if piece in known]
    ours, theirs = torch.tensor(found, dtype=torch.int64).reshape(-1, 2).unbind(1)
    out = rows[theirs].mean(0).repeat(len(pieces), 1)
    out[ours] = rows[theirs]
    return out, len(found)


def match_vocabulary(weights: dict[str, Tensor], config: ModelConfig, known: dict[str, int], pieces: list[str]) -> int:
    """Replace the embedding and the head (unless it is tied) by those for the tokens `pieces`; how many were found."""
    taken = 0
    for name in filter(weights.__contains__, model_class(config).VOCABULARY):
        weights[name], taken = matched_rows(weights[name], known, pieces)
    return taken


def write_start(run: Path, weights: dict[str, Tensor], config: ModelConfig, **about: Any) -> None:
    """Write the checkpoint of step 0: these weights, and an optimizer without steps.

    `about` is the rest of its config.json. Raises `UserError` if it cannot be written.
    """
    model = config.to_dict()
    del model["dropout"]  # a setting of the next training
    content = {"format": FORMAT, "version": VERSION, **about, "model": model, "step": 0}
    state: dict[str, Any] = {"step": 0, "tokens": 0, "skipped_steps": 0, "best": None, "loss_scaler": {}}
    try:
        write_checkpoint(run, 0, weights, content, state)
    except OSError as error:
        raise UserError(f"{run} cannot be written: {error}; make room on the disk and run it again.") from None

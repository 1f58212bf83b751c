"""`kogpt import`: a checkpoint that `transformers` saved becomes a run at step 0, from which launch/train.py goes on.

In: its folder (kogpt.hub.weights) with its vocabulary, and the corpus to train on. Out: a
run folder with one checkpoint, whose tokenizer is the corpus's; it can be trained, evaluated, exported like any other.

The body is taken over as it is. Rows of the embedding and of the head go by piece: what the corpus's
vocabulary shares with the model's keeps its row, [CLS] and [SEP] take the model's own marks of begin and end where it
has none of that name, and every new piece starts at the mean of the rows taken, so that it is neither likelier nor
rarer than others at first (Hewitt 2021, "Initializing New Word Embeddings for Pretrained Language Models").
Vocabularies of other kinds are read as WordPiece: with a mark of the preceding space (▁, or Ġ of byte-level BPE) a
piece is a plain one, without it a continuation.
"""

import json
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import decoders
from torch import Tensor

from kogpt.checkpoint.layout import CONFIG, FORMAT, MODEL, MOMENTS, OPTIMIZER, STATE, VERSION, step_folders
from kogpt.checkpoint.writer import CheckpointWriter
from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.hub.weights import import_model
from kogpt.model.config import ModelConfig
from kogpt.model.registry import model_class
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.train.run_metadata import copy_tokenizer


def import_run(folder: str | Path, run: str | Path, corpus_folder: str | Path) -> tuple[int, int]:
    """Write `run`; return how many tokens keep the row of the model, and how many there are.

    Raises `UserError`, and leaves no checkpoint, where that cannot be done.
    """
    folder, run = Path(folder), Path(run)
    if step_folders(run):
        raise UserError(f"{run} holds checkpoints already; name a new folder for the run.")
    corpus = TokenCorpus.open(corpus_folder)
    pieces = open_tokenizer(corpus.tokenizer_folder).vocab
    config, weights = import_model(folder)
    known = read_pieces(folder)
    if max(known.values()) >= config.vocab_size:
        raise UserError(f"{folder} has {max(known.values()) + 1:,} pieces for a model of {config.vocab_size:,} rows.")
    for name in model_class(config).VOCABULARY:
        weights[name], taken = matched_rows(weights[name], known, pieces)
    if not taken:
        raise UserError(
            f"none of the {len(pieces):,} pieces of {corpus_folder} is in the vocabulary of {folder}; "
            f"build the corpus with a vocabulary of the model's language, or with its own (--tokenizer {folder})."
        )
    copy_tokenizer(corpus.tokenizer_folder, run)
    config = replace(config, vocab_size=len(pieces))
    _write_start(run, weights, config, corpus.fingerprint)
    return taken, len(pieces)


def read_pieces(folder: Path) -> dict[str, int]:
    """WordPiece piece -> row of the model's embedding, from vocab.txt or else tokenizer.json."""
    if (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").replace("\r\n", "\n").split("\n")
        return {piece: row for row, piece in enumerate(lines) if piece}
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} has neither vocab.txt nor tokenizer.json, which say whose the rows are; add one.")
    content = json.loads((folder / "tokenizer.json").read_bytes())
    vocab = content["model"]["vocab"]
    names: dict[str, int]
    names = vocab if isinstance(vocab, dict) else {piece: row for row, (piece, _) in enumerate(vocab)}  # Unigram
    special = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    if content["model"].get("type") != "WordPiece":
        space = "▁" if any(piece.startswith("▁") for piece in names) else "Ġ"
        names = {as_wordpiece(piece, space): row for piece, row in names.items() if piece not in special}
    return names | special | _marks(folder, names | special)


def _marks(folder: Path, names: dict[str, int]) -> dict[str, int]:
    """The model's tokens of begin and end, for [CLS] and [SEP], unless it has those.

    A configuration that does not name them has GPT-2's own numbers, which a smaller model has no rows for.
    """
    config = json.loads((folder / "config.json").read_bytes())
    marks = {"[CLS]": config.get("bos_token_id"), "[SEP]": config.get("eos_token_id")}
    rows = config.get("vocab_size", 50257)
    return {name: row for name, row in marks.items() if isinstance(row, int) and row < rows and name not in names}


def as_wordpiece(piece: str, space: str) -> str:
    """A piece of another kind of vocabulary, whose mark of a preceding space is ▁ or (byte-level) Ġ."""
    text = decoders.ByteLevel().decode([piece]) if space == "Ġ" else piece.replace("▁", " ")
    return text[1:] if text.startswith(" ") else f"##{text}"


def matched_rows(rows: Tensor, known: dict[str, int], pieces: list[str]) -> tuple[Tensor, int]:
    """The embedding [len(pieces), C] for `pieces` from one whose rows are `known`, and how many were found."""
    found = [(ours, known[piece]) for ours, piece in enumerate(pieces) if piece in known]
    ours, theirs = torch.tensor(found, dtype=torch.int64).reshape(-1, 2).unbind(1)
    out = rows[theirs].mean(0).repeat(len(pieces), 1)
    out[ours] = rows[theirs]
    return out, len(found)


def _write_start(run: Path, weights: dict[str, Tensor], config: ModelConfig, fingerprint: str) -> None:
    """The checkpoint of step 0: these weights, and an Adam that has not begun."""
    model = config.to_dict()
    del model["dropout"]  # a setting of the training to come
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    moments = {f"{moment}.{name}": shape for moment in MOMENTS for name, shape in shapes.items()}
    writer = CheckpointWriter(run, 0, writing=True)
    writer.tensors(MODEL, shapes, weights.__getitem__)
    writer.tensors(OPTIMIZER, moments, lambda key: torch.zeros(moments[key]))
    writer.json(CONFIG, {"format": FORMAT, "version": VERSION, "corpus": fingerprint, "model": model, "step": 0})
    counts = dict.fromkeys(("step", "tokens", "skipped_steps", "adam_step"), 0)
    writer.json(STATE, {**counts, "best": None, "loss_scaler": {}})
    writer.finish()
    if writer.error is not None:
        raise UserError(f"{run} cannot be written: {writer.error}; make room on the disk and run it again.")

"""`kogpt import`: turn a checkpoint of `transformers` into a run at step 0, which launch/train.py continues.

In: its folder (kogpt.hub.weights) with its vocabulary, and the corpus to train on. Out: a run folder with one
checkpoint and the corpus's tokenizer. It can be trained, evaluated, and exported like any other run.

The rows of the embedding and the head are matched by token (kogpt.checkpoint.start). [CLS] and [SEP] take the rows of
the model's own begin and end tokens if it has none of that name. Other kinds of vocabularies are read as WordPiece: a
token with a mark for the preceding space (▁, or Ġ in byte-level BPE) is a plain token, and one without is a
continuation.
"""

import json
import shlex
from dataclasses import replace
from pathlib import Path

from tokenizers import decoders

from kogpt.checkpoint.layout import step_folders
from kogpt.checkpoint.start import match_vocabulary, write_start
from kogpt.common.errors import UserError
from kogpt.common.system import launcher
from kogpt.data.corpus import TokenCorpus
from kogpt.hub.weights import import_model
from kogpt.model.config import ModelConfig
from kogpt.tokenizer.hf import library_pieces
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.train.run_folder import hold
from kogpt.train.run_metadata import copy_tokenizer

CONTEXT = 1024
"""What `continuation` proposes for models of a longer one, which is often more than any machine can train."""


def import_run(folder: str | Path, run: str | Path, corpus_folder: str | Path) -> tuple[int, int, ModelConfig]:
    """Write `run`; return how many tokens keep their row, how many there are, and the model's shape.

    Raises `UserError`, and writes nothing, if this is not possible, or if a training has the run folder.
    """
    folder, run = Path(folder), Path(run)
    corpus = TokenCorpus.open(corpus_folder)
    pieces = open_tokenizer(corpus.tokenizer_folder).vocab
    config, weights = import_model(folder)
    known = read_pieces(folder)
    if max(known.values()) >= config.vocab_size:
        raise UserError(f"{folder} has {max(known.values()) + 1:,} tokens for a model of {config.vocab_size:,} rows.")
    taken = match_vocabulary(weights, config, known, pieces)
    if not taken:
        raise UserError(
            f"none of the {len(pieces):,} tokens of {corpus_folder} is in the vocabulary of {folder}; "
            f"build the corpus with a vocabulary of the model's language, or with its own (--tokenizer {folder})."
        )
    lock = hold(run)
    try:
        if step_folders(run):
            raise UserError(f"{run} already holds checkpoints; name a new folder for the run.")
        copy_tokenizer(corpus.tokenizer_folder, run)
        config = replace(config, vocab_size=len(pieces))
        write_start(run, weights, config, corpus=corpus.fingerprint)
    finally:
        lock.release()
    return taken, len(pieces), config


def continuation(config: ModelConfig, run: Path, corpus: Path) -> str:
    """The command that trains an imported model further."""
    words = ["launch/train.py", "--corpus", str(corpus), "--out", str(run)]
    if config.any_context and config.max_seq_len > CONTEXT:
        words += ["--max-seq-len", str(CONTEXT)]
    return f"{launcher()} {shlex.join(words)}"


def read_pieces(folder: Path) -> dict[str, int]:
    """WordPiece token -> row of the model's embedding, from vocab.txt or else tokenizer.json."""
    if (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").replace("\r\n", "\n").split("\n")
        return {piece: row for row, piece in enumerate(lines) if piece}
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"{folder} has neither vocab.txt nor tokenizer.json, so the tokens of its rows are unknown; add one."
        )
    content = json.loads((folder / "tokenizer.json").read_bytes())
    vocab = content["model"]["vocab"]
    names: dict[str, int]
    names = vocab if isinstance(vocab, dict) else {piece: row for row, (piece, _) in enumerate(vocab)}  # Unigram
    special = {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    if content["model"].get("type") != "WordPiece":
        space = "▁" if any(piece.startswith("▁") for piece in names) else "Ġ"
        names = {as_wordpiece(piece, space): row for piece, row in names.items() if piece not in special}
    elif content["model"].get("continuing_subword_prefix") == "":  # of our exports, whose names are those of bytes
        names = dict(zip(library_pieces(list(names)), names.values(), strict=True))
    return names | special | _marks(folder, names | special)


def _marks(folder: Path, names: dict[str, int]) -> dict[str, int]:
    """The model's begin and end tokens, for [CLS] and [SEP], unless it has tokens of those names.

    A configuration that does not name them has the ids of GPT-2, for which a smaller model has no rows.
    """
    config = json.loads((folder / "config.json").read_bytes())
    marks = {"[CLS]": config.get("bos_token_id"), "[SEP]": config.get("eos_token_id")}
    rows = config.get("vocab_size", 50257)
    return {name: row for name, row in marks.items() if isinstance(row, int) and row < rows and name not in names}


def as_wordpiece(piece: str, space: str) -> str:
    """A token of another kind of vocabulary, whose mark for a preceding space is ▁ or (byte-level) Ġ."""
    text = decoders.ByteLevel().decode([piece]) if space == "Ġ" else piece.replace("▁", " ")
    return text[1:] if text.startswith(" ") else f"##{text}"

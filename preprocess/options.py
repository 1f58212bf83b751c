"""What a run is asked to do: one frozen dataclass, whose fields are the flags of preprocess/run.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kogpt.common.errors import UserError
from preprocess.layouts import PRESETS
from preprocess.publish import staging_folder

_TOKENIZER = "snunlp/KR-Medium"


@dataclass(frozen=True)
class Options:
    """Turn articles into a token corpus on every core of this machine or of a Ray cluster.

    The same command again goes on where it was killed. Other settings or articles need another output folder; the
    morphemes, which take the time, are found again in the cache.
    """

    input: tuple[str, ...]
    """Files, folders, globs or URLs (fsspec): JSON, JSONL, txt, parquet, also in .zip, .gz and .zst."""

    output: str
    """Folder of the token corpus, or a URL (fsspec) to which it is copied when it is complete."""

    tokenizer: str = _TOKENIZER
    """A BERT-style WordPiece vocabulary: a folder with vocab.txt, or a name on the hub."""

    vocab_size: int | None = None
    """Train a WordPiece vocabulary of this many tokens on the articles instead of loading one with --tokenizer."""

    analyzer: Literal["kkma", "kiwi", "none"] = "kkma"
    """What finds the morphemes."""

    spacing: Literal["original", "morphemes"] = "original"
    """original: the text is kept to the last character; morphemes: ' '.join(morphemes), as the first script did."""

    layout: str = "auto"
    """Where articles stand in the files: auto (looks, and says what it found), aihub-book, aihub-582, aihub-97,
    aihub-large-book, aihub-expert, aihub-paper, aihub-mrc, nikl or plain."""

    text_path: str | None = None
    """The place of the text for any other layout, like documents[].text[][].sentence: the first [] yields an
    article an element, [+] joins a list that belongs to one article."""

    workers: int | None = None
    """Cores to analyse on; all of the cluster by default."""

    limit: int | None = None
    """Take only the first N articles."""

    val_fraction: float = 0.02
    """Share of the articles that is kept for validation."""

    cache: str | None = None
    """Folder of the morphemes; by default the folder `morphemes` beside the output."""

    ray_address: str | None = None
    """A Ray cluster, or local; by default $RAY_ADDRESS, or the cluster that this machine is part of, or local."""

    wandb: Literal["off", "offline", "online"] = "off"
    """Log the run to Weights & Biases."""

    def __post_init__(self) -> None:
        problems = []
        if not self.input:
            problems.append("--input names nothing")
        if self.layout != "auto" and self.layout not in PRESETS:
            problems.append(f"--layout {self.layout} is none of auto, {', '.join(PRESETS)}")
        if self.layout != "auto" and self.text_path is not None:
            problems.append("--layout and --text-path say the same thing twice: give one of them")
        if self.vocab_size is not None and self.tokenizer != _TOKENIZER:
            problems.append("--tokenizer and --vocab-size contradict each other: give one of them")
        for flag, value in (("--workers", self.workers), ("--limit", self.limit)):
            if value is not None and value < 1:
                problems.append(f"{flag} {value} must be 1 or more")
        if not 0 <= self.val_fraction < 1:
            problems.append(f"--val-fraction {self.val_fraction} must lie in [0, 1)")
        if "://" in (self.cache or ""):
            problems.append(f"--cache {self.cache} must be a folder that this machine sees")
        if problems:
            raise UserError("; ".join(problems))

    @property
    def output_folder(self) -> Path:
        if "://" in self.output:
            return staging_folder(self.output)
        return Path(self.output).expanduser().absolute()

    @property
    def cache_folder(self) -> Path:
        return Path(self.cache).expanduser().absolute() if self.cache else self.output_folder.parent / "morphemes"

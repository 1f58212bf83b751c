"""The options of a preprocessing run: one frozen dataclass, whose fields are the flags of preprocess/run.py."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kogpt.common.errors import UserError
from kogpt.common.flags import (
    Location,
    OptionalAmount,
    OptionalCount,
    OptionalLocation,
    OptionalText,
    Source,
    Text,
    flowing_help,
)
from kogpt.common.ranges import Range, ShareBelowOne
from kogpt.common.ranges import problems as outside
from kogpt.data.split import VAL_FRACTION
from kogpt.tokenizer.train import SMALLEST_VOCABULARY
from preprocess.layouts import PRESETS
from preprocess.quality import WEB, Limits, load_thresholds

_TOKENIZER = "snunlp/KR-Medium"
LARGEST_VOCABULARY, MOST_WORKERS = 10_000_000, 100_000


@flowing_help
@dataclass(frozen=True)
class Options:
    """Turn articles into a token corpus on every core of this machine or of a Ray cluster.

    Repeat the same command to continue after a kill. Use another output folder for other settings or articles. The
    morphological analysis, which takes most of the time, is cached and reused.
    """

    input: tuple[Source, ...]
    """Files, folders, globs, or URLs (fsspec) with JSON, JSONL, txt, csv, tsv, parquet, WikiExtractor or
    CoNLL-U files, also inside .zip, .tar, .gz, .bz2, .xz, and .zst."""

    output: Location
    """Folder to write the token corpus to, or a URL (fsspec) to which it is copied when it is complete."""

    tokenizer: Location = _TOKENIZER
    """BERT-style WordPiece vocabulary: a folder with vocab.txt or tokenizer.json, or a name on the Hugging Face hub. A
    token corpus or a run: its vocabulary, analyzer, and spacing."""

    vocab_size: Annotated[OptionalCount, Range(SMALLEST_VOCABULARY, LARGEST_VOCABULARY)] = None
    """Train a WordPiece vocabulary of this many tokens on the articles instead of loading one with --tokenizer."""

    analyzer: Literal["kkma", "kiwi", "none"] = "kkma"
    """Morphological analyzer."""

    uncut: ShareBelowOne = 0.0
    """Share of the articles whose words are not cut into morphemes, so that the model also learns text as programs
    without the analyzer read it (docs/export.md). Articles for validation are cut."""

    spacing: Literal["original", "morphemes"] = "original"
    """original: the tokens restore the text exactly. morphemes: the tokens of ' '.join(morphemes), which lose the
    spacing."""

    layout: Text = "auto"
    """Format of the files: auto (detects it and reports it), aihub-book, aihub-582, aihub-97, aihub-large-book,
    aihub-expert, aihub-paper, aihub-mrc (also KorQuAD), nikl, namuwiki, plain, or chat (conversations in any of the
    usual formats)."""

    text_path: OptionalText = None
    """Where the text is in any other JSON format, for example documents[].text[][].sentence. The first [] makes each
    element an article. [+] joins a list into one article."""

    personal_data: Literal["keep", "mask", "drop"] = "keep"
    """What to do with resident numbers, passports, driving licenses, phones, cards, bank accounts, e-mail and IP
    addresses. mask: replace each by its kind, such as [전화번호]. drop: drop the articles that contain any."""

    quality: Location = "none"
    """Drop texts of low quality. web: by rules of FineWeb-2 and dps that spare edited texts. FILE.toml: by your own
    thresholds, in the format of preprocess/quality_web.toml."""

    near_duplicates: Annotated[OptionalAmount, Range(0.5, 1)] = None
    """Drop an article if an earlier one resembles it this much: the Jaccard similarity of their 5-character shingles,
    for example 0.8."""

    held_out: Annotated[tuple[Source, ...], tyro.conf.arg(help_behavior_hint="")] = ()
    """Drop articles that share 13 morphemes in a row with these files, such as those of an evaluation; formats as for
    --input."""

    workers: Annotated[OptionalCount, Range(1, MOST_WORKERS)] = None
    """Number of cores for the analysis. Default: all of the cluster."""

    limit: OptionalCount = None
    """Use only the first N articles."""

    val_fraction: ShareBelowOne = VAL_FRACTION
    """Share of the articles to keep for validation."""

    cache: OptionalLocation = None
    """Folder for the cached analysis. Default: the folder `morphemes` beside the output."""

    ray_address: OptionalText = None
    """Address of a Ray cluster, or local. Default: $RAY_ADDRESS, the cluster that this machine belongs to, or local."""

    wandb: Literal["auto", "online", "offline", "off"] = "off"
    """Log the run to Weights & Biases. auto: online if you are logged in, else offline."""

    def __post_init__(self) -> None:
        problems = outside(Options, vars(self))
        if not self.input:
            problems.append("--input is empty; name a file, folder, glob, or URL")
        if self.layout not in ("auto", *PRESETS, "chat"):
            problems.append(f"--layout {self.layout} is unknown; choose one of auto, {', '.join(PRESETS)}, chat")
        if self.layout != "auto" and self.text_path is not None:
            problems.append("--layout and --text-path exclude each other; give only one of them")
        if self.vocab_size is not None and self.tokenizer != _TOKENIZER:
            problems.append("--tokenizer and --vocab-size exclude each other; give only one of them")
        if self.uncut + self.val_fraction > 1:
            problems.append(
                f"--uncut {self.uncut} and --val-fraction {self.val_fraction} are more than all articles together; "
                "lower one of them"
            )
        if "://" in (self.cache or ""):
            problems.append(f"--cache {self.cache} must be a folder on this machine or a shared one")
        if problems:
            raise UserError("\n".join(problems))
        _ = self.thresholds

    @property
    def thresholds(self) -> dict[str, Limits] | None:
        """Those of --quality; None without it. Raises `UserError`."""
        if self.quality == "none":
            return None
        return load_thresholds(WEB if self.quality == "web" else Path(self.quality).expanduser())

    @property
    def output_folder(self) -> Path:
        if "://" in self.output:
            return _staging_folder(self.output)
        return Path(self.output).expanduser().absolute()

    @property
    def cache_folder(self) -> Path:
        return Path(self.cache).expanduser().absolute() if self.cache else self.output_folder.parent / "morphemes"


def _staging_folder(url: str) -> Path:
    """The local folder in which the corpus for a URL is built (preprocess.publish)."""
    try:
        home = Path.home()
    except RuntimeError:
        raise UserError(f"--output {url} is built in the home folder first, and there is none; set HOME") from None
    return home / ".cache" / "kogpt" / hashlib.sha256(url.encode()).hexdigest()[:16] / "corpus"

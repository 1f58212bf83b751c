"""The corpora of a training, with their shares. In: options. Out: `Corpora`, whose parts fit together.

The corpora of --corpus are what is trained on: they count for the length in epochs and for the validation loss. Those
of --mix are replayed beside them. All have one vocabulary; older ones may lack the role tokens at its end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.flags import WeightedPath
from kogpt.data.corpus import TokenCorpus
from kogpt.data.loader import Share, TrainBatches
from kogpt.tokenizer.lineage import appended_roles
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.train.options import PROMPTS, QUESTIONS


@dataclass(frozen=True)
class Part:
    """A corpus, its share of the windows, and whether it is replayed by --mix. `name` is unique."""

    name: str
    corpus: TokenCorpus
    share: float
    replayed: bool


class Corpora:
    """The parts of a training's data. Raises `UserError` if they do not fit together."""

    def __init__(self, parts: Sequence[Part], max_repeat: int | None = None) -> None:
        self.parts, self.max_repeat = tuple(parts), max_repeat
        self.main = max((part.corpus for part in parts if not part.replayed), key=lambda corpus: corpus.vocab_size)
        self.vocab_size, self.tokenizer_folder = self.main.vocab_size, self.main.tokenizer_folder
        for part in parts:
            _check_vocabulary(part.corpus, self.main)

    @cached_property
    def fingerprint(self) -> str:
        """The corpus's fingerprint; of several, those of all with their shares, and --max-repeat."""
        if len(self.parts) == 1:
            return self.main.fingerprint
        limit = [] if self.max_repeat is None else [f"max_repeat={self.max_repeat}"]
        return " ".join([*(f"{part.corpus.fingerprint}={part.share:g}" for part in self.parts), *limit])

    @property
    def kind(self) -> str:
        """What --corpus holds: "conversations" if one of its corpora does, else "articles"."""
        main = {part.corpus.kind for part in self.parts if not part.replayed}
        return "conversations" if "conversations" in main else "articles"

    @property
    def prompts(self) -> tuple[str, ...]:
        """What the model continues at each evaluation unless --prompts says otherwise."""
        return QUESTIONS if self.kind == "conversations" else PROMPTS

    def batches(self, max_seq_len: int, seed: int, share: Share, *, by_article: bool = False) -> TrainBatches:
        """The training batches. With `by_article`, tokens of articles attend only within their own."""
        pairs = [(part.corpus, part.share) for part in self.parts]
        return TrainBatches(
            pairs, max_seq_len=max_seq_len, seed=seed, share=share, max_repeat=self.max_repeat, by_article=by_article
        )

    def epoch(self, batches: TrainBatches) -> int:
        """The number of windows, replayed ones included, in which those of --corpus are read once on average."""
        parts = list(zip(self.parts, batches.mixture.sizes, batches.mixture.shares, strict=True))
        replayed = sum(share for part, _, share in parts if part.replayed)  # 0 if none is: then nothing is rounded
        return math.ceil(sum(windows for part, windows, _ in parts if not part.replayed) / (1 - replayed))

    def check_length(self, batches: TrainBatches, steps: int, global_batch: int) -> None:
        """Raises `UserError` if --max-repeat allows fewer steps."""
        most = batches.mixture.samples
        if most is not None and steps * global_batch > most:
            raise UserError(
                f"a training of {steps:,} steps reads {steps * global_batch:,} windows, but --max-repeat allows only "
                f"{most:,}; train at most {most // global_batch:,} steps, or raise --max-repeat."
            )

    def report(self, batches: TrainBatches) -> list[dict[str, Any]]:
        """For run.json: each corpus's name, folder, fingerprint, share of the windows, windows, and what fills them."""
        return [
            {
                "name": part.name,
                "folder": str(part.corpus.folder),
                "corpus": part.corpus.fingerprint,
                "share": share,
                "replayed": part.replayed,
                "windows": source.windows,
                **source.facts(),
            }
            for part, share, source in zip(self.parts, batches.mixture.shares, batches.sources, strict=True)
        ]

    def lines(self, batches: TrainBatches, samples: int) -> list[str]:
        """What to say at the start of a training of so many samples."""
        said = [line for source in batches.sources for line in source.report()]
        if len(self.parts) == 1:
            return said
        shares = ", ".join(f"{part.name} {part.share:.1%}" for part in self.parts)
        ends = [
            f"{self.parts[source].name} is used up (--max-repeat) after {sample:,} of {samples:,} windows; the others "
            "divide its share from there on."
            for source, sample in batches.mixture.used_up()
            if sample < samples
        ]
        return [f"Shares of the windows: {shares}.", *said, *ends]

    @property
    def chars_per_token(self) -> float:
        """The mean over the windows."""
        splits = [(part.share, part.corpus.manifest["counts"]["splits"]["train"]) for part in self.parts]
        return sum(share * split["chars"] / split["ids"] for share, split in splits)


def open_corpora(
    main: Sequence[WeightedPath], mix: Sequence[WeightedPath] = (), max_repeat: int | None = None
) -> Corpora:
    """Open the corpora of --corpus and --mix, of which the latter have shares of the whole."""
    rest = 1 - sum(one.share or 0 for one in mix)
    whole = sum(one.share or 1 for one in main)
    names = _names([one.path for one in (*main, *mix)])
    return Corpora(
        [Part(names[one.path], TokenCorpus.open(one.path), rest * (one.share or 1) / whole, False) for one in main]
        + [Part(names[one.path], TokenCorpus.open(one.path), one.share or 0, True) for one in mix],
        max_repeat,
    )


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each corpus: that of its folder, or its path if several have that name."""
    if twice := next((path for i, path in enumerate(paths) if path in paths[:i]), None):
        raise UserError(f"the corpus {twice} is named twice; give it one share.")
    last = [path.absolute().name for path in paths]
    return {path: name if last.count(name) == 1 else str(path) for path, name in zip(paths, last, strict=True)}


def _check_vocabulary(corpus: TokenCorpus, main: TokenCorpus) -> None:
    same = ("tokenizer", "sha256"), ("tokenizer", "spacing"), ("analyzer", "name")
    if all(corpus.manifest[section][key] == main.manifest[section][key] for section, key in same):
        return
    try:
        appended_roles(open_tokenizer(corpus.tokenizer_folder), open_tokenizer(main.tokenizer_folder))
    except ValueError as error:
        raise UserError(
            f"{corpus.folder} does not go together with {main.folder}: {error}; build it with preprocess/run.py "
            f"--tokenizer {main.folder}."
        ) from None

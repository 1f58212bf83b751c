"""Sources: a corpus as numbered windows to train on. In: a token corpus, a context length. Out: `Window`s.

Articles are packed into one stream and cut into full windows, in which every token is a target (kogpt.data.windows).
"""

from typing import NamedTuple, Protocol

import numpy as np

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.windows import train_window, train_windows


class Window(NamedTuple):
    """One row of a batch (kogpt.data.batch): int64 [max_seq_len] each."""

    ids: np.ndarray
    targets: np.ndarray
    positions: np.ndarray | None = None
    documents: np.ndarray | None = None


class Source(Protocol):
    """What a mixture draws from: numbered windows, which have documents or not.

    `windows` is their number, and `filled` the share of their positions that hold tokens.
    """

    has_documents: bool
    windows: int
    filled: float

    def targets(self, windows: np.ndarray) -> int:
        """The number of targets of these windows together."""

    def window(self, window: int) -> Window:
        """A window of the source."""


class ArticleWindows:
    """The train split of a corpus of articles as full windows of its packed stream."""

    has_documents = False
    filled = 1.0

    def __init__(self, corpus: TokenCorpus, max_seq_len: int) -> None:
        self.stream, self.max_seq_len = corpus.stream("train"), max_seq_len
        self.windows = train_windows(len(self.stream), max_seq_len)
        if not self.windows:
            raise UserError(
                f"the train split of {corpus.folder} has {len(self.stream):,} tokens, fewer than one window of "
                f"--max-seq-len {max_seq_len} + 1; lower --max-seq-len, or use a larger corpus."
            )

    def targets(self, windows: np.ndarray) -> int:
        return windows.size * self.max_seq_len

    def window(self, window: int) -> Window:
        tokens = self.stream.read(train_window(window, len(self.stream), self.max_seq_len), self.max_seq_len + 1)
        return Window(tokens[:-1], tokens[1:])


def open_source(corpus: TokenCorpus, max_seq_len: int) -> Source:
    """The windows of a corpus's train split. Raises `UserError` if there is none."""
    return ArticleWindows(corpus, max_seq_len)

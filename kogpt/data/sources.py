"""Sources: a corpus as numbered windows to train on. In: a token corpus, a context length. Out: `Window`s.

Articles are packed into one stream and cut into full windows, in which every token is a target (kogpt.data.windows).
With `by_article`, tokens attend only within their own article, of which a window may hold several.
Conversations are packed whole (kogpt.data.packing): positions restart with each of them, tokens attend only within
their own, and only learnt tokens are targets. What they do not fill is padding, a document of its own without targets.
"""

from typing import Any, NamedTuple, Protocol

import numpy as np

from kogpt.common.errors import UserError
from kogpt.data.conversations import Conversations
from kogpt.data.corpus import TokenCorpus
from kogpt.data.packing import pack
from kogpt.data.windows import train_window, train_windows
from kogpt.model.loss import IGNORED


class Window(NamedTuple):
    """A row of a batch (kogpt.data.batch): int64 [max_seq_len] each."""

    ids: np.ndarray
    targets: np.ndarray
    positions: np.ndarray | None = None
    documents: np.ndarray | None = None


class Source(Protocol):
    """What a mixture draws from: numbered windows, which have documents or not."""

    has_documents: bool
    windows: int
    """Their number."""

    def targets(self, windows: np.ndarray) -> int:
        """The number of targets of these windows together."""

    def window(self, window: int) -> Window:
        """A window of the source."""

    def facts(self) -> dict[str, Any]:
        """What run.json says of it, besides the number of windows."""

    def report(self) -> list[str]:
        """What the training says of it at the start, in sentences."""


class ArticleWindows:
    """The train split of a corpus of articles as full windows of its packed stream."""

    def __init__(self, corpus: TokenCorpus, max_seq_len: int, by_article: bool = False) -> None:
        self.has_documents = by_article
        self._stream, self._max_seq_len = corpus.stream("train"), max_seq_len
        self.windows = train_windows(len(self._stream), max_seq_len)
        if not self.windows:
            raise UserError(
                f"the train split of {corpus.folder} has {len(self._stream):,} tokens, fewer than one window of "
                f"--max-seq-len {max_seq_len} + 1; lower --max-seq-len, or use a larger corpus."
            )
        self._first = int(corpus.article(0)[0]) if by_article else None  # [CLS], which begins every article

    def targets(self, windows: np.ndarray) -> int:
        return windows.size * self._max_seq_len

    def window(self, window: int) -> Window:
        start = train_window(window, len(self._stream), self._max_seq_len)
        tokens = self._stream.read(start, self._max_seq_len + 1)
        documents = None if self._first is None else (tokens[:-1] == self._first).cumsum()
        return Window(tokens[:-1], tokens[1:], documents=documents)

    def facts(self) -> dict[str, Any]:
        return {}

    def report(self) -> list[str]:
        return []


class ConversationWindows:
    """The train split of a corpus of conversations, packed whole."""

    has_documents = True

    def __init__(self, corpus: TokenCorpus, max_seq_len: int) -> None:
        self._talks, self._max_seq_len = Conversations(corpus, "train", max_seq_len + 1), max_seq_len
        if not len(self._talks):
            raise UserError(
                f"no conversation of the train split of {corpus.folder} has an answer to learn and fits "
                f"--max-seq-len {max_seq_len}; raise --max-seq-len, or use another corpus."
            )
        inputs = self._talks.lengths - 1  # the last token is only a target
        self._packed = pack(inputs, max_seq_len)
        self.windows = len(self._packed)
        self._filled = float(inputs.sum()) / (self.windows * max_seq_len)
        counts = self._talks.learnt_counts
        self._targets = np.array([counts[members].sum() for members in self._packed], dtype=np.int64)

    def targets(self, windows: np.ndarray) -> int:
        return int(self._targets[windows].sum())

    def window(self, window: int) -> Window:
        ids = np.zeros(self._max_seq_len, dtype=np.int64)
        targets = np.full_like(ids, IGNORED)
        positions, documents = np.zeros_like(ids), np.zeros_like(ids)
        start = 0
        for document, talk in enumerate(self._packed[window], 1):
            tokens, learnt = self._talks.tokens(talk)
            end = start + len(tokens) - 1
            ids[start:end] = tokens[:-1]
            targets[start:end] = np.where(learnt[1:], tokens[1:], IGNORED)
            positions[start:end] = np.arange(end - start)
            documents[start:end] = document
            start = end
        return Window(ids, targets, positions, documents)

    def facts(self) -> dict[str, Any]:
        return {
            "conversations": len(self._talks),
            "filled": self._filled,
            "learnt_tokens": int(self._targets.sum()),
            "shortened": self._talks.shortened,
            "left_out": len(self._talks.left_out),
        }

    def report(self) -> list[str]:
        packed = (
            f"{len(self._talks):,} conversations fill {self._filled:.1%} of {self.windows:,} windows of "
            f"{self._max_seq_len:,} tokens; {int(self._targets.sum()):,} tokens are learnt."
        )
        return [packed, *self._talks.report()]


def open_source(corpus: TokenCorpus, max_seq_len: int, by_article: bool = False) -> Source:
    """The windows of a corpus's train split. Raises `UserError` if there is none."""
    if corpus.kind == "conversations":
        return ConversationWindows(corpus, max_seq_len)
    return ArticleWindows(corpus, max_seq_len, by_article)

"""The conversations of a split, each as long as a context allows. In: a corpus of conversations. Out: tokens, and which
of them are learnt.

A conversation of more tokens than fit loses its oldest whole turns, as in a chat (kogpt.data.packing.newest_turns). One
whose newest turn alone is too long, or that has nothing to learn, is left out. Both are counted, and the latter listed.
Cost: all learnt flags are read once, one byte per token.
"""

from functools import cached_property

import numpy as np

from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.data.packing import Kept, newest_turns
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer

LISTED = 5
"""How many of the conversations that are left out `report` names."""


class Conversations:
    """The conversations of a split with at most `limit` tokens each, [CLS] and [SEP] included.

    `lengths` and `learnt_counts`, both int64 [n], are their numbers of tokens and of learnt tokens. `shortened` counts
    those that lost turns, and `left_out` has the ids of those that are not here.
    """

    def __init__(self, corpus: TokenCorpus, split: str, limit: int) -> None:
        self.corpus, self.limit = corpus, limit
        self.left_out: list[str] = []
        self._kept: dict[int, Kept] = {}
        lengths = corpus.articles["ids"].to_numpy()
        found: list[tuple[int, int, int]] = []
        for number in corpus.split(split).tolist():
            learnt = self._cut(number, corpus.learnt(number)) if self._fit(number, int(lengths[number])) else None
            if learnt is not None and (count := int(learnt.sum())):
                found.append((number, len(learnt), count))
            else:
                self._kept.pop(number, None)
                self.left_out.append(corpus.articles["id"][number].as_py())
        self._numbers, self.lengths, self.learnt_counts = np.array(found, dtype=np.int64).reshape(-1, 3).T

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def shortened(self) -> int:
        """How many lost their oldest turns."""
        return len(self._kept)

    def tokens(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """(token ids, whether each is learnt) of conversation `i`: int64 [n], bool [n]."""
        number = int(self._numbers[i])
        ids, learnt = self.corpus.article(number), self.corpus.learnt(number)
        return self._cut(number, ids).astype(np.int64), self._cut(number, learnt)

    def learnt_chars(self, i: int) -> int:
        """The number of characters of what is learnt of conversation `i`: the assistant's messages.

        Of one that was shortened, the table's number times the share of the decoded characters that is left. With the
        spacing "morphemes", which does not give the text back, this is an estimate.
        """
        number = int(self._numbers[i])
        chars = self.corpus.articles["learnt_chars"][number].as_py()
        if number not in self._kept:
            return chars
        whole = self._decoded_chars(self.corpus.article(number), self.corpus.learnt(number))
        return round(chars * self._decoded_chars(*self.tokens(i)) / max(1, whole))

    def _decoded_chars(self, ids: np.ndarray, learnt: np.ndarray) -> int:
        starts = np.flatnonzero(np.diff(learnt.astype(np.int8)) == 1) + 1
        ends = np.flatnonzero(np.diff(learnt.astype(np.int8)) == -1) + 1
        return sum(len(self._tokenizer.decode(ids[a:b])) for a, b in zip(starts, ends, strict=True))

    def report(self) -> list[str]:
        """What was shortened and left out, in sentences."""
        said = []
        if self.shortened:
            said.append(f"Of more than {self.limit:,} tokens, and without their oldest turns: {self.shortened:,}.")
        if self.left_out:
            names = ", ".join(self.left_out[:LISTED]) + (", ..." if len(self.left_out) > LISTED else "")
            said.append(
                f"Left out, because the newest turn has more than {self.limit:,} tokens or nothing to learn: "
                f"{len(self.left_out):,} ({names})."
            )
        return said

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = open_tokenizer(self.corpus.tokenizer_folder)
        if tokenizer.roles is None:
            raise UserError(f"{self.corpus.folder} has conversations, but no role tokens; build it again.")
        return tokenizer

    def _fit(self, number: int, length: int) -> bool:
        """Whether a conversation can be cut to the limit; remembers where."""
        if length <= self.limit:
            return True
        roles = self._tokenizer.roles or {}
        kept = newest_turns(
            self.corpus.article(number),
            self.limit,
            system=roles["system"],
            user=roles["user"],
            end=self._tokenizer.end_id,
        )
        if kept is not None:
            self._kept[number] = kept
        return kept is not None

    def _cut(self, number: int, whole: np.ndarray) -> np.ndarray:
        kept = self._kept.get(number)
        return whole if kept is None else np.concatenate([whole[: kept.head], whole[kept.tail :]])

"""The engine of generation: sequences that come and go between steps, and a token for each at every step.

In: a model, and sequences of tokens with their sampling. Out: the next token of each, step by step.

A sequence has a place in the KV cache. A step first sends waiting tokens of new sequences through the model, in chunks
of `CHUNK`, and stops once it has sent so many, so that a long prompt does not hold up the others. Then all sequences
that have one new token go through the model together.

A sequence gets the same tokens alone and beside others: its chunks begin at multiples of CHUNK and go through by
themselves, it has random numbers of its own, and on a CPU with packed weights (kogpt.model.packed) each row of a pass
comes out the same to the bit, whatever the others are. On a GPU this holds up to rounding.

A sequence that is alone costs a pass over all weights per token. If the model has a draft, that guesses a few tokens
first, at half the price each. One pass of the model over all of them, as rows of a step, then finds which are right,
and the first that is not (speculative decoding, Leviathan et al. 2023). What is given out is chosen by the model, with
the random numbers that belong to each token, so the text is the same with and without guesses.

When a place is full, at max_seq_len, the last half of its sequence goes through the model again as a new prompt,
because with learned absolute positions its keys would change. Each token then sees between max_seq_len / 2 and
max_seq_len earlier tokens, at an amortized two passes per token.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from kogpt.generate.logits import draw, process_logits
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.model.kv_cache import KVCache

CHUNK = 64
"""The most tokens of a prompt that go through the model at once, between two tokens of the other sequences."""
MOST_GUESSES = 4
"""A row guesses two tokens more after a pass in which all were right, and else one less, but at least one."""


class Step(NamedTuple):
    """A token that was chosen. With `logprobs`, its log-probability, and the most probable tokens with theirs.

    Log-probabilities are the model's own, before penalties and temperature.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Row:
    """A sequence in the engine: its tokens so far, and what the choice of the next one depends on."""

    def __init__(
        self, ids: Sequence[int], sampling: Sampling, seed: int, logprobs: int | None, place: int, model: Decoder
    ) -> None:
        self.ids = list(ids)
        self.place = place
        self.start = max(0, len(ids) - model.config.max_seq_len)  # the token that is in slot 0 of its place
        self.logprobs = logprobs
        self.settings = replace(sampling, seed=0, max_new_tokens=1)  # rows that have the same are processed together
        self.random = torch.Generator().manual_seed(seed)
        self.uniforms: deque[Tensor] = deque()  # the random numbers of the next tokens
        self.known: deque[Step] = deque()  # the next tokens, if a pass has found several
        self.left = sampling.max_new_tokens
        self.guesses = 2
        size, device = model.config.vocab_size, model.device
        self.seen = self.made = None
        if sampling.repetition_penalty != 1.0:
            self.seen = torch.zeros(size, dtype=torch.bool, device=device)
            self.seen[torch.tensor(self.ids, device=device)] = True
        if sampling.frequency_penalty or sampling.presence_penalty:
            self.made = torch.zeros(size, device=device)

    def draw(self, ahead: int) -> Tensor:
        """The random number of the next token, or of the one so many tokens after it; the same until `append`."""
        while len(self.uniforms) <= ahead:
            self.uniforms.append(torch.rand((), generator=self.random, dtype=torch.float64))
        return self.uniforms[ahead]

    def append(self, id: int) -> None:
        """Add the chosen token."""
        self.ids.append(id)
        self.left -= 1
        if self.uniforms:
            self.uniforms.popleft()
        if self.seen is not None:
            self.seen[id] = True
        if self.made is not None:
            self.made[id] += 1


class Engine:
    """`add` and `remove` sequences, and `step`. For one thread at a time."""

    def __init__(self, model: Decoder, places: int) -> None:
        self.model = model
        learns = any(weight.requires_grad for weight in model.parameters())
        self._without_gradients = torch.no_grad if learns else torch.inference_mode  # faster, but nothing for training
        self._device = model.device  # to find it takes longer than a small layer
        self.cache = KVCache(model.config, places, device=self._device, dtype=model.dtype)
        self.rows: list[Row] = []
        self._free = list(range(places))

    @property
    def free(self) -> int:
        """The number of free places."""
        return len(self._free)

    def check(self, ids: Sequence[int]) -> None:
        """Raise `ValueError` for a prompt without tokens, or with one that is not in the vocabulary."""
        size = self.model.config.vocab_size
        if not ids:
            raise ValueError("a prompt without tokens; start it with [CLS]")
        if wrong := [id for id in ids if not 0 <= id < size]:
            raise ValueError(f"token {wrong[0]} is not in the vocabulary of {size:,} tokens")

    def add(
        self, ids: Sequence[int], sampling: Sampling, *, seed: int | None = None, logprobs: int | None = None
    ) -> Row:
        """Give a sequence one of the free places.

        `seed`: instead of the sampling's.
        `logprobs`: each `Step` has so many of the most probable tokens; None: no log-probabilities.
        """
        self.check(ids)
        row = Row(ids, sampling, sampling.seed if seed is None else seed, logprobs, self._free[0], self.model)
        del self._free[0]
        self.cache.lengths[row.place] = 0
        self.rows.append(row)
        return row

    def remove(self, row: Row) -> None:
        """Free the place of a sequence."""
        self.rows.remove(row)
        self._free.append(row.place)

    def step(self, rows: Sequence[Row] | None = None, *, budget: int | None = CHUNK) -> dict[Row, Step]:
        """The next token of each of `rows` (by default all) whose prompt has gone through the model.

        Chunks of prompts go through until they are at least `budget` tokens together; None: all do. An error leaves
        all sequences as they were.
        """
        rows = list(self.rows if rows is None else rows)
        lengths = list(self.cache.lengths)
        try:
            with self._without_gradients():
                if len(rows) == 1 and (guesses := self._guesses(rows[0])):
                    self._look_ahead(rows[0], guesses)
                steps = {row: row.known[0] for row in rows if row.known}
                ready, logits = self._last_logits([row for row in rows if not row.known], budget)
                if ready:
                    chosen = _choose(ready, logits[0] if len(logits) == 1 else torch.cat(logits))
                    steps |= zip(ready, chosen, strict=True)
        except BaseException:
            self.cache.lengths = lengths
            raise
        for row, step in steps.items():
            if row.known:
                row.known.popleft()
            row.append(step.id)
            if self.cache.lengths[row.place] == self.cache.capacity:
                row.start = len(row.ids) - max(1, self.cache.capacity // 2)
                self.cache.lengths[row.place] = 0
        return steps

    def _last_logits(self, rows: list[Row], budget: int | None) -> tuple[list[Row], list[Tensor]]:
        """The rows that have no more tokens waiting, and the logits after the last token of each, [.., V]."""
        ready, logits, single, spent = [], [], [], 0
        for row in rows:
            waiting = row.ids[row.start + self.cache.lengths[row.place] :]
            while len(waiting) > 1 and (budget is None or spent < budget):
                chunk, waiting = waiting[:CHUNK], waiting[CHUNK:]
                last = self._forward([row], [chunk])
                spent += len(chunk)
                if not waiting:
                    ready.append(row)
                    logits.append(last)
            if len(waiting) == 1:
                single.append(row)
        if single:
            ready += single
            logits.append(self._forward(single, [row.ids[-1:] for row in single]))
        return ready, logits

    def _guesses(self, row: Row) -> int:
        """How many tokens after the next to guess: none in a prompt, before a place is full, or with penalties."""
        length = self.cache.lengths[row.place]
        if self.model.draft is None or row.known or row.seen is not None or row.made is not None:
            return 0
        if row.start + length < len(row.ids) - 1:
            return 0
        return max(0, min(row.guesses, row.left - 1, self.cache.capacity - length - 2))

    def _look_ahead(self, row: Row, guesses: int) -> None:
        """Guess tokens with the draft, and find `row.known` by one pass of the model over all of them."""
        length, ids = self.cache.lengths[row.place], row.ids[-1:]
        for turn in range(guesses):
            ids += _draw_ids([row], self._forward([row], [ids[-1:]], self.model.draft), [turn])
        self.cache.lengths[row.place] = length  # the model writes its own keys and values over those of the draft
        rows = [row] * len(ids)
        steps = _choose(rows, self._forward(rows, [[id] for id in ids]), range(len(ids)))
        right = 0
        while right < guesses and steps[right].id == ids[right + 1]:
            right += 1
        row.known.extend(steps[: right + 1])
        self.cache.lengths[row.place] = length + right + 1
        row.guesses = min(row.guesses + 2, MOST_GUESSES) if right == guesses else max(1, row.guesses - 1)

    def _forward(self, rows: list[Row], ids: list[list[int]], model: Decoder | None = None) -> Tensor:
        """Send the next tokens of each row through the model (or its draft); the logits [B, V] after the last."""
        model = model or self.model
        self.cache.rows = [row.place for row in rows]
        hidden = model.hidden(torch.tensor(ids, device=self._device), cache=self.cache)
        return model.logits(hidden.select(1, -1)).float()


def _choose(rows: list[Row], logits: Tensor, ahead: Sequence[int] | None = None) -> list[Step]:
    """The next token of each row, from the logits [B, V] after its last, as `_draw_ids` draws it."""
    ids = _draw_ids(rows, logits, ahead or [0] * len(rows))
    return [
        Step(id) if row.logprobs is None else _with_logprobs(id, own, row.logprobs)
        for row, id, own in zip(rows, ids, logits, strict=True)
    ]


def _draw_ids(rows: list[Row], logits: Tensor, ahead: Sequence[int]) -> list[int]:
    """The next token of each row. Rows of the same settings go together.

    `ahead`: the token of a row is so many tokens after its next one.
    """
    groups: dict[Sampling, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(row.settings, []).append(i)
    ids: dict[int, int] = {}
    for sampling, members in groups.items():
        own, after = [rows[i] for i in members], logits if len(groups) == 1 else logits[members]
        seen = [row.seen for row in own if row.seen is not None]
        made = [row.made for row in own if row.made is not None]
        scores = process_logits(
            after, torch.stack(seen) if seen else None, sampling, torch.stack(made) if made else None
        )
        if sampling.greedy:
            chosen = scores.argmax(-1)
        else:
            chosen = draw(scores, torch.stack([rows[i].draw(ahead[i]) for i in members]))
        ids |= zip(members, chosen.tolist(), strict=True)
    return [ids[i] for i in range(len(rows))]


def _with_logprobs(id: int, logits: Tensor, count: int) -> Step:
    logprobs = logits.log_softmax(-1)
    best = logprobs.topk(min(count, logprobs.numel()))
    return Step(id, logprobs[id].item(), tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)))

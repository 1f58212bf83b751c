"""How full are windows of packed conversations, and what does their attention mask cost? In: a corpus. Out: a table.

    python bench/packing.py CORPUS [--json FILE]

Per context length: the part of the windows' positions that conversations fill, packed best-fit (kogpt.data.packing), in
the order of the corpus into one window after the other, and with a window each; CPU seconds of packing; and the time of
attention with the mask of documents of 64 tokens as a ratio to plain causal attention, forward and backward.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from kogpt.data.conversations import Conversations
from kogpt.data.corpus import TokenCorpus
from kogpt.data.packing import pack
from kogpt.model.attention import attend, document_mask

CONTEXTS = (128, 256, 512, 1024)
ROUNDS, HEADS, HEAD_SIZE, TOKENS = 5, 6, 64, 4096


def in_order(lengths: np.ndarray, capacity: int) -> int:
    """The number of windows if a conversation that does not fit opens the next one."""
    windows, room = 0, 0
    for length in lengths.tolist():
        if length > room:
            windows, room = windows + 1, capacity
        room -= length
    return windows


def attention_seconds(context: int, masked: bool) -> float:
    """CPU seconds of attention over `TOKENS` tokens, forward and backward."""
    batch = TOKENS // context
    shape = (batch, HEADS, context, HEAD_SIZE)
    query, key, value = (torch.randn(shape, requires_grad=True) for _ in range(3))
    documents = torch.arange(0, TOKENS + 1, 64, dtype=torch.int32)
    started = time.process_time()
    mask = document_mask(documents, torch.empty(batch, context, 0), HEAD_SIZE) if masked else None
    attend(query, key, value, mask).sum().backward()
    return time.process_time() - started


def measure(corpus: TokenCorpus, context: int) -> dict[str, float]:
    """A row of the table."""
    talks = Conversations(corpus, "train", context + 1)
    lengths = talks.lengths - 1
    started = time.process_time()
    windows = len(pack(lengths, context))
    seconds = time.process_time() - started
    pairs = [(attention_seconds(context, True), attention_seconds(context, False)) for _ in range(ROUNDS)]
    masked, causal = (min(column) for column in zip(*pairs, strict=True))
    return {
        "conversations": len(talks),
        "left out": len(talks.left_out),
        "best-fit": lengths.sum() / (windows * context),
        "in order": lengths.sum() / (in_order(lengths, context) * context),
        "one each": lengths.sum() / (len(talks) * context),
        "seconds": seconds,
        "mask/causal": masked / causal,
    }


@dataclass(frozen=True)
class Options:
    """The corpus, and where the numbers go."""

    corpus: tyro.conf.Positional[Path]
    """Token corpus of conversations."""
    json: Path | None = None
    """Also write the numbers to this file."""


def main() -> None:
    """Measure every context."""
    options = tyro.cli(Options, description=__doc__)
    corpus = TokenCorpus.open(options.corpus)
    rows = {context: measure(corpus, context) for context in CONTEXTS}
    table = Table("context", *rows[CONTEXTS[0]])
    for context, row in rows.items():
        table.add_row(str(context), *(f"{v:,}" if isinstance(v, int) else f"{v:.3f}" for v in row.values()))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Generate tokens from tokens, for prompts that are all there at the start.

In: a model and prompts (lists of tokens). Out: an iterator of one token per row and step. A row does not depend on the
other rows of the batch, except for rounding. Each row has its own random numbers, one per token, drawn on the CPU: the
same seed gives the same text alone, in a batch, and on a GPU. Algorithm and cost: kogpt.generate.engine.
"""

from collections.abc import Iterator, Sequence

from kogpt.generate.engine import Engine
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder


def generate(
    model: Decoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    stop_id: int | None = None,
    seeds: Sequence[int] | None = None,
) -> Iterator[list[int | None]]:
    """Yield, step by step, the next token of every row; None for a row that has ended (`stop_id` ends it).

    Every prompt has at least one token. `seeds`: one per row instead of sampling.seed + row.
    """
    if not prompts:
        raise ValueError("no prompts")
    if seeds is None:
        seeds = range(sampling.seed, sampling.seed + len(prompts))
    engine = Engine(model, len(prompts))
    rows = [engine.add(ids, sampling, seed=seed) for ids, seed in zip(prompts, seeds, strict=True)]
    for _ in range(sampling.max_new_tokens):
        made = engine.step(budget=None)
        yield [made[row].id if row in made else None for row in rows]
        for row, step in made.items():
            if step.id == stop_id:
                engine.remove(row)
        if not engine.rows:
            return

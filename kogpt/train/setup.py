"""What a training will be, before ranks and memory shape it. In: options, DeepSpeed file, corpora. Out: `Setup`.

If several of these set the same thing, the first one holds: a flag; the DeepSpeed file; the run that is resumed; the
dial of kogpt.train.recipe, or its settings for fine-tuning. So the dial changes nothing in a run that is resumed.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.data.loader import Share, TrainBatches
from kogpt.model.config import ModelConfig
from kogpt.train.corpora import Corpora
from kogpt.train.deepspeed_file import completed
from kogpt.train.distributed import Ranks, broadcast_object, on_first
from kogpt.train.fine_tuning import origin
from kogpt.train.options import TrainOptions, model_config
from kogpt.train.recipe import SOURCES, Attend, Length, Recipe, changed, dial, dividing, divisible, tuning


@dataclass(frozen=True)
class Setup:
    """A training: its model, its windows, its recipe."""

    base: Path | None
    """The checkpoint that a new run begins with (--init)."""
    init: dict[str, Any] | None
    """What `base` was, also of a run that is resumed."""
    branch_of: str | None
    """The checkpoint of another run that this one began with (--resume STEP)."""
    config: ModelConfig
    batches: TrainBatches
    """One window at a time, until the micro-batch is known."""
    recipe: Recipe
    content: dict[str, Any]
    """The DeepSpeed file, with the batch and the optimizer of the recipe."""
    notes: tuple[str, ...]


def settle(options: TrainOptions, content: dict[str, Any], corpora: Corpora, ranks: Ranks) -> Setup:
    """Decide what to train. All ranks must call it, and get the same."""
    run = options.run
    base, known = broadcast_object(on_first(ranks, lambda: origin(options.out, run.init, run.resume)))
    config = model_config(options.model, corpora.vocab_size, known.get("model"))
    context = config.max_seq_len
    attend = run.attend or _attention(config, known.get("recipe") if base is None else None)
    share = Share(1, 1, ranks.rank, ranks.world_size, ranks.device)
    batches = corpora.batches(context, run.seed, share, by_article=attend == "article")
    windows = corpora.epoch(batches)
    said = options.schedule
    most = math.inf if batches.mixture.samples is None else batches.mixture.samples
    length, batch = Length(said.steps, said.tokens, said.epochs, most), content.get("train_batch_size")
    if base is not None:
        optimizer = completed(known["recipe"]["optimizer"])
        recipe = tuning(optimizer, context, windows, ranks=ranks.world_size, length=length, batch=batch)
    elif "recipe" in known:
        recipe = _begun(known, context, windows, ranks.world_size, length, batch)
    else:
        size = config.parameter_count
        recipe = dial(size, context, windows, ranks=ranks.world_size, length=length, batch=batch)
    flags = {name: getattr(said, name) for name in ("schedule", "warmup", "decay", "min_lr_ratio")}
    named = completed(content["optimizer"], recipe.optimizer) if "optimizer" in content else None
    recipe = changed(recipe, optimizer=named, attend=attend, **flags)
    new = base is not None or not known
    notes: tuple[str, ...] = (_described(recipe, config, windows, named is not None),) if new else ()
    if not known:
        notes += (f"Sources of what no flag or file sets (bench/LOG.md): {SOURCES}.",)
    settled = content | {"train_batch_size": recipe.batch, "optimizer": recipe.optimizer}
    return Setup(base, known.get("init"), known.get("branch_of"), config, batches, recipe, settled, notes)


def _attention(config: ModelConfig, begun: dict[str, Any] | None) -> Attend:
    """What tokens attend to if no flag says it: as in the run that is resumed, or by architecture.

    With learned positions it was not measured, so a new run of those has the window, as always.
    """
    if begun is not None:
        return "article" if begun.get("attend") == "article" else "window"
    return "article" if config.any_context else "window"


def _begun(known: dict[str, Any], context: int, windows: int, ranks: int, length: Length, batch: int | None) -> Recipe:
    """The recipe of a run that is resumed. A longer context keeps the tokens of a step.

    Raises `UserError` if the file names no batch and the ranks cannot divide that of the run.
    """
    if batch is None and "global_batch" in known:
        batch = max(1, known["global_batch"] * known["model"]["max_seq_len"] // context)
        if batch % ranks:
            raise UserError(
                f"a step of this run has {batch} windows of {context} tokens, which {ranks} ranks cannot divide "
                f"evenly; use another number of ranks: {dividing(batch, ranks)}."
            )
    elif batch is None:
        batch = divisible(known["recipe"]["batch"], ranks)
    recipe = Recipe(**known["recipe"] | {"batch": batch})
    if not length.given:
        return recipe
    return replace(recipe, steps=length.in_steps(step_tokens=batch * context, windows=windows, batch=batch))


def _described(recipe: Recipe, config: ModelConfig, windows: int, named: bool) -> str:
    """The recipe of a new run in words."""
    step = recipe.batch * config.max_seq_len
    tokens = recipe.steps * step
    optimizer, params = recipe.optimizer["type"], recipe.optimizer["params"]
    lr = params.get("muon_lr", params["lr"])
    fall = f", a fall over {recipe.decay:.0%}" if recipe.schedule == "wsd" else ""
    return (
        f"Recipe for {config.parameter_count / 1e6:.1f}M parameters ({config.arch}, {config.n_embd} wide, heads of "
        f"{config.kv_cache_shape(1)[-1]}): {tokens:,} tokens "
        f"({tokens / config.parameter_count:.1f} per parameter, {recipe.steps * recipe.batch / windows:.2f} epochs) in "
        f"{recipe.steps:,} steps of {step:,} tokens; {optimizer}, learning rate {lr:g}, weight decay "
        f"{params['weight_decay']:g}{' (of the DeepSpeed file)' if named else ''}; attention within the "
        f"{recipe.attend}; {recipe.schedule} with a warm-up over {recipe.warmup:.0%}{fall}."
    )

"""The recipe of new runs, in one place: the architecture, the optimizer, and a dial that sets the rest by size.

In: parameters, context, windows of an epoch, and what flags or the DeepSpeed file already say. Out: `Recipe`.
Arithmetic only. kogpt.train.setup applies flags, the DeepSpeed file, and the run that is resumed before the dial.

Two anchors were measured (bench/LOG.md): the best learning rate of 4 million tokens in steps of 8,192 is 0.04
(bench/recipe.py), and the best step of half a million tokens has 2,048 (bench/dial.py). From there, for D tokens in
steps of B tokens:

- Architecture Qwen3 and optimizer Muon: 36 % of the tokens and 40 % of the FLOPs of GPT-2 with AdamW. Width 64 per
  layer and heads of 128 (nanochat), in `Qwen3Config.shape_of_depth`.
- D: 20 tokens per parameter (Hoffmann et al. 2022, "Chinchilla"), but at most 4 epochs, up to which repeated text is
  almost as good as new text (Muennighoff et al. 2023).
- B grows with D^0.55, to the nearest power of two: the exponent that leads from the anchor to nanochat's 524,288 at
  D = 11e9. Zhang et al. 2024 found 0.47 for the critical batch, Bergsma et al. 2025 0.38 for the best one.
- The learning rate grows with sqrt(B), as noise falls (nanochat, Malladi et al. 2022), and falls with D^-0.35, as in
  Bjorck et al. 2024 (-0.32). The exponent is the one that leads from the anchor to nanochat's 0.02 at the same end.
  Muon's update is scaled by shape (kogpt.optim.muon), so the width does not matter.
- AdamW beside Muon takes 0.1 of its learning rate (kogpt.train.deepspeed_config): of 0.03 to 3, 1.0 was the best after
  2 million tokens, but 4.7 % worse after 4 million, where 0.3 gained nothing.
- Tokens attend within their own article: 0.85 % fewer bits per character than across articles, at a context of 256.
- Weight decay 0.1 at every size: the default of torch.optim.Muon, not measured.
- wsd: a warm-up over 5 % of the steps, a fall to 0 over the last 40 %. No warm-up or one over 20 %, and a fall
  over 20 or 80 %, were no better.
"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from kogpt.common.errors import UserError
from kogpt.optim.schedule import Schedule

Attend = Literal["article", "window"]

ARCH = "qwen3"
DEPTH = 4
"""Layers of a model for which no flag names a size."""

TOKENS_PER_PARAMETER = 20
MOST_EPOCHS = 4
TOKENS, STEP_TOKENS, LR = 4_000_000, 8192, 0.04
"""An anchor: length, tokens of a step, learning rate of Muon."""
FEW_TOKENS, BEST_STEP = 500_000, 2048
"""The other one: length, and the best number of tokens of a step."""
BATCH_EXPONENT, LR_EXPONENT = 0.55, -0.35
WEIGHT_DECAY = 0.1
ADAM_LR = 6e-4
SOURCES = (
    "width of 64 per layer and qwen3's heads of 128: nanochat; length: Hoffmann et al. 2022 (tokens), Muennighoff et "
    "al. 2023 (epochs); step and learning rate: measured at 0.5 and 4 million tokens, from there on toward nanochat's; "
    "AdamW's share of Muon's learning rate, attention of qwen3, warm-up, and fall: measured; weight decay: the default "
    "of torch.optim.Muon"
)
"""Where the dial's rules are from, in a line."""

TUNING_EPOCHS = 2
TUNING_LR = 0.8
"""The peak learning rate of a fine-tuning (--init), as a share of that of a pre-training (nanochat's). The warm-down is
linear, over the second half."""
OLD_BATCH, OLD_STEPS = 64, 200
"""Of runs from before the dial, if nobody said otherwise. A fine-tuning still has this batch."""


@dataclass(frozen=True)
class Recipe:
    """What a training does besides its model and data."""

    batch: int
    """Windows per step, over all ranks."""
    steps: int
    optimizer: dict[str, Any]
    """"type" and "params", as in the DeepSpeed file."""
    schedule: Schedule = "wsd"
    warmup: float = 0.05
    """Share of the steps."""
    decay: float = 0.4
    """Share of the steps, for wsd."""
    min_lr_ratio: float = 0.0
    attend: Attend = "window"
    """What a token of an article may attend to."""

    def __post_init__(self) -> None:
        if self.schedule == "wsd" and self.warmup + self.decay > 1:
            raise UserError(f"--warmup {self.warmup} and --decay {self.decay} add up to more than 1; lower one.")

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint's config.json, which has the batch on its own."""
        return {name: value for name, value in asdict(self).items() if name != "batch"}


@dataclass(frozen=True)
class Length:
    """What is known of a training's length; at most one of the first three."""

    steps: int | None = None
    tokens: float | None = None
    epochs: float | None = None
    most: float = math.inf
    """The windows that --max-repeat allows."""

    @property
    def given(self) -> bool:
        """Does it say anything?"""
        return (self.steps, self.tokens, self.epochs) != (None, None, None)

    def or_else(self, tokens: float, context: int) -> "Length":
        """The same; if nothing is said, so many tokens in windows of `context`, or as many as `most` allows."""
        return self if self.given else replace(self, tokens=min(tokens, self.most * context))

    def in_steps(self, *, step_tokens: int, windows: int, batch: int) -> int:
        """The number of steps; `windows` are those of an epoch. Rounded up, but down if `most` ends within the last."""
        if self.steps is not None:
            return self.steps
        asked, step = (self.tokens, step_tokens) if self.epochs is None else (self.epochs * windows, batch)
        assert asked is not None
        up = -int(-asked // step)
        return up if up * batch <= self.most else max(1, int(asked // step))


def enough_tokens(parameters: int, epoch_tokens: int) -> float:
    """How many tokens to train a model on, of a corpus that has so many."""
    return min(TOKENS_PER_PARAMETER * parameters, MOST_EPOCHS * epoch_tokens)


def best_step(tokens: float) -> int:
    """Tokens of a step, a power of two, for a training of so many."""
    return _power_of_two(BEST_STEP * (tokens / FEW_TOKENS) ** BATCH_EXPONENT)


def best_step_for(steps: int) -> int:
    """The same for a training of so many steps: B = b (S B / D)^e, solved for B."""
    share = steps * BEST_STEP / FEW_TOKENS
    return _power_of_two(BEST_STEP * share ** (BATCH_EXPONENT / (1 - BATCH_EXPONENT)))


def best_lr(tokens: float, step_tokens: int) -> float:
    """Muon's peak learning rate, to three digits."""
    lr = LR * math.sqrt(step_tokens / STEP_TOKENS) * (tokens / TOKENS) ** LR_EXPONENT
    return float(f"{lr:.3g}")


def muon(lr: float) -> dict[str, Any]:
    """The "optimizer" of a DeepSpeed file."""
    return {"type": "Muon", "params": {"lr": lr, "weight_decay": WEIGHT_DECAY}}


def adamw(lr: float) -> dict[str, Any]:
    """The same with AdamW."""
    return {"type": "AdamW", "params": {"lr": lr, "weight_decay": WEIGHT_DECAY}}


def dial(
    parameters: int,
    context: int,
    windows: int,
    *,
    ranks: int = 1,
    length: Length = Length(),
    batch: int | None = None,
) -> Recipe:
    """The recipe of a new run on windows of `context` tokens, of which an epoch has so many.

    `length` and `batch` are those that a flag or a file names. The batch is a multiple of `ranks`.
    """
    length = length.or_else(enough_tokens(parameters, windows * context), context)
    if batch is None:
        epochs = None if length.epochs is None else length.epochs * windows * context
        tokens = length.tokens if length.tokens is not None else epochs
        step = best_step_for(length.steps or 1) if tokens is None else best_step(tokens)
        batch = divisible(max(1, round(step / context)), ranks)
    steps = length.in_steps(step_tokens=batch * context, windows=windows, batch=batch)
    return Recipe(batch, steps, muon(best_lr(steps * batch * context, batch * context)))


def tuning(
    base: dict[str, Any], context: int, windows: int, *, ranks: int, length: Length, batch: int | None
) -> Recipe:
    """The recipe of a fine-tuning of a run with the optimizer `base`. Muon keeps 0.8 of its learning rate."""
    batch = batch or divisible(OLD_BATCH, ranks)
    length = length.or_else(TUNING_EPOCHS * windows * context, context)
    steps = length.in_steps(step_tokens=batch * context, windows=windows, batch=batch)
    return Recipe(batch, steps, tuned(base), decay=0.5)


def tuned(base: dict[str, Any]) -> dict[str, Any]:
    """The optimizer for fine-tuning what `base` has trained."""
    if base["type"] == "AdamW":
        return adamw(TUNING_LR * ADAM_LR)
    slower = {name: TUNING_LR * value for name, value in base["params"].items() if name in ("lr", "muon_lr", "adam_lr")}
    return base | {"params": base["params"] | slower}


def divisible(batch: int, ranks: int) -> int:
    """The next larger batch that the ranks can divide evenly."""
    return -(-batch // ranks) * ranks


def dividing(batch: int, ranks: int) -> str:
    """The numbers of ranks nearest to `ranks` that divide the batch evenly, in words: "16 or 32"."""
    fewer = [number for number in range(1, ranks) if batch % number == 0]
    more = [number for number in range(ranks + 1, batch + 1) if batch % number == 0]
    return " or ".join(map(str, fewer[-1:] + more[:1]))


def changed(recipe: Recipe, **said: Any) -> Recipe:
    """The recipe with everything that is said (not None)."""
    return replace(recipe, **{name: value for name, value in said.items() if value is not None})


def _power_of_two(tokens: float) -> int:
    return 1 << max(0, round(math.log2(tokens)))

"""Settings of text generation, without torch, so that the command line can show them quickly."""

import math
from dataclasses import dataclass

from kogpt.common.errors import UserError

COLDEST = 1e-6
"""The lowest temperature: float32 logits divided by it stay finite."""
SEEDS = 10**18
"""Seeds are below it: torch takes 64 bits, and every row and sample adds to the seed."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Applied in this order: repetition penalty, temperature, top-k, top-p."""

    max_new_tokens: int = 100
    """Largest number of tokens to add. Generation stops earlier at the end of the article."""
    greedy: bool = False
    """Always take the most probable token, and ignore temperature, top-k, top-p, and seed."""
    temperature: float = 0.8
    """Below 1 improbable tokens become rarer, above 1 more frequent."""
    top_k: int = 0
    """Choose only among the k most probable tokens; 0: among all."""
    top_p: float = 1.0
    """Choose only among the most probable tokens that together have this probability (nucleus sampling)."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that occurred already become less probable (CTRL, Keskar et al. 2019, section 4.1)."""
    seed: int = 0
    """The same seed gives the same text. Sample i of a prompt uses seed + i."""

    def __post_init__(self) -> None:
        checks = {
            f"--max-new-tokens is {self.max_new_tokens}, but must be at least 1": self.max_new_tokens >= 1,
            f"--temperature is {self.temperature}, but must be at least {COLDEST} (or use --greedy)": COLDEST
            <= self.temperature
            < math.inf,
            f"--top-k is {self.top_k}, but must be 0 (off) or more": self.top_k >= 0,
            f"--top-p is {self.top_p}, but must be above 0 and at most 1": 0 < self.top_p <= 1,
            f"--repetition-penalty is {self.repetition_penalty}, but must be above 0": 0
            < self.repetition_penalty
            < math.inf,
            f"--seed is {self.seed}, but must have at most 18 digits": abs(self.seed) < SEEDS,
        }
        if problems := [text for text, good in checks.items() if not good]:
            raise UserError("; ".join(problems) + ".")

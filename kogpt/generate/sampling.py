"""Settings of text generation, without torch, so that the command line can show them quickly."""

from dataclasses import dataclass
from typing import Annotated

from kogpt.common.errors import UserError
from kogpt.common.ranges import Count, Range, problems

COLDEST = 1e-6
"""The lowest temperature: float32 logits divided by it stay finite."""
SEEDS = 10**18
"""The largest seed: torch takes 64 bits, and every row and sample adds to the seed."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Applied in this order: the penalties, temperature, top-k, top-p."""

    max_new_tokens: Count = 100
    """Largest number of tokens to add. Generation stops earlier at the end of the article."""
    greedy: bool = False
    """Always take the most probable token, and ignore temperature, top-k, top-p, and seed."""
    temperature: Annotated[float, Range(COLDEST)] = 0.8
    """Below 1 improbable tokens become rarer, above 1 more frequent. Instead of 0 use --greedy."""
    top_k: Annotated[int, Range(0)] = 0
    """Choose only among the k most probable tokens; 0: among all."""
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0
    """Choose only among the most probable tokens that together have this probability (nucleus sampling)."""
    repetition_penalty: Annotated[float, Range(0.01, 100)] = 1.0
    """Above 1, tokens that occurred already become less probable (CTRL, Keskar et al. 2019, section 4.1)."""
    frequency_penalty: Annotated[float, Range(-2, 2)] = 0.0
    """Above 0, tokens become less probable each time they are generated. OpenAI's API has the same."""
    presence_penalty: Annotated[float, Range(-2, 2)] = 0.0
    """Above 0, tokens become less probable once they were generated. OpenAI's API has the same."""
    seed: Annotated[int, Range(-SEEDS, SEEDS)] = 0
    """The same seed gives the same text. Sample i of a prompt uses seed + i."""

    def __post_init__(self) -> None:
        if found := problems(Sampling, vars(self)):
            raise UserError("\n".join(found))

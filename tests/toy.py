"""A second architecture, as different from GPT-2 as the project allows.

It has other parameter names, an untied head, two query heads per KV head, a decay with distance instead of positions,
and one matrix of another width per block.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogpt.model.config import ModelConfig, Precision
from kogpt.model.decoder import Decoder
from kogpt.model.kv_cache import KVCache
from kogpt.model.layers import VocabMatrix, document_mask


@dataclass(frozen=True)
class ToyConfig(ModelConfig):
    arch: ClassVar[str] = "toy"

    n_kv_head: int = 1
    head_width: int = 4

    @property
    def parameter_count(self) -> int:
        attention = self.n_embd * self.head_width * (2 * self.n_head + 2 * self.n_kv_head)
        return 2 * self.vocab_size * self.n_embd + self.n_layer * (attention + self.n_embd)

    def flops_per_token(self, seq_len: int) -> int:
        matrices = self.parameter_count - self.vocab_size * self.n_embd
        return 6 * matrices + 12 * self.n_layer * self.n_head * self.head_width * seq_len

    def activation_bytes(self, *, precision: Precision, micro_batch: int, seq_len: int) -> int:
        return 4 * micro_batch * seq_len * self.n_layer * 8 * self.n_embd

    def kv_cache_shape(self, batch: int) -> tuple[int, int, int, int, int]:
        return self.n_layer, batch, self.n_kv_head, self.max_seq_len, self.head_width


class Mixer(nn.Module):
    def __init__(self, config: ToyConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        self.gain = nn.Parameter(torch.ones(config.n_embd))
        self.ask = nn.Linear(config.n_embd, config.n_head * config.head_width, bias=False)
        self.keep = nn.Linear(config.n_embd, 2 * config.n_kv_head * config.head_width, bias=False)
        self.back = nn.Linear(config.n_head * config.head_width, config.n_embd, bias=False)

    def forward(self, x: Tensor, cache: KVCache | None, bias: Tensor) -> Tensor:
        batch, length, _ = x.shape
        c = self.config
        y = F.rms_norm(x, (c.n_embd,)) * self.gain
        query = self.ask(y).view(batch, length, c.n_head, c.head_width).transpose(1, 2)
        key, value = self.keep(y).view(batch, length, 2, c.n_kv_head, c.head_width).permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            key, value = cache.append(self.layer, key, value)
        groups = c.n_head // c.n_kv_head
        key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
        scores = query @ key.transpose(2, 3) / math.sqrt(c.head_width) + bias
        return x + self.back((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class Toy(Decoder):
    VOCABULARY = ("words.weight", "answers.weight")

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):
            self.words = VocabMatrix(config.vocab_size, config.n_embd)
            self.blocks = nn.ModuleList(Mixer(config, layer) for layer in range(config.n_layer))
            self.answers = VocabMatrix(config.vocab_size, config.n_embd)
        self._initialise_all()

    def initialise(self, name: str, parameter: Tensor) -> None:
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=0.3)
        else:
            nn.init.ones_(parameter)

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        length, before = ids.size(1), 0 if cache is None else cache.length
        slots = torch.arange(before + length, device=ids.device)
        distance = slots[before:, None] - slots
        allowed = distance >= 0
        if documents is not None:
            allowed = document_mask(documents)
        elif cache is not None and (mask := cache.mask(length)) is not None:
            allowed = mask
        bias = torch.where(allowed, -0.2 * distance, -torch.inf)
        x = self.words(ids, "embed")
        for block in self.blocks:
            x = block(x, cache, bias)
        if cache is not None:
            cache.length += length
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        return self.answers(hidden, "logits")

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        hidden = self.hidden(ids, positions, documents, cache)
        return self.logits(hidden) if targets is None else self.answers(hidden, "loss", targets)

    @torch.no_grad()
    def token_nll(self, ids: Tensor, targets: Tensor) -> Tensor:
        return self.answers(self.hidden(ids), "nll", targets)


class ToyAdapter:
    """`transformers` knows no such model; a folder of it has our own names with "theirs." before them."""

    title = "Toy"
    model_type = "toy-hf"

    def export_config(self, config: ModelConfig, special_tokens: dict[str, int]) -> dict[str, Any]:
        return {"model_type": self.model_type, "shape": config.to_dict(), **special_tokens}

    def export_weights(self, state: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
        return {f"theirs.{name}": value.contiguous() for name, value in state.items()}

    def import_config(self, config: dict[str, Any], state: dict[str, Tensor], place: str) -> ModelConfig:
        fields = {name: value for name, value in config["shape"].items() if name != "arch"}
        return ToyConfig(**fields)

    def import_weights(self, state: dict[str, Tensor], config: ModelConfig, place: str) -> dict[str, Tensor]:
        return {name.removeprefix("theirs."): value for name, value in state.items()}

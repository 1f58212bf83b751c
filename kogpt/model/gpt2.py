"""The GPT-2 decoder in one file, in reading order: configuration, attention, MLP, block, model.

In: tokens [B, T] int64. Out: logits [B, T, V], or with targets [B, T] int64 (`IGNORED` = not scored) the summed
cross-entropy as a float32 scalar.

Architecture (Radford et al. 2019, section 2.3): learned positions, pre-LN blocks, GELU (tanh approximation), a layer
norm before the head, and a head tied to the token embedding. Weights are initialized from normal(0, 0.02). Those that
write to the residual stream use normal(0, 0.02 / sqrt(2 * n_layer)), so that its variance does not grow with depth.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogpt.model.attention import attend, document_mask
from kogpt.model.config import ModelConfig, Precision
from kogpt.model.decoder import Decoder
from kogpt.model.kv_cache import KVCache
from kogpt.model.layers import VocabMatrix
from kogpt.model.packed import Linear, layer_norm


@dataclass(frozen=True)
class GPTConfig(ModelConfig):
    """The shape of a GPT-2. The defaults are those of GPT-2 small, with a context of 256 tokens."""

    arch: ClassVar[str] = "gpt2"

    vocab_size: int = 50257
    max_seq_len: int = 256
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.n_head >= 1 and self.n_embd % self.n_head:
            problems.append(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        return problems

    @classmethod
    def shape_of_depth(cls, depth: int) -> dict[str, Any]:
        """Heads of size 64. Depth 12 is GPT-2 small."""
        return {"n_layer": depth, "n_head": depth, "n_embd": 64 * depth}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Also accepts the field `bias` of version 0.1. Raises `ValueError` for a model without biases."""
        if not fields.get("bias", True):
            raise ValueError('"bias" is false, which version 0.1 could train but this version cannot run')
        return cls(**{name: value for name, value in fields.items() if name != "bias"})

    @property
    def parameter_count(self) -> int:
        width = self.n_embd
        block = 12 * width**2 + 13 * width  # matrices; their biases (9) and two layer norms (4)
        return (self.vocab_size + self.max_seq_len) * width + self.n_layer * block + 2 * width

    def flops_per_token(self, seq_len: int) -> int:
        """6 N + 12 L C T (N parameters without the position table, L layers, C wide, a context of T tokens).

        Source: PaLM, appendix B (Chowdhery et al. 2022). nanoGPT and most others compute MFU in this way. N includes
        the head, which is tied to the embedding. The half of attention that the causal mask removes is counted.
        """
        parameters = self.parameter_count - self.max_seq_len * self.n_embd
        return 6 * parameters + 12 * self.n_layer * self.n_embd * seq_len

    def activation_bytes(self, *, precision: Precision, micro_batch: int, seq_len: int) -> int:
        """Counted per layer and token, in multiples of the width C:

        - inputs and outputs of the two norms: 4
        - query, key, value: 3; attention's output: 1
        - the two inner tensors of the MLP: 8
        - with dropout, two masks of one byte per element

        Under autocast the inputs of the norms are float32 and the rest is in half precision. After the blocks come
        the last norm, and the gradients that the chunked loss holds for it and for the head.
        """
        tokens, width = micro_batch * seq_len, self.n_embd
        size = 4 if precision == "fp32" else 2
        layer = 16 * size * width
        if precision == "autocast":
            layer += 2 * 2 * width  # the two norm inputs are float32, their outputs are kept in half precision
        if self.dropout:
            layer += 2 * width
        head = (3 * tokens + self.vocab_size) * width * size
        return tokens * layer * self.n_layer + head

    def kv_cache_shape(self, batch: int) -> tuple[int, int, int, int, int]:
        return self.n_layer, batch, self.n_head, self.max_seq_len, self.n_embd // self.n_head


class Attention(nn.Module):
    """Multi-head self-attention. `causal=False` gives the attention of an encoder (BERT, ViT)."""

    def __init__(self, config: GPTConfig, layer: int, *, causal: bool = True) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.layer = layer
        self.causal = causal
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.proj = nn.Linear(config.n_embd, config.n_embd)

    def forward(self, x: Tensor, cache: KVCache | None = None, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_head, width // self.n_head)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, head, T, D]
        if cache is not None:
            out = cache.attend(self.layer, query, key, value)
        else:
            dropout = self.dropout if self.training else 0.0
            out = attend(query, key, value, mask, dropout, causal=self.causal)
        out = self.proj(out.transpose(1, 2).reshape(batch, length, width))
        return F.dropout(out, self.dropout) if self.training else out


class MLP(nn.Module):
    """The feed-forward layer: an inner width of 4 C, and GELU in its tanh approximation, as in GPT-2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.fc = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.proj = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(F.gelu(self.fc(x), approximate="tanh"))
        return F.dropout(x, self.dropout) if self.training else x


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): pre-LN, like torch's TransformerEncoderLayer(norm_first=True)."""

    def __init__(self, config: GPTConfig, layer: int = 0, *, causal: bool = True) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd)
        self.attn = Attention(config, layer, causal=causal)
        self.ln_2 = nn.LayerNorm(config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, mask)
        return x + self.mlp(self.ln_2(x))

    def decoding(self, linear: Linear) -> Callable[[Tensor, KVCache, None], Tensor]:
        """`forward` with a cache, for kogpt.model.packed."""
        attn, mlp = self.attn, self.mlp
        layer, heads = attn.layer, attn.n_head
        norm_1, norm_2 = layer_norm(self.ln_1), layer_norm(self.ln_2)
        qkv, attn_proj = linear(attn.qkv.weight, attn.qkv.bias), linear(attn.proj.weight, attn.proj.bias)
        fc, mlp_proj = linear(mlp.fc.weight, mlp.fc.bias, "gelu", "tanh"), linear(mlp.proj.weight, mlp.proj.bias)

        def block(x: Tensor, cache: KVCache, mask: None) -> Tensor:
            batch, length, width = x.shape
            rows = x.view(-1, width)
            parts = qkv(norm_1(rows))
            if length == 1:  # nothing to transpose
                out = cache.attend(layer, *parts.view(batch, 3, heads, 1, -1).unbind(1)).view(-1, width)
            else:
                parts = parts.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
                out = cache.attend(layer, *parts.unbind(0)).transpose(1, 2).reshape(-1, width)
            rows = attn_proj(out).add_(rows)
            return mlp_proj(fc(norm_2(rows))).add_(rows).view(batch, length, width)

        return block


class GPT(Decoder):
    """The model. `forward` computes logits or the loss; `hidden` and `logits` are its two halves."""

    VOCABULARY = ("wte.weight",)
    STACKED: ClassVar[dict[str, int]] = {"attn.qkv.weight": 3}
    config: GPTConfig

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):  # what torch's layers draw for themselves does not count
            self.wte = VocabMatrix(config.vocab_size, config.n_embd)
            self.wpe = nn.Embedding(config.max_seq_len, config.n_embd)
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
            self.ln_f = nn.LayerNorm(config.n_embd)
        self._initialise_all()

    def initialise(self, name: str, parameter: Tensor) -> None:
        if parameter.dim() == 2:
            residual = name.endswith("proj.weight")
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layer) if residual else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)

    def hidden(
        self,
        ids: Tensor,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        length = ids.size(1)
        limit = self.config.max_seq_len if cache is None else cache.room
        if length > limit:
            raise ValueError(f"{length} tokens, but only {limit} fit (max_seq_len {self.config.max_seq_len})")
        if cache is not None:
            positions = cache.positions(length)
        if positions is None:
            positions = torch.arange(length, device=ids.device)
        x = self.wte(ids, "embed") + self.wpe(positions)
        if self.training:
            x = F.dropout(x, self.config.dropout)
        mask = None
        if documents is not None:
            dropout = self.config.dropout if self.training else 0.0
            mask = document_mask(documents, x, self.config.n_embd // self.config.n_head, dropout)
        for block in self.blocks:
            x = block(x, cache, mask)
        if cache is not None:
            cache.advance(length)
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.wte(hidden, "logits")

    def forward(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        hidden = self.hidden(ids, positions, documents, cache)
        return self.logits(hidden) if targets is None else self.wte(hidden, "loss", targets)

    @torch.no_grad()
    def token_nll(self, ids: Tensor, targets: Tensor) -> Tensor:
        return self.wte(self.hidden(ids), "nll", targets)

"""The GPT-2 decoder in one file, in reading order: config, cache, attention, MLP, block, loss, GPT.

In: ids [B, T] int64. Out: logits [B, T, V], or with targets [B, T] int64 (-100 = not scored) the
mean cross-entropy as a float32 scalar.

Architecture (Radford et al. 2019, section 2.3): learned positions, pre-LN blocks, GELU (tanh form),
a layer norm before the head, the head tied to the token embedding. Weights are normal(0, 0.02), those
that write to the residual stream normal(0, 0.02 / sqrt(2 * n_layer)), so that its variance does not
grow with depth.

The loss never holds the logits of the whole batch: rows (positions) go through the head a chunk at a
time, and each chunk's gradient is taken in the forward pass, while its logits are there. Forward and
backward together are the same three matrix products as without chunks; memory is one chunk
[chunk, V] instead of [B * T, V], plus the gradient of the head [V, C] held until backward.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100
"""A target that is not scored (the same number as torch's cross_entropy uses)."""

CHUNK_LOGITS = {"cpu": 1 << 22, "gpu": 1 << 27}
"""Logits that exist at once in the loss, by kind of device: 16 MiB in float32 on a CPU, since glibc takes larger arrays
from the system and gives them back at every chunk (bench/loss.py); 512 MiB on a GPU, where each chunk also costs a pass
over the gradient of the head."""


@dataclass(frozen=True)
class GPTConfig:
    """The shape of a model; the defaults are GPT-2 small's, with the context of the original script."""

    vocab_size: int = 50257
    max_seq_len: int = 256
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)}, must be at least 1"
            for name in ("vocab_size", "max_seq_len", "n_layer", "n_head", "n_embd")
            if getattr(self, name) < 1
        ]
        if self.n_head >= 1 and self.n_embd % self.n_head:
            problems.append(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if not 0.0 <= self.dropout < 1.0:
            problems.append(f"dropout is {self.dropout}, must be in [0, 1)")
        if problems:
            raise ValueError("GPTConfig: " + "; ".join(problems))


class KVCache:
    """Keys and values of the positions seen so far, preallocated: two tensors [layer, B, head, capacity, D].

    Rows of unequal length are padded on the left; `pads` [B] int64 says by how much. Padded slots are
    attended to by nobody but themselves, and row b's slot s has position s - pads[b].
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int | None = None,
        *,
        pads: Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.capacity = config.max_seq_len if capacity is None else capacity
        if self.capacity > config.max_seq_len:
            raise ValueError(f"cache for {self.capacity} ids, but max_seq_len is {config.max_seq_len}")
        head_size = config.n_embd // config.n_head
        shape = (config.n_layer, batch, config.n_head, self.capacity, head_size)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.pads = pads
        self.length = 0

    def positions(self, count: int) -> Tensor:
        """Positions of the next `count` slots: [count], or [B, count] where rows are padded."""
        slots = torch.arange(self.length, self.length + count, device=self.keys.device)
        return slots if self.pads is None else (slots - self.pads[:, None]).clamp(min=0)

    def mask(self, count: int) -> Tensor | None:
        """Which slots the next `count` ids may attend to (True = may): None where causality says it all."""
        if self.pads is None and (self.length == 0 or count == 1):
            return None
        slots = torch.arange(self.length + count, device=self.keys.device)
        queries = slots[self.length :, None]
        allowed = slots <= queries
        if self.pads is not None:
            allowed = allowed & (slots >= self.pads[:, None, None]) | (slots == queries)
            allowed = allowed[:, None]
        return allowed

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store [B, head, count, D] behind what is there; return all of the layer's keys and values."""
        end = self.length + key.size(2)
        self.keys[layer, :, :, self.length : end] = key
        self.values[layer, :, :, self.length : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def full_rows(self) -> list[int]:
        """The rows of a full cache that have no padding to give."""
        if self.pads is None:
            return list(range(self.keys.size(1)))
        return (self.pads == 0).nonzero()[:, 0].tolist()

    def make_room(self, fresh: "KVCache") -> None:
        """Replace the full rows by those of `fresh` (which has no padding); the others move left to close up."""
        full, end = self.full_rows(), self.length
        counts = torch.full((self.keys.size(1),), end, device=self.keys.device)
        if self.pads is not None:
            counts -= self.pads
        counts[full] = fresh.length
        self.length = int(counts.max())
        for mine, new in ((self.keys, fresh.keys), (self.values, fresh.values)):
            mine[:, :, :, : self.length] = mine[:, :, :, end - self.length : end].clone()
            mine[:, full, :, self.length - fresh.length : self.length] = new[:, :, :, : fresh.length]
        self.pads = self.length - counts if (counts < self.length).any() else None


class Attention(nn.Module):
    """Multi-head self-attention; `causal=False` is the encoder's (BERT, ViT), all else being equal."""

    def __init__(self, config: GPTConfig, layer: int, *, causal: bool = True) -> None:
        super().__init__()
        self.n_head = config.n_head
        self.dropout = config.dropout
        self.layer = layer
        self.causal = causal
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor, cache: KVCache | None = None, mask: Tensor | None = None) -> Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.n_head, width // self.n_head)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, head, T, D]
        causal = self.causal and length > 1
        if cache is not None:
            key, value = cache.append(self.layer, key, value)
            causal = causal and mask is None
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(query, key, value, mask, dropout, is_causal=causal)
        out = self.proj(out.transpose(1, 2).reshape(batch, length, width))
        return F.dropout(out, self.dropout, self.training)


class MLP(nn.Module):
    """Four times as wide inside; GELU in the tanh form, as GPT-2."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.proj(F.gelu(self.fc(x), approximate="tanh"))
        return F.dropout(x, self.dropout, self.training)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): pre-LN, as torch's TransformerEncoderLayer(norm_first)."""

    def __init__(self, config: GPTConfig, layer: int = 0, *, causal: bool = True) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.attn = Attention(config, layer, causal=causal)
        self.ln_2 = nn.LayerNorm(config.n_embd, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None = None, mask: Tensor | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache, mask)
        return x + self.mlp(self.ln_2(x))


class _LinearCrossEntropy(torch.autograd.Function):
    """Sum of the cross-entropies of hidden @ weight.T, its gradients taken chunk by chunk going forward.

    Gradients are kept for the sum, not the mean, and multiplied by the incoming gradient in backward:
    in half precision softmax - onehot is in range, divided by the number of rows it would underflow.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int, vocab_size: int) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden)
        grad_weight: Tensor | None = None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        for start in range(0, hidden.size(0), chunk):
            rows = hidden[start : start + chunk]
            wanted = targets[start : start + chunk, None]
            scored = wanted != IGNORED
            wanted = wanted.masked_fill(~scored, 0)
            log_probs = _log_probs(rows, weight, vocab_size)
            total = total - (log_probs.gather(1, wanted) * scored).sum()
            delta = log_probs.exp_()  # softmax - onehot: the gradient with respect to the logits
            delta.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=wide))
            delta = delta.mul_(scored).to(hidden.dtype)
            grad_hidden[start : start + chunk] = delta @ weight
            if grad_weight is None:
                grad_weight = (delta.T @ rows).to(wide)
            elif wide == rows.dtype:
                grad_weight.addmm_(delta.T, rows)
            else:  # half precision: each chunk is a product of its own, summed in float32
                grad_weight.add_(delta.T @ rows)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return (grad_hidden * grads[0]).to(grad_hidden.dtype), grad_weight * grads[0], None, None, None


def _log_probs(rows: Tensor, weight: Tensor, vocab_size: int) -> Tensor:
    """Log-probabilities [R, weight rows] in at least float32; rows of weight that pad it get -inf."""
    logits = (rows @ weight.T).to(torch.promote_types(rows.dtype, torch.float32))
    if weight.size(0) > vocab_size:
        logits[:, vocab_size:] = -math.inf
    return F.log_softmax(logits, dim=-1)


def _chunk_rows(weight: Tensor) -> int:
    """How many rows may have their logits at the same time."""
    return max(128, CHUNK_LOGITS["cpu" if weight.device.type == "cpu" else "gpu"] // weight.size(0))


def chunked_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, chunk: int | None = None, pad_to: int = 1
) -> Tensor:
    """Mean cross-entropy of hidden [N, C] against weight [V, C] at targets [N]; 0 if none is scored.

    `chunk` is the number of rows whose logits exist at once; `pad_to` rounds V up with rows that get no
    probability, since tensor cores want multiples of 64.
    """
    vocab_size = weight.size(0)
    if padding := -vocab_size % pad_to:
        weight = F.pad(weight, (0, 0, 0, padding))
    rows = chunk or _chunk_rows(weight)
    total = _LinearCrossEntropy.apply(hidden, weight, targets, rows, vocab_size)
    return total / (targets != IGNORED).sum().clamp(min=1)


class TokenEmbedding(nn.Module):
    """The one matrix [V, C] of the vocabulary: ids to vectors, and (tied) vectors to logits or losses.

    Every use is a call of this module, because ZeRO 3 brings a partitioned weight together when its
    module is called, and only then.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.vocab_size, config.n_embd))

    def forward(self, x: Tensor, use: str = "embed", targets: Tensor | None = None) -> Tensor:
        if use == "embed":
            return F.embedding(x, self.weight)
        if use == "logits":
            return F.linear(x, self.weight)
        assert targets is not None, use
        hidden: Tensor = x.flatten(0, -2)
        weight: Tensor = self.weight
        if torch.is_autocast_enabled(x.device.type):
            # Cast once, here: inside the loss it would happen once per chunk.
            dtype = torch.get_autocast_dtype(x.device.type)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
        if use == "loss" and torch.is_grad_enabled():
            pad_to = 64 if weight.is_cuda else 1
            return chunked_cross_entropy(hidden, weight, targets.flatten(), pad_to=pad_to)
        losses = self._losses(hidden, weight, targets.flatten())
        if use == "loss":
            return losses.sum() / (targets != IGNORED).sum().clamp(min=1)
        return losses.view(targets.shape)

    def _losses(self, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each row, 0 where the target is ignored; no gradients, a chunk at a time."""
        chunk = _chunk_rows(weight)
        parts = []
        for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            scored = wanted != IGNORED
            log_probs = _log_probs(rows, weight, weight.size(0))
            picked = log_probs.gather(1, wanted.masked_fill(~scored, 0)[:, None])[:, 0]
            parts.append(-picked * scored)
        return torch.cat(parts)


class GPT(nn.Module):
    """The model: `forward` for logits or the loss, `hidden` and `logits` for the parts, see the header."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.wte = TokenEmbedding(config)
        self.wpe = nn.Embedding(config.max_seq_len, config.n_embd)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, bias=config.bias)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        residual = 0.02 / math.sqrt(2 * self.config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=residual if name.endswith("proj.weight") else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def hidden(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """What the head reads: [B, T, C] after the last layer norm. With a cache, ids go on behind it."""
        length = ids.size(1)
        limit = self.config.max_seq_len if cache is None else cache.capacity - cache.length
        if length > limit:
            raise ValueError(f"{length} ids where {limit} fit (max_seq_len {self.config.max_seq_len})")
        if cache is None:
            positions, mask = torch.arange(length, device=ids.device), None
        else:
            positions, mask = cache.positions(length), cache.mask(length)
        x = self.wte(ids) + self.wpe(positions)
        x = F.dropout(x, self.config.dropout, self.training)
        for block in self.blocks:
            x = block(x, cache, mask)
        if cache is not None:
            cache.length += length
        return self.ln_f(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """[.., C] -> [.., V]."""
        return self.wte(hidden, "logits")

    def forward(self, ids: Tensor, targets: Tensor | None = None, cache: KVCache | None = None) -> Tensor:
        hidden = self.hidden(ids, cache)
        return self.logits(hidden) if targets is None else self.wte(hidden, "loss", targets)

    @torch.no_grad()
    def token_losses(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy (nats, float32) of every target [B, T], 0 where it is -100; for evaluation."""
        return self.wte(self.hidden(ids), "losses", targets)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """For the optimizer: matrices and embeddings decay; biases and layer norms do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]

"""The contestants of bench/train.py: one optimizer step of ours and of others, with the same shape and batches.

    ours               this project under DeepSpeed: the real loop of kogpt.train.trainer (reading, agreement of the
                       ranks, metrics, files), without W&B
    plain loop         the same model and a fused AdamW in a bare loop; bf16 by autocast
    nanoGPT's recipe   nanoGPT's README for a CPU, re-implemented in a few lines: fp32, whole logits, AdamW, clipping
                       (but with biases)
    transformers       GPT2LMHeadModel in the same bare loop

In: a `Task`. Out: a `Step`, which makes one optimizer step when it is called.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kogpt.train import distributed  # noqa: E402

distributed.prepare_environment()

from kogpt.common.device import has_bf16  # noqa: E402
from kogpt.common.numerics import allow_tf32  # noqa: E402
from kogpt.data.batch import Batch  # noqa: E402
from kogpt.data.corpus import TokenCorpus  # noqa: E402
from kogpt.data.corpus_writer import CorpusWriter  # noqa: E402
from kogpt.data.loader import Share, TrainBatches  # noqa: E402
from kogpt.model import registry  # noqa: E402
from kogpt.model.config import ModelConfig  # noqa: E402
from kogpt.optim.parameter_groups import parameter_groups  # noqa: E402
from kogpt.tokenizer.wordpiece import Tokenizer  # noqa: E402
from kogpt.train import deepspeed_config, deepspeed_file  # noqa: E402
from kogpt.train.corpora import open_corpora  # noqa: E402
from kogpt.train.deepspeed_config import EnginePlan  # noqa: E402
from kogpt.train.distributed import Ranks  # noqa: E402
from kogpt.train.options import model_config, parse  # noqa: E402
from kogpt.train.setup import settle  # noqa: E402
from kogpt.train.stop_signal import Stop  # noqa: E402
from kogpt.train.trainer import Trainer  # noqa: E402

Step = Callable[[], None]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task:
    """The task of all contestants: `windows` of `context` tokens per step, in micro-batches of `micro`."""

    corpus: Path
    scratch: Path
    shape: tuple[str, ...]
    """The flags of launch/train.py for the shape."""
    context: int
    windows: int
    micro: int

    @property
    def tokens(self) -> int:
        """Tokens per optimizer step."""
        return self.windows * self.context

    @property
    def model(self) -> ModelConfig:
        """The shape with the corpus's vocabulary."""
        options = parse([*self.shape, "--max-seq-len", str(self.context)])
        return model_config(options.model, TokenCorpus.open(self.corpus).vocab_size)

    def flags(self, out: Path, config: Path, steps: int) -> list[str]:
        """A training without evaluations and checkpoints."""
        return [
            *("--corpus", str(self.corpus), "--out", str(out), "--deepspeed-config", str(config), *self.shape),
            *("--steps", str(steps), "--max-seq-len", str(self.context), "--stride", str(self.context)),
            *("--eval-every", "1000000", "--save-every", "1000000", "--compile", "off", "--wandb", "off", "--prompts"),
        ]

    def deepspeed_file(self, stage: int, precision: str) -> Path:
        """The shipped file of a ZeRO stage with this task's batch."""
        shipped = ROOT / "ds_config.json" if stage == 2 else ROOT / "launch" / f"ds_zero{stage}.json"
        content = json.loads(shipped.read_text())
        content |= {"train_batch_size": self.windows, "train_micro_batch_size_per_gpu": self.micro}
        content["optimizer"] = {"type": "AdamW", "params": {"lr": 6e-4, "weight_decay": 0.1}}
        content["bf16"] = {"enabled": precision == "bf16"}
        path = self.scratch / f"zero{stage}-{precision}-{self.windows}.json"
        path.write_text(json.dumps(content))
        return path


def make_corpus(folder: Path, vocab: int = 8000, ids: int = 400_000) -> Path:
    """A corpus of random tokens, because speed does not depend on their meaning."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[LF]", "[SP]", *(f"<0x{n:02X}>" for n in range(256))]
    words = [*special, *(f"w{n}" for n in range(vocab - len(special)))]
    identity = {"name": "none", "version": "1"}
    tokenizer = Tokenizer(words, spacing="original", analyzer=identity, source="random", base_size=len(words))
    writer = CorpusWriter(folder, tokenizer, val_fraction=0.01, settings={})
    numbers = np.random.default_rng(0)
    for article in range(ids // 1000):
        drawn = numbers.integers(len(special), vocab, 998)
        writer.add(id=str(article), source="random", text_sha256=str(article), chars=2000, ids=drawn, unknown_ids=0)
    writer.finish(articles_in=ids // 1000, dropped=[], removed_controls=0, removed_surrogates=0)
    return folder


def ours(
    task: Task,
    ranks: Ranks,
    stop: Stop,
    *,
    stage: Literal[0, 1, 2, 3],
    precision: str,
    compiled: bool,
    bare: bool = False,
) -> Step:
    """A step of the real training loop, its line in metrics.jsonl included.

    On one rank the program takes stage 0 for the others; `bare` leaves the stage as it is asked for.
    """
    path = task.deepspeed_file(stage, precision)
    content = deepspeed_file.read(path)
    if bare:
        plan = plan_of_one_rank(path, content, ranks.device)
    else:
        plan = deepspeed_config.plan(path, content, world_size=1, device=ranks.device.type, has_bf16=True)
    flags = task.flags(task.scratch / f"{path.stem}-{compiled}-{bare}", path, 1_000_000)
    options = parse([*flags, "--compile", "on" if compiled else "off"])
    corpora = open_corpora(options.corpora)
    trainer = Trainer(options, settle(options, content, corpora, ranks), plan, corpora, ranks, stop)
    trainer.prepare()

    def step() -> None:
        record, _ = trainer.train_step()
        trainer.log(record)

    return step


def plan_of_one_rank(path: Path, content: dict[str, Any], device: torch.device) -> EnginePlan:
    """The plan of one rank for a file's own stage, where training would use stage 0: that of one of two ranks.

    A GPU without bf16 gets what training uses there. A CPU without it computes in bf16 nevertheless, slowly.
    """
    windows = content["train_batch_size"]
    ranks = 2 if content["zero_optimization"]["stage"] else 1
    in_bf16 = half(device) == torch.bfloat16
    shared = content | {"train_batch_size": ranks * windows}
    plan = deepspeed_config.plan(path, shared, world_size=ranks, device=device.type, has_bf16=in_bf16)
    return replace(plan, global_batch=windows, engine=plan.engine | {"train_batch_size": windows})


def half(device: torch.device) -> torch.dtype:
    """In which half precision others train where the file of ours says bf16."""
    return torch.bfloat16 if device.type == "cpu" or has_bf16(device) else torch.float16


def plain(task: Task, ranks: Ranks, *, precision: str, compiled: bool) -> Step:
    """Our model, a fused AdamW, nothing else."""
    model = _seeded(lambda: registry.build(task.model), ranks)
    adam = torch.optim.AdamW(parameter_groups(model, 0.1), lr=6e-4, betas=(0.9, 0.95), fused=True)
    call = torch.compile(model) if compiled else model

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(ranks.device.type, half(ranks.device), enabled=precision == "bf16"):
            return call(ids, targets) / targets.numel()

    return _bare_loop(task, ranks, loss, model, adam)


def nanogpt_recipe(task: Task, ranks: Ranks, *, compiled: bool) -> Step:
    """The README's settings for a CPU: full logits, cross_entropy, AdamW with two groups, no autocast."""
    model = _seeded(lambda: registry.build(task.model), ranks)
    adam = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-3, betas=(0.9, 0.99))
    call = torch.compile(model) if compiled else model

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        logits = call(ids)
        return nn.functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1), ignore_index=-1)

    return _bare_loop(task, ranks, loss, model, adam)


def of_transformers(task: Task, ranks: Ranks, *, precision: str, compiled: bool, fused: bool) -> Step:
    """GPT2LMHeadModel with its own loss. It shifts the labels itself, so it gets the tokens as labels."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {name: getattr(task.model, name) for name in ("vocab_size", "n_layer", "n_head", "n_embd")}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    model = _seeded(lambda: GPT2LMHeadModel(GPT2Config(n_positions=task.context, **shape, **quiet)), ranks)
    adam = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), fused=fused or None)
    call = torch.compile(model) if compiled else model

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(ranks.device.type, half(ranks.device), enabled=precision == "bf16"):
            return call(input_ids=ids, labels=ids).loss

    return _bare_loop(task, ranks, loss, model, adam)


def _seeded(build: Callable[[], nn.Module], ranks: Ranks) -> nn.Module:
    torch.manual_seed(1)
    return build().to(ranks.device)


def _bare_loop(task: Task, ranks: Ranks, loss: Loss, model: nn.Module, adam: Any) -> Step:
    """Forward and backward for each micro-batch, clip, update: nothing else."""
    batches, accum = _batches(task, ranks), task.windows // task.micro

    def step() -> None:
        total = torch.zeros((), device=ranks.device)
        for batch in next(batches):
            value = loss(batch.ids, batch.targets) / accum
            value.backward()
            total += value.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        total.item()

    return step


def _batches(task: Task, ranks: Ranks) -> Iterator[Iterator[Batch]]:
    """The training's own micro-batches of each step, in its order."""
    share = Share(task.micro, task.windows // task.micro, 0, 1, ranks.device)
    source = TrainBatches([(TokenCorpus.open(task.corpus), 1.0)], max_seq_len=task.context, seed=1, share=share)
    consumed = 0
    while True:
        yield source.step(consumed).micro_batches
        consumed += task.windows


def start() -> tuple[Ranks, Stop]:
    """One rank in this process, with the numerical settings of launch/train.py."""
    allow_tf32()
    return distributed.start(), Stop()

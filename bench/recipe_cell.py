"""Train one cell of bench/recipe.py in a process of its own. In: a cell, a corpus. Out: bits per character, FLOPs.

    python bench/recipe_cell.py CELL.json CORPUS RUN RESULT.json

The trainer is that of launch/train.py; a run that was interrupted continues. The pieces that kogpt does not have are
patched in here, because what does not help should not be written into kogpt first:

    z-loss      1e-4 * logsumexp(logits)^2 per target beside the cross-entropy (PaLM, section 5)
    cautious    weight decay only where it points the same way as the update (Chen et al. 2025, arXiv 2510.12402)
    head-64     heads of 64 instead of 128 (qwen3)

qwen3 gets the width of its MLP that makes its parameters as many as those of gpt2 (within 2 %).
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, in which preprocess.py has the name of a package

from kogpt.train import distributed  # noqa: E402

distributed.prepare_environment()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor  # noqa: E402

from bench.recipe import CONTEXT, Cell  # noqa: E402
from kogpt.common.files import atomic_write  # noqa: E402
from kogpt.common.log import set_up_logging  # noqa: E402
from kogpt.data.corpus import TokenCorpus  # noqa: E402
from kogpt.model.config import ModelConfig  # noqa: E402
from kogpt.model.gpt2 import GPTConfig  # noqa: E402
from kogpt.model.loss import IGNORED  # noqa: E402
from kogpt.model.qwen3 import Qwen3, Qwen3Config  # noqa: E402
from kogpt.optim.muon import Piece  # noqa: E402
from kogpt.optim.parameter_groups import update_flops  # noqa: E402
from kogpt.train import deepspeed_config, deepspeed_file, setup  # noqa: E402
from kogpt.train.corpora import open_corpora  # noqa: E402
from kogpt.train.engine import TrainingEngine  # noqa: E402
from kogpt.train.options import parse  # noqa: E402
from kogpt.train.stop_signal import Stop  # noqa: E402
from kogpt.train.trainer import Trainer  # noqa: E402


def shape(cell: Cell, vocab_size: int) -> ModelConfig:
    """The model of a cell. qwen3 has as many parameters as gpt2."""
    gpt2 = GPTConfig(vocab_size=vocab_size, max_seq_len=CONTEXT, **GPTConfig.shape_of_depth(cell.depth))
    if cell.arch == "gpt2":
        return gpt2
    fields = Qwen3Config.shape_of_depth(cell.depth)
    if cell.piece == "head-64":
        fields |= {"head_dim": 64, "n_head": cell.depth, "n_kv_head": cell.depth}
    made = Qwen3Config(vocab_size=vocab_size, max_seq_len=CONTEXT, **fields)
    step = 16
    missing = (gpt2.parameter_count - made.parameter_count) / (3 * made.n_embd * made.n_layer)
    made = replace(made, n_inner=made.n_inner + step * round(missing / step))
    return replace(made, tied=False) if cell.piece == "untied" else made


def settings(cell: Cell) -> dict[str, Any]:
    """The DeepSpeed file of a cell."""
    params = {"lr": cell.lr}
    if cell.adam is not None:
        params["adam_lr"] = cell.adam * cell.lr
    return {
        "train_batch_size": cell.batch,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "optimizer": {"type": cell.optimizer, "params": params},
    }


def patch(cell: Cell) -> None:
    """Give this process the shape of the cell, and its piece."""
    patched: Any = setup
    patched.model_config = lambda options, vocab_size, begun=None: shape(cell, vocab_size)
    engine: Any = TrainingEngine
    qwen3: Any = Qwen3
    if cell.piece == "z-loss":
        qwen3.forward = _forward_with_z_loss
    elif cell.piece == "cautious":
        engine.__init__ = _with_cautious_decay(engine.__init__)


def _forward_with_z_loss(self: Qwen3, ids: Tensor, targets: Tensor | None = None, *rest: Any) -> Tensor:
    logits = self.logits(self.hidden(ids, *rest)).float()
    if targets is None:
        return logits
    z = torch.logsumexp(logits, -1)[targets != IGNORED]
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") + 1e-4 * (z**2).sum()


def _with_cautious_decay(whole: Any) -> Any:
    def init(self: TrainingEngine, *rest: Any) -> None:
        whole(self, *rest)
        optimizer: Any = self.optimizer
        group = optimizer.param_groups[0]
        decay, group["weight_decay"] = group["weight_decay"], 0.0
        directions = optimizer.directions

        def cautious(tensors: list[Tensor]) -> Iterator[Piece]:
            for piece in directions(tensors):
                agree = (piece.direction * piece.weight > 0).to(piece.weight.dtype)
                piece.weight.mul_(1.0 - group["lr"] * decay * agree)
                yield piece

        optimizer.directions = cautious

    return init


def train(cell: Cell, corpus: Path, run: Path) -> dict[str, Any]:
    """Train the cell, or go on with it, and return its line."""
    run.mkdir(parents=True, exist_ok=True)
    path = run.with_suffix(".ds.json")
    path.write_text(json.dumps(settings(cell)))
    ranks = distributed.start()
    set_up_logging(ranks.rank)
    steps = math.ceil(cell.tokens / (cell.batch * CONTEXT))
    words = ["--corpus", corpus, "--out", run, "--deepspeed-config", path, "--steps", steps, "--seed", cell.seed]
    words += ["--schedule", "wsd", "--warmup", cell.warmup, "--decay", cell.decay, "--min-lr-ratio", "0"]
    words += ["--attend", "article" if cell.piece == "documents" else "window"]
    words += ["--eval-every", steps, "--save-every", 200, "--keep", 1, "--prompts", "--wandb", "off"]
    options = parse([str(word) for word in words])
    opened = TokenCorpus.open(corpus)
    patch(cell)
    corpora = open_corpora(options.corpora, (), None)
    made = setup.settle(options, deepspeed_file.read(path), corpora, ranks)
    plan = deepspeed_config.plan(
        path, made.content, world_size=1, device=ranks.device.type, has_bf16=distributed.all_have_bf16(ranks)
    )
    if Trainer(options, made, plan, corpora, ranks, Stop()).train():
        raise SystemExit("interrupted")
    config = shape(cell, opened.vocab_size)
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    tokens = records[-1]["tokens"]
    update = update_flops(config) if cell.optimizer == "Muon" else 0
    return {
        "cell": asdict(cell),
        "bits_per_char": records[-1]["val_bits_per_char"],
        "tokens": tokens,
        "flops": tokens * config.flops_per_token(CONTEXT) + steps * update,
        "parameters": config.parameter_count,
        "seconds": sum(record["step_s"] for record in records),
    }


def main() -> None:
    """Train the cell that the command line names."""
    cell, corpus, run, result = (Path(word) for word in sys.argv[1:])
    found = train(Cell(**json.loads(cell.read_text())), corpus, run)
    with atomic_write(result) as file:
        file.write(json.dumps(found).encode())
    distributed.leave(0)


if __name__ == "__main__":
    main()

"""Training throughput on this machine: ours against others, interleaved, same shape, same batches.

    python bench/train.py speed              # ours under DeepSpeed, a plain loop, nanoGPT's recipe, transformers
    python bench/train.py speed --compiled   # ... each also under torch.compile (minutes to compile)
    python bench/train.py ranks              # 2 ranks against 1
    python bench/train.py memory             # peak memory per rank by ZeRO stage against the formula

Speed is measured in rounds: in every round each contestant makes `--steps` optimizer steps, in another order, and
ratios are taken within a round, so that what else the machine does hits all alike. Times are CPU seconds of this
process (all its threads), which a busy machine distorts less than wall time; run it with OMP_NUM_THREADS=1, or on an
idle machine. The median ratio and its quartiles are printed. Ours is the real loop of kogpt.trainer (reading, agreement
of ranks, metrics, files), without W&B. Contestants:

    ours ...           this project under DeepSpeed
    plain ...          the same model and optimizer in a bare loop on the same batches
    nanoGPT recipe     what nanoGPT's README says for a CPU, re-implemented in a few lines: fp32, whole logits, AdamW,
                       clipping, dropout 0
    transformers ...   GPT2LMHeadModel in the same bare loop
    defaults           ours: ds_config.json (bf16; its ZeRO 2 is stage 0 on one rank); transformers: fp32, eager,
                       torch's AdamW as it comes
"""

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "launch")]

from kogpt import distributed  # noqa: E402

distributed.prepare_environment()

import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from kogpt import deepspeed_config  # noqa: E402
from kogpt.corpus import CorpusWriter, TokenCorpus  # noqa: E402
from kogpt.model import GPT, GPTConfig, parameter_groups  # noqa: E402

SHAPE = {"n_layer": 4, "n_head": 4, "n_embd": 256}  # --depth 4
CONTEXT, MICRO = 256, 4
Step = Callable[[], None]


@dataclass(frozen=True)
class Bench:
    """What to measure."""

    what: tyro.conf.Positional[str]
    """speed, ranks or memory."""
    rounds: int = 8
    """Rounds, in each of which every contestant runs."""
    steps: int = 4
    """Optimizer steps of a contestant in a round."""
    compiled: bool = False
    """Also everything under torch.compile."""


def make_corpus(folder: Path, vocab: int = 8000, ids: int = 400_000) -> Path:
    """Ids drawn at random: speed does not depend on what they say."""
    import numpy as np

    from kogpt.tokenizer.wordpiece import Tokenizer

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


def deepspeed_file(path: Path, stage: int, precision: str, ranks: int = 1) -> Path:
    """The project's ds_config.json with the bench's batch: 4 windows of 256 per rank."""
    content = json.loads((ROOT / "launch" / f"ds_zero{stage}.json").read_text())
    content |= {"train_batch_size": MICRO * ranks, "train_micro_batch_size_per_gpu": MICRO}
    content["bf16"] = {"enabled": precision == "bf16"}
    path.write_text(json.dumps(content))
    return path


def flags(corpus: Path, out: Path, config: Path, steps: int) -> list[str]:
    """A training that only steps."""
    return [
        *("--corpus", str(corpus), "--out", str(out), "--deepspeed-config", str(config), "--depth", "4"),
        *("--steps", str(steps), "--max-seq-len", str(CONTEXT), "--wandb", "off", "--prompts"),
        *("--eval-every", "1000000", "--save-every", "1000000", "--compile", "off"),
    ]


def ours(corpus: Path, scratch: Path, stage: int, precision: str, compiled: bool) -> Step:
    """A step of the real training loop, its line in metrics.jsonl included."""
    import train

    from kogpt.trainer import Trainer

    name = f"{stage}-{precision}-{compiled}"
    config = deepspeed_file(scratch / f"{name}.json", stage, precision)
    options = train.parse(flags(corpus, scratch / name, config, 1_000_000))
    plan = deepspeed_config.plan(config, deepspeed_config.read(config), world_size=1, device="cpu", has_bf16=True)
    trainer = Trainer(options, plan, TokenCorpus.open(corpus), RANKS, STOP)
    trainer.prepare()
    if compiled:
        trainer.engine.compile()

    def step() -> None:
        record, _ = trainer.train_step()
        trainer.log(record, [])

    return step


def bare_loop(loss: Callable[[Tensor, Tensor], Tensor], model: nn.Module, adam: Any, batches: Iterator[Any]) -> Step:
    """Forward, backward, clip, update: nothing else."""

    def step() -> None:
        ids, targets = next(batches)
        value = loss(ids, targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        value.item()

    return step


def plain(vocab: int, batches: Iterator[Any], precision: str, compiled: bool) -> Step:
    """Our model with a fused AdamW; bf16 by autocast."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab, max_seq_len=CONTEXT, **SHAPE))
    adam = torch.optim.AdamW(parameter_groups(model, 0.1), lr=6e-4, betas=(0.9, 0.95), fused=True)
    call = torch.compile(model) if compiled else model

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return call(ids, targets)

    return bare_loop(loss, model, adam, batches)


def nanogpt_recipe(vocab: int, batches: Iterator[Any], compiled: bool) -> Step:
    """The README's settings for a CPU: full logits, cross_entropy, AdamW with two groups, no autocast."""
    torch.manual_seed(1)
    model = GPT(GPTConfig(vocab, max_seq_len=CONTEXT, bias=False, **SHAPE))
    adam = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-3, betas=(0.9, 0.99))
    call = torch.compile(model) if compiled else model

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        logits = call(ids)
        return nn.functional.cross_entropy(logits.view(-1, logits.size(-1)), targets.reshape(-1), ignore_index=-1)

    return bare_loop(loss, model, adam, batches)


def of_transformers(vocab: int, batches: Iterator[Any], precision: str, compiled: bool, fused: bool) -> Step:
    """GPT2LMHeadModel with its own loss; labels shift inside, so it gets the ids themselves."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(1)
    shape = {"n_layer": SHAPE["n_layer"], "n_head": SHAPE["n_head"], "n_embd": SHAPE["n_embd"]}
    quiet = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_positions=CONTEXT, **shape, **quiet))
    adam = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), fused=fused or None)
    call = torch.compile(model) if compiled else model

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return call(input_ids=ids, labels=ids).loss

    return bare_loop(loss, model, adam, batches)


def batches_of(corpus: TokenCorpus) -> Iterator[tuple[Tensor, Tensor]]:
    """The training's own batches, in its order."""
    from kogpt.batches import Share, TrainBatches

    source = TrainBatches(corpus, max_seq_len=CONTEXT, seed=1, share=Share(MICRO, 1, 0, 1, RANKS.device))
    consumed = 0
    while True:
        yield from source.step(consumed)
        consumed += MICRO


def speed(bench: Bench, scratch: Path) -> None:
    """Interleaved rounds; each line is a ratio of tokens/s that has a goal."""
    corpus = make_corpus(scratch / "corpus")
    opened = TokenCorpus.open(corpus)
    vocab, batches = opened.vocab_size, batches_of(opened)
    contestants: dict[str, Step] = {
        "ours, fp32": ours(corpus, scratch, 2, "fp32", False),
        "ours, default (bf16)": ours(corpus, scratch, 2, "bf16", False),
        "plain, fp32": plain(vocab, batches, "fp32", False),
        "plain, bf16": plain(vocab, batches, "bf16", False),
        "nanoGPT recipe": nanogpt_recipe(vocab, batches, False),
        "transformers, fp32": of_transformers(vocab, batches, "fp32", False, True),
        "transformers, bf16": of_transformers(vocab, batches, "bf16", False, True),
        "transformers, default": of_transformers(vocab, batches, "fp32", False, False),
    }
    pairs = [
        ("ours, fp32", "plain, fp32", 0.97),
        ("ours, default (bf16)", "plain, bf16", 0.97),
        ("ours, fp32", "nanoGPT recipe", 1.0),
        ("ours, fp32", "transformers, fp32", 1.0),
        ("ours, default (bf16)", "transformers, bf16", 1.0),
        ("ours, default (bf16)", "transformers, default", 1.5),
    ]
    if bench.compiled:
        contestants |= {
            "ours, fp32, compiled": ours(corpus, scratch, 2, "fp32", True),
            "plain, fp32, compiled": plain(vocab, batches, "fp32", True),
            "transformers, fp32, compiled": of_transformers(vocab, batches, "fp32", True, True),
        }
        pairs += [
            ("ours, fp32, compiled", "plain, fp32, compiled", 0.97),
            ("ours, fp32, compiled", "transformers, fp32, compiled", 1.0),
        ]
    times = _rounds(contestants, bench)
    tokens = MICRO * CONTEXT * bench.steps
    _print_speeds(times, tokens)
    _print_ratios(times, pairs)


def _rounds(contestants: dict[str, Step], bench: Bench) -> dict[str, list[float]]:
    """CPU seconds of each contestant in each round; the first round warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    shuffle = random.Random(0)
    for number in range(bench.rounds + 1):
        for name in shuffle.sample(list(contestants), len(contestants)):
            started = time.process_time()
            for _ in range(bench.steps):
                contestants[name]()
            if number:
                times[name].append(time.process_time() - started)
    return times


def _print_speeds(times: dict[str, list[float]], tokens: int) -> None:
    table = Table("contestant", "tokens per CPU second (median)", "best")
    for name, seconds in sorted(times.items(), key=lambda entry: statistics.median(entry[1])):
        table.add_row(name, f"{tokens / statistics.median(seconds):,.0f}", f"{tokens / min(seconds):,.0f}")
    Console().print(table)


def _print_ratios(times: dict[str, list[float]], pairs: list[tuple[str, str, float]]) -> None:
    table = Table("faster?", "against", "ratio (median)", "quartiles", "goal")
    for mine, theirs, goal in pairs:
        ratios = [b / a for a, b in zip(times[mine], times[theirs], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        middle = statistics.median(ratios)
        verdict = "met" if middle >= goal else "MISSED"
        table.add_row(mine, theirs, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{goal} {verdict}")
    Console().print(table)


def _train(ranks: int, arguments: list[str]) -> None:
    command = [sys.executable, str(Path(sys.executable).with_name("deepspeed")), "-q", "--num_accelerators", str(ranks)]
    command += ["--master_port", str(random.randint(20000, 30000)), str(ROOT / "launch" / "train.py"), *arguments]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    subprocess.run(command, check=True, env=environment | {"DS_ACCELERATOR": "cpu"}, capture_output=True)


def _records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def ranks(bench: Bench, scratch: Path) -> None:
    """The same global batch on one rank with all cores and on two with half of them each, in turn."""
    corpus = make_corpus(scratch / "corpus")
    ratios = []
    for number in range(max(2, bench.rounds // 2)):
        seconds = {}
        for count in (1, 2) if number % 2 else (2, 1):
            config = deepspeed_file(scratch / "ranks.json", 2, "bf16", ranks=2)
            run = scratch / f"{number}-{count}"
            _train(count, flags(corpus, run, config, 20))
            seconds[count] = statistics.median(record["step_s"] for record in _records(run)[5:])
        ratios.append(seconds[1] / seconds[2])
        print(f"round {number}: 1 rank {seconds[1]:.3f} s per step, 2 ranks {seconds[2]:.3f} s, {ratios[-1]:.2f} x")
    print(f"2 ranks against 1: {statistics.median(ratios):.2f} x")


def memory(bench: Bench, scratch: Path) -> None:
    """Resident memory per rank over that of a tiny model, by stage, against the formula; bf16, depth 8, 2 ranks."""
    from kogpt.config import shape_of_depth
    from kogpt.flops import memory_per_rank, parameter_count

    corpus = make_corpus(scratch / "corpus")
    table = Table("stage", "ranks", "bytes per parameter, measured", "formula", "with activations")
    for count in (1, 2):
        for stage in (0, 1, 2, 3):
            config = deepspeed_file(scratch / "memory.json", stage, "bf16", ranks=count)
            peaks = []
            for depth in (1, 8):
                run = scratch / f"m{stage}-{count}-{depth}"
                arguments = [*flags(corpus, run, config, 4), "--depth", str(depth)]
                _train(count, arguments)
                peaks.append(max(record["memory_gib_rank0"] for record in _records(run)) * 2**30)
            small, large = (GPTConfig(8000, max_seq_len=CONTEXT, **shape_of_depth(depth)) for depth in (1, 8))
            more = parameter_count(large) - parameter_count(small)
            need = [
                memory_per_rank(
                    config_of,
                    stage=stage,
                    world_size=count,
                    precision="bf16",
                    micro_batch=MICRO,
                    seq_len=CONTEXT,
                )
                for config_of in (small, large)
            ]
            formula = {0: 16, 1: 4 + 12 / count, 2: 2 + 14 / count, 3: 16 / count}[stage]
            table.add_row(
                str(stage),
                str(count),
                f"{(peaks[1] - peaks[0]) / more:.1f}",
                f"{formula:.1f}",
                f"{(need[1].total - need[0].total) / more:.1f}",
            )
    Console().print(table)


if __name__ == "__main__":
    asked = tyro.cli(Bench, description=__doc__)
    with tempfile.TemporaryDirectory() as folder:
        if asked.what == "speed":
            RANKS, STOP = distributed.start(), distributed.Stop()
            speed(asked, Path(folder))
        else:
            {"ranks": ranks, "memory": memory}[asked.what](asked, Path(folder))

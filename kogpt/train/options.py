"""The options of a training run: frozen dataclasses that are also the command line of launch/train.py.

In: flags. Out: `TrainOptions` (validated on construction, with all problems in one `UserError`) and `model_config`.
Batch sizes, precision, ZeRO stage, clipping, and the optimizer are in kogpt.train.deepspeed_config.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kogpt.common.errors import UserError
from kogpt.common.flags import FilePath, Location, OptionalAmount, OptionalCount, OptionalPath, Text
from kogpt.common.ranges import Count, Range, Share, ShareBelowOne
from kogpt.common.ranges import problems as outside
from kogpt.model import registry
from kogpt.model.config import ModelConfig

PROJECT = Path(__file__).resolve().parents[2]
DEMO_CORPUS = PROJECT / "demo" / "corpus"

PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"n_layer": 4, "n_head": 4, "n_embd": 128},
    "small": {"n_layer": 12, "n_head": 12, "n_embd": 768},
    "medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024},
    "large": {"n_layer": 36, "n_head": 20, "n_embd": 1280},
    "xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600},
}
"""Shapes of GPT-2. small to xl are the published ones. tiny trains in minutes on a laptop's CPU."""

Preset = Annotated[
    Literal["tiny", "small", "medium", "large", "xl"] | None,
    tyro.conf.arg(metavar="{tiny,small,medium,large,xl}", help_behavior_hint=""),
]
Arch = Annotated[Literal["gpt2", "qwen3"] | None, tyro.conf.arg(metavar="{gpt2,qwen3}", help_behavior_hint="")]
DEFAULT_ARCH = "gpt2"
DEFAULT_DEPTH = 4
"""For an architecture without presets."""
DEFAULT_STEPS = 200
DEFAULT_STRIDE = 128


@dataclass(frozen=True)
class ModelOptions:
    """Architecture and size of the model."""

    arch: Arch = None
    """Architecture: gpt2, or qwen3 (rotary positions, RMSNorm, SwiGLU). Default: that of the checkpoint in --out, or
    gpt2."""
    preset: Preset = None
    """Size: tiny, or small (124M) to xl (1.5B) of GPT-2. Default: that of the checkpoint in --out, or tiny for gpt2."""
    depth: OptionalCount = None
    """Size by number of layers, with a width of 64 per layer (12 is small). Default for qwen3: 4."""
    kv_heads: OptionalCount = None
    """qwen3: number of heads of the keys and values, for grouped-query attention. Default: that of the queries."""
    untied_head: bool = False
    """qwen3: give the head a matrix of its own instead of the embedding's."""
    max_seq_len: Annotated[OptionalCount, Range(2)] = None
    """Context length in tokens. Default: that of the checkpoint in --out, or 256."""
    dropout: ShareBelowOne = 0.0
    """Dropout probability. Use about 0.1 if a small corpus is read many times."""


@dataclass(frozen=True)
class ScheduleOptions:
    """Length of the training, and the learning rate over time. Its peak is `lr` in the DeepSpeed file."""

    steps: OptionalCount = None
    """Length in optimizer steps. Default: 200, unless --tokens or --epochs is given."""
    tokens: OptionalAmount = None
    """Length in tokens, for example 1e9."""
    epochs: OptionalAmount = None
    """Length in passes over the corpus."""
    schedule: Literal["cosine", "wsd"] = "cosine"
    """cosine: falls over the whole training. wsd: stays at the peak and falls linearly at the end."""
    warmup: Share = 0.05
    """Share of the steps for the warm-up, in which the learning rate rises linearly from 0."""
    decay: Share = 0.2
    """Share of the steps at the end in which the learning rate of wsd falls."""
    min_lr_ratio: Share = 0.1
    """Final learning rate as a share of the peak."""


@dataclass(frozen=True)
class RunOptions:
    """Input, output, and what happens during the training."""

    corpus: OptionalPath = None
    """Token corpus folder, as preprocess/run.py writes it. Default: the corpus of `make demo`."""
    out: OptionalPath = None
    """Run folder for checkpoints, metrics.jsonl, curves.png, run.json, and W&B files. Default: runs/SIZE."""
    deepspeed_config: FilePath = PROJECT / "ds_config.json"
    """JSON file with batch sizes, ZeRO stage, precision, gradient clipping, and optimizer. Variants are in launch/."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 1
    """Seed of the initialization, the order of the data, and dropout."""
    resume: Location = "auto"
    """auto: continue from the newest complete checkpoint in --out. never: refuse if there is one. Or a step folder."""
    eval_every: Count = 100
    """Steps between evaluations. There is also one at each checkpoint and at the end."""
    save_every: Count = 100
    """Steps between checkpoints. There is also one at the end and after Ctrl-C or SIGTERM."""
    keep: Count = 3
    """Number of newest checkpoints to keep, besides the best."""
    stride: OptionalCount = None
    """Tokens between the starts of evaluation windows. Smaller is more exact and slower. Default: 128, or the context
    if that is shorter."""
    prompts: tuple[str, ...] = ("대한민국은", "모든 국민은", "이 법은")
    """Prompts that each evaluation continues greedily, to show progress."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU with a C compiler."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: a third more time, far less memory."""
    deterministic: bool = False
    """The same bits from the same command, also on a GPU. Slower there; a CPU is deterministic anyway."""
    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """auto: online if you are logged in to W&B, offline otherwise. It never asks."""
    wandb_project: Text = "kogpt"
    """W&B project."""
    wandb_artifact: bool = False
    """Upload the last checkpoint as a W&B artifact at the end."""


@dataclass(frozen=True)
class TrainOptions:
    """The options of launch/train.py."""

    model: tyro.conf.OmitArgPrefixes[ModelOptions] = field(default_factory=ModelOptions)
    schedule: tyro.conf.OmitArgPrefixes[ScheduleOptions] = field(default_factory=ScheduleOptions)
    run: tyro.conf.OmitArgPrefixes[RunOptions] = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        if problems := [*_model_problems(self.model), *_schedule_problems(self.schedule), *_run_problems(self.run)]:
            raise UserError("\n".join(problems))

    @property
    def corpus(self) -> Path:
        """The corpus folder: --corpus, or the demo's."""
        if self.run.corpus is not None:
            return self.run.corpus
        if not (DEMO_CORPUS / "manifest.json").exists():
            raise UserError(
                "there is no --corpus and no demo corpus; run `make demo`, "
                "or create a corpus with preprocess/run.py and name it with --corpus."
            )
        return DEMO_CORPUS

    @property
    def shape_name(self) -> str:
        """The model as the user named it, for the default run folder."""
        model = self.model
        size = f"depth-{model.depth}" if model.depth is not None else model.preset or ("" if model.arch else "tiny")
        return "-".join(filter(None, (model.arch, size)))

    @property
    def out(self) -> Path:
        """The run folder: --out, or a folder in runs/ of the project."""
        return self.run.out or PROJECT / "runs" / self.shape_name


def _model_problems(options: ModelOptions) -> list[str]:
    problems = outside(ModelOptions, vars(options))
    if options.preset is not None and options.depth is not None:
        problems.append(f"--preset {options.preset} and --depth {options.depth} both set the size; give one.")
    if options.preset is not None and options.arch not in (None, "gpt2"):
        problems.append(f"--preset {options.preset} is a shape of gpt2; give --depth with --arch {options.arch}.")
    return problems


def _schedule_problems(options: ScheduleOptions) -> list[str]:
    lengths = {name: getattr(options, name) for name in ("steps", "tokens", "epochs")}
    given = {name: value for name, value in lengths.items() if value is not None}
    problems = outside(ScheduleOptions, vars(options))
    if len(given) > 1:
        named = " and ".join(f"--{name} {value}" for name, value in given.items())
        problems.append(f"{named} both set the length; give one.")
    if options.schedule == "wsd" and options.warmup + options.decay > 1:
        problems.append(f"--warmup {options.warmup} and --decay {options.decay} add up to more than 1; lower one.")
    return problems


def _run_problems(options: RunOptions) -> list[str]:
    problems = outside(RunOptions, vars(options))
    if not options.deepspeed_config.is_file():
        problems.append(f"--deepspeed-config {options.deepspeed_config} does not exist; name a JSON file.")
    if options.out is not None and (
        file := next((p for p in (options.out, *options.out.parents) if p.is_file()), None)
    ):
        problems.append(f"--out {options.out} cannot be a folder: {file} is a file; name another.")
    if options.resume not in ("auto", "never") and not Path(options.resume).is_dir():
        problems.append(f"--resume {options.resume} is neither auto, never nor a checkpoint folder.")
    return problems


def stride(options: RunOptions, max_seq_len: int) -> int:
    """--stride, or what fits the context."""
    if options.stride is None:
        return min(DEFAULT_STRIDE, max_seq_len)
    if options.stride > max_seq_len:
        raise UserError(f"--stride {options.stride} is larger than --max-seq-len {max_seq_len}; give at most that.")
    return options.stride


def model_config(options: ModelOptions, vocab_size: int, begun: dict[str, Any] | None = None) -> ModelConfig:
    """The model for a vocabulary; `begun` is `ModelConfig.to_dict` of the one to go on with, for what no flag names.

    Raises `UserError` for a flag that the architecture lacks, or a value that it cannot have.
    """
    begun = begun or {}
    arch = options.arch or ("gpt2" if options.preset is not None else begun.get("arch", DEFAULT_ARCH))
    config = registry.ARCHITECTURES[arch].config
    if begun.get("arch") == arch:
        shape = dict(begun)
    else:
        shape = {"arch": arch, **(PRESETS["tiny"] if arch == "gpt2" else config.shape_of_depth(DEFAULT_DEPTH))}
    if options.preset is not None:
        shape |= PRESETS[options.preset]
    elif options.depth is not None:
        shape |= config.shape_of_depth(options.depth)
    for flag, name, value in (
        ("--max-seq-len", "max_seq_len", options.max_seq_len),
        ("--kv-heads", "n_kv_head", options.kv_heads),
        ("--untied-head", "tied", False if options.untied_head else None),
    ):
        if value is not None and name not in config.__dataclass_fields__:
            raise UserError(f"{flag} is not a setting of {arch}; remove it, or give --arch qwen3.")
        shape |= {} if value is None else {name: value}
    return registry.config_from_dict(shape | {"vocab_size": vocab_size, "dropout": options.dropout})


def length_in_steps(options: ScheduleOptions, *, tokens_per_step: int, windows: int, global_batch: int) -> int:
    """The training's length: as given, or enough steps for the tokens or epochs asked for (rounded up)."""
    if options.tokens is not None:
        return -int(-options.tokens // tokens_per_step)
    if options.epochs is not None:
        return -int(-options.epochs * windows // global_batch)
    return options.steps or DEFAULT_STEPS


def parse(argv: Sequence[str], description: str | None = None) -> TrainOptions:
    """The options of a command line, without the --local_rank that the `deepspeed` command puts in: RANK says it too.

    Raises:
        UserError: with every problem of the flags.
        SystemExit: tyro's, for a flag that does not exist and for --help.
    """
    argv = [word for word in argv if not word.startswith(("--local_rank", "--local-rank"))]
    return tyro.cli(TrainOptions, args=argv, prog="train.py", description=description)


def together(*checks: Callable[[], Any]) -> list[Any]:
    """The results of all checks, or one `UserError` with the problems of all that failed."""
    results, problems = [], []
    for check in checks:
        try:
            results.append(check())
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return results

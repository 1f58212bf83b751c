"""The options of a training run: frozen dataclasses that are also the command line of launch/train.py.

In: flags. Out: `TrainOptions` (validated on construction, with all problems in one `UserError`) and `model_config`.
Precision, ZeRO stage, and clipping are in the DeepSpeed file (kogpt.train.deepspeed_config). kogpt.train.setup decides
what no flag names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kogpt.common.errors import UserError
from kogpt.common.flags import (
    FilePath,
    Location,
    OptionalAmount,
    OptionalCount,
    OptionalPath,
    OptionalShare,
    OptionalSpan,
    OptionalTexts,
    Text,
    WeightedPath,
    WeightedPaths,
    flowing_help,
)
from kogpt.common.ranges import Count, Range, ShareBelowOne
from kogpt.common.ranges import problems as outside
from kogpt.model import registry
from kogpt.model.config import ModelConfig
from kogpt.train.recipe import ARCH, DEPTH

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT_FILE = PROJECT / "ds_config.json"
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
AttendName = Annotated[
    Literal["article", "window"] | None, tyro.conf.arg(metavar="{article,window}", help_behavior_hint="")
]
ScheduleName = Annotated[Literal["cosine", "wsd"] | None, tyro.conf.arg(metavar="{cosine,wsd}", help_behavior_hint="")]
DEFAULT_STRIDE = 128
PROMPTS = ("대한민국은", "모든 국민은", "이 법은")
QUESTIONS = ("안녕하세요?", "대한민국의 수도는 어디인가요?", "잠이 오지 않을 때는 어떻게 하면 좋을까요?")


@flowing_help
@dataclass(frozen=True)
class ModelOptions:
    """Architecture and size of the model."""

    arch: Arch = None
    """Architecture: qwen3 (rotary positions, RMSNorm, SwiGLU), or gpt2. Default: that of the checkpoint in --out, or
    qwen3."""
    preset: Preset = None
    """Size of a gpt2, which it implies: tiny, or small (124M) to xl (1.5B) of GPT-2."""
    depth: OptionalCount = None
    """Size by number of layers, with a width of 64 per layer (12 is as large as GPT-2 small). It also sets everything
    that is not given: batch, learning rate, and length. Default: that of the checkpoint in --out, or 4."""
    kv_heads: OptionalCount = None
    """qwen3: number of heads of the keys and values, for grouped-query attention. Default: that of the queries."""
    untied_head: bool = False
    """qwen3: give the head a matrix of its own instead of the embedding's."""
    max_seq_len: Annotated[OptionalCount, Range(2)] = None
    """Context length in tokens. Default: that of the checkpoint in --out, or 256. That of qwen3 may grow."""
    dropout: ShareBelowOne = 0.0
    """Dropout probability. Use about 0.1 if a small corpus is read many times."""


@flowing_help
@dataclass(frozen=True)
class ScheduleOptions:
    """Length of the training, and the learning rate over time. Defaults: those of the checkpoint in --out; for a new
    run, by size."""

    steps: OptionalCount = None
    """Length in optimizer steps. Default for a new run: 20 tokens per parameter, at most 4 epochs (with --init: 2
    epochs)."""
    tokens: OptionalAmount = None
    """Length in tokens, for example 1e9."""
    epochs: OptionalAmount = None
    """Length in passes over the corpus."""
    schedule: ScheduleName = None
    """cosine: falls over the whole training. wsd: stays at the peak and falls linearly at the end. Default: wsd."""
    warmup: OptionalShare = None
    """Share of the steps for the warm-up, in which the learning rate rises linearly from 0. Default: 0.05."""
    decay: OptionalShare = None
    """Share of the steps at the end in which the learning rate of wsd falls. Default: 0.4, or 0.5 with --init."""
    min_lr_ratio: OptionalShare = None
    """Final learning rate as a share of the peak. Default: 0."""


@flowing_help
@dataclass(frozen=True)
class RunOptions:
    """Input, output, and what happens during the training."""

    corpus: WeightedPaths = ()
    """Token corpus folder, as preprocess/run.py writes it, or several with their shares of the tokens (wiki=0.7
    news=0.3). Default: the corpus of `make demo`."""
    mix: WeightedPaths = ()
    """Token corpora to replay beside --corpus, each with its share of the windows (wiki=0.1)."""
    attend: AttendName = None
    """What a token may attend to: the earlier ones of its own article, or all earlier ones of its window. Default: that
    of the checkpoint in --out, or article for qwen3. A conversation never attends to another one."""
    max_repeat: OptionalCount = None
    """Largest number of times that a corpus is read. The others then take its share. Default: no limit."""
    init: OptionalPath = None
    """Start from the weights of this run (its best checkpoint) or step folder, to fine-tune it. A run that has begun
    does not read it again."""
    out: OptionalPath = None
    """Run folder for checkpoints, metrics.jsonl, curves.png, run.json, and W&B files. Default: runs/SIZE."""
    deepspeed_config: FilePath = DEFAULT_FILE
    """JSON file with micro-batch, ZeRO stage, precision, and gradient clipping. It may also have an optimizer and a
    batch; --depth sets them otherwise. Variants are in launch/."""
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
    """Tokens between the starts of evaluation windows. A smaller number is more exact and slower. Default: 128, or the
    context if that is shorter."""
    eval_tasks: OptionalPath = None
    """Multiple-choice items (.jsonl, .jsonl.gz), such as KoBEST, that each evaluation answers, as many as take at most
    2 % of the training's FLOPs."""
    prompts: OptionalTexts = None
    """Prompts that each evaluation continues greedily, to show progress; with conversations, questions that it answers.
    Default: three of either."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on a GPU with a C compiler."""
    checkpoint_activations: bool = False
    """Compute activations again in the backward pass instead of keeping them: a third more time, far less memory."""
    deterministic: bool = False
    """Get the same numbers from the same command on a GPU as well. It is slower; a CPU is deterministic anyway."""
    profile: OptionalSpan = None
    """Record these steps, such as 10:13: a trace for ui.perfetto.dev in --out, and the ten costliest operations. Rank 0
    only."""
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
        if problems := [
            *_model_problems(self.model),
            *_schedule_problems(self.schedule),
            *_run_problems(self.run),
        ]:
            raise UserError("\n".join(problems))

    @property
    def corpora(self) -> tuple[WeightedPath, ...]:
        """The corpus folders: --corpus, or the demo's."""
        if self.run.corpus:
            return self.run.corpus
        if not (DEMO_CORPUS / "manifest.json").exists():
            raise UserError(
                "there is no --corpus and no demo corpus; run `make demo`, "
                "or create a corpus with preprocess/run.py and name it with --corpus."
            )
        return (WeightedPath(DEMO_CORPUS),)

    @property
    def shape_name(self) -> str:
        """The model as the user named it, for the default run folder."""
        model = self.model
        depth = model.depth or (DEPTH if model.arch is None else 0)
        size = model.preset or (f"depth-{depth}" if depth else None)
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
    return problems


def _run_problems(options: RunOptions) -> list[str]:
    problems = outside(RunOptions, vars(options))
    if not options.deepspeed_config.is_file():
        problems.append(f"--deepspeed-config {options.deepspeed_config} does not exist; name a JSON file.")
    if options.eval_tasks is not None and not options.eval_tasks.is_file():
        problems.append(f"--eval-tasks {options.eval_tasks} does not exist; name a file of multiple-choice items.")
    if options.out is not None and (
        file := next((p for p in (options.out, *options.out.parents) if p.is_file()), None)
    ):
        problems.append(f"--out {options.out} cannot be a folder: {file} is a file; name another.")
    if len(options.corpus) > 1 and (bare := [str(one) for one in options.corpus if one.share is None]):
        problems.append(f"--corpus {' '.join(bare)} has no share; give each of several one, such as {bare[0]}=0.5.")
    if bare := [str(one) for one in options.mix if one.share is None]:
        problems.append(f"--mix {' '.join(bare)} has no share; give one, such as {bare[0]}=0.1.")
    if (mixed := sum(one.share or 0 for one in options.mix)) >= 1:
        problems.append(f"--mix takes {mixed:g} of the windows and leaves nothing to --corpus; give less than 1.")
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
    arch = options.arch or ("gpt2" if options.preset is not None else begun.get("arch", ARCH))
    config = registry.ARCHITECTURES[arch].config
    if begun.get("arch") == arch:
        shape = dict(begun)
    else:
        shape = {"arch": arch, **(PRESETS["tiny"] if arch == "gpt2" else config.shape_of_depth(DEPTH))}
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

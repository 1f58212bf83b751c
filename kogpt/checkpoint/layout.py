"""Where a checkpoint's files lie and what they are called: one format for every ZeRO stage, precision and rank count.

    RUN/checkpoints/step-00000025/
        model-00000-of-00002.safetensors      rank 0's share of the weights, under the model's names, fp32
        optimizer-00000-of-00002.safetensors  its share of the optimizer's slots: `SLOT.NAME` (exp_avg.NAME), fp32
        config.json            {"model": {"arch", and its fields}, "step", "corpus", ...}: what inference needs
        state.json             what training needs besides: position, the optimizer's step, loss scale, best so far
        manifest.json          sha256 and size of each file, written last
    RUN/checkpoints/latest, best   text files that name a step folder

With one rank the files are `model.safetensors` and `optimizer.safetensors`, and hold whole tensors: so were all
checkpoints of format version 1, which are read as well. With several ranks each writes what it holds anyway: a tensor
is whole, or flat with its place in the `shards` entry of the safetensors header: {key: [first element, whole shape]}.
AdamW's checkpoint has 12 bytes per parameter.

A checkpoint is made under a temporary name and renamed when it is whole and on disk; `latest` moves after that. So a
kill at any instant leaves the checkpoint before in place, and what has the right name but not the right bytes
(`verify`) was altered later.

There is no random state in it: dropout's is a function of (seed, step, rank), the data's order of (seed, position).
"""

from pathlib import Path

from kogpt.common.files import atomic_write

FORMAT, VERSION = "kogpt-checkpoint", 2
READABLE = (1, 2)
MODEL, OPTIMIZER = "model", "optimizer"
CONFIG, STATE, MANIFEST = "config.json", "state.json", "manifest.json"


def shard_file(kind: str, rank: int = 0, ranks: int = 1) -> str:
    """The file of one rank's `MODEL` or `OPTIMIZER` shards."""
    return f"{kind}.safetensors" if ranks == 1 else f"{kind}-{rank:05d}-of-{ranks:05d}.safetensors"


def kind_of(file: str) -> str:
    """`MODEL` or `OPTIMIZER` for a file of shards; other files are their own kind."""
    stem, _, ending = file.partition(".")
    return stem.split("-")[0] if ending == "safetensors" else file


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def step_folders(run: Path) -> list[Path]:
    """The step folders of a run, newest first."""
    return sorted((run / "checkpoints").glob("step-" + "[0-9]" * 8), reverse=True)


def temporary_folder(run: Path, step: int, token: str) -> Path:
    """Where the checkpoint of a step is made; `token` is the training's own, so that no other one writes there."""
    return run / "checkpoints" / f".step-{step:08d}.{token}"


def point(folder: Path, pointer: str) -> None:
    """Make the text file `latest` or `best` name a step folder."""
    with atomic_write(folder.parent / pointer) as file:
        file.write(f"{folder.name}\n".encode())


def pointed(run: Path, pointer: str) -> str | None:
    """The name in `latest` or `best`, or None."""
    path = run / "checkpoints" / pointer
    return path.read_text().strip() if path.exists() else None

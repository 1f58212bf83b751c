"""The format of a checkpoint: file names and folders, the same for every ZeRO stage, precision, and number of ranks.

    RUN/checkpoints/step-00000025/
        model-00000-of-00002.safetensors      rank 0's part of the weights, under the model's names, fp32
        optimizer-00000-of-00002.safetensors  its part of the optimizer's slots: `SLOT.NAME` (exp_avg.NAME), fp32
        config.json            {"model": {"arch", and its fields}, "step", "corpus", ...}: all that inference needs
        state.json             what only training needs: position, optimizer step, loss scale, best checkpoint so far
        manifest.json          size and sha256 of each file, written last
    RUN/checkpoints/latest, best   text files that name a step folder

With one rank the files are `model.safetensors` and `optimizer.safetensors`, and every tensor is whole. All checkpoints
of format version 1 were like this, and they can still be read. With several ranks, each rank writes the part that it
holds. A tensor is then either whole or a flat range. The entry `shards` of the safetensors header gives the place of
each range: {key: [first element, shape of the whole tensor]}. With AdamW a checkpoint takes 12 bytes per parameter.

A checkpoint is written under a temporary name, synced to disk, and renamed. `latest` changes after that. A kill at any
moment therefore leaves the previous checkpoint intact. If a checkpoint fails `verify`, it was damaged later.

Random states are not saved. Dropout depends on (seed, step, rank), and the order of the data on (seed, position).
"""

from pathlib import Path

from kogpt.common.files import atomic_write

FORMAT, VERSION = "kogpt-checkpoint", 2
READABLE = (1, 2)
MODEL, OPTIMIZER = "model", "optimizer"
CONFIG, STATE, MANIFEST = "config.json", "state.json", "manifest.json"


def shard_file(kind: str, rank: int = 0, ranks: int = 1) -> str:
    """The name of the file that holds one rank's `MODEL` or `OPTIMIZER` shards."""
    return f"{kind}.safetensors" if ranks == 1 else f"{kind}-{rank:05d}-of-{ranks:05d}.safetensors"


def kind_of(file: str) -> str:
    """`MODEL` or `OPTIMIZER` for a file of shards; for any other file its name."""
    stem, _, ending = file.partition(".")
    return stem.split("-")[0] if ending == "safetensors" else file


def step_folder(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / "checkpoints" / f"step-{step:08d}"


def step_folders(run: Path) -> list[Path]:
    """The step folders of a run, newest first."""
    return sorted((run / "checkpoints").glob("step-" + "[0-9]" * 8), reverse=True)


def tokenizer_folder(run_or_step: Path) -> Path:
    """The tokenizer of a run, or of the run that a step folder is part of."""
    folder = run_or_step.resolve()
    is_step = (folder / MANIFEST).exists() and (folder / CONFIG).exists()
    return (folder.parent.parent if is_step else folder) / "tokenizer"


def temporary_folder(run: Path, step: int, token: str) -> Path:
    """Where a step's checkpoint is written. `token` is unique to the training, so that no other one writes there."""
    return run / "checkpoints" / f".step-{step:08d}.{token}"


def point(folder: Path, pointer: str) -> None:
    """Write the name of a step folder to the text file `latest` or `best`."""
    with atomic_write(folder.parent / pointer) as file:
        file.write(f"{folder.name}\n".encode())


def pointed(run: Path, pointer: str) -> str | None:
    """The name in `latest` or `best`; None if there is no such file."""
    path = run / "checkpoints" / pointer
    return path.read_text(encoding="utf-8").strip() if path.exists() else None

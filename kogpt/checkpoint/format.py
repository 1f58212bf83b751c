"""Checkpoints: one format for every ZeRO stage, precision and number of ranks. In and out: a folder per step.

    RUN/checkpoints/step-00000025/
        model.safetensors      the fp32 weights under GPT's own names; the tied head once, as wte.weight
        optimizer.safetensors  Adam's moments, `exp_avg.NAME` and `exp_avg_sq.NAME`, fp32
        config.json            {"model": GPTConfig's fields, "step", "corpus", ...}: what inference needs
        state.json             what training needs besides: position, Adam's step, loss scale, best so far
        manifest.json          sha256 and size of each file, written last
    RUN/checkpoints/latest, best   text files that name a step folder

12 bytes per parameter. Tensors are written as they are gathered, one parameter in memory at a time, by rank 0.
The folder is made under a temporary name and renamed when it is whole and on disk; `latest` moves after that. So
a kill at any instant leaves the checkpoint before in place, and what has the right name but not the right bytes
(`problem`) was altered later.

There is no random state in it: dropout's is a function of (seed, step, rank), the data's order of (seed, position).
"""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write, fsync_folder, sha256_of
from kogpt.model.gpt2 import GPT, GPTConfig

FORMAT, VERSION = "kogpt-checkpoint", 1
MODEL, OPTIMIZER, CONFIG, STATE, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "config.json",
    "state.json",
    "manifest.json",
)
_FILES = (MODEL, OPTIMIZER, CONFIG, STATE)
MOMENTS = ("exp_avg", "exp_avg_sq")
"""Adam's two moments, by torch's names."""
_SYNC_BYTES = 1 << 28


def step_folder(run: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return run / "checkpoints" / f"step-{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """The step folders of a run, newest first."""
    return sorted((run / "checkpoints").glob("step-" + "[0-9]" * 8), reverse=True)


def problem(folder: Path, names: Iterable[str] | None = None) -> str | None:
    """What is wrong with a checkpoint (one clause), or None; `names` limits the check to these files."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        known = manifest["format"] == FORMAT and manifest["version"] == VERSION
        listed = {name: manifest["files"][name] for name in names or _FILES}
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except OSError as error:
        return f"{MANIFEST} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError):
        return f"{MANIFEST} is damaged"
    if not known:
        return f"{MANIFEST} is not of format {FORMAT} version {VERSION}"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
        try:
            if sha256_of(path) != digest:
                return f"{name} was altered (its sha256 is not the manifest's)"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def newest_good(run: Path, say: Callable[[str], None], names: Iterable[str] | None = None) -> Path | None:
    """The newest checkpoint that verifies; each broken one before it is skipped with a line."""
    names = list(names) if names else None
    for folder in checkpoints(run):
        if (fault := problem(folder, names)) is None:
            return folder
        say(f"checkpoint {folder} is broken and skipped: {fault}")
    return None


class CheckpointWriter:
    """Writes one checkpoint; all ranks of a job call the same methods, rank 0 has `writing` set.

    A full disk (any OSError) does not raise in the middle of a collective: the first one is kept in `error`,
    and `finish` leaves nothing behind.
    """

    def __init__(self, run: Path, step: int, *, writing: bool) -> None:
        self.folder = step_folder(run, step)
        self.temporary = self.folder.with_name(f".{self.folder.name}.tmp")
        self.writing = writing
        self.files: dict[str, dict[str, Any]] = {}
        self.error: OSError | None = None
        if not writing:
            return
        with self._guard():
            for stray in self.folder.parent.glob(".step-*"):
                shutil.rmtree(stray)
            self.temporary.mkdir(parents=True)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error, self.writing = self.error or error, False

    def tensors(self, name: str, shapes: dict[str, tuple[int, ...]], get: Callable[[str], Tensor]) -> None:
        """Write a safetensors file of fp32 tensors; `get` is called for every one, in order, on all ranks."""
        stream = None
        with self._guard():
            stream = _SafetensorsStream(self.temporary / name, shapes) if self.writing else None
        for key in shapes:
            value = get(key)
            with self._guard():
                if stream is not None and self.writing:
                    stream.append(value)
        with self._guard():
            if stream is not None:
                self.files[name] = stream.close()

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file."""
        data = json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
        with self._guard():
            if self.writing:
                with atomic_write(self.temporary / name) as file:
                    file.write(data)
        self.files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def finish(self) -> None:
        """Make it appear: manifest, rename, `latest`. After an error: remove what there is of it."""
        self.json(MANIFEST, {"format": FORMAT, "version": VERSION, "files": dict(self.files)})
        with self._guard():
            if self.writing:
                self._publish()
        if self.error is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _publish(self) -> None:
        fsync_folder(self.temporary)
        aside = self.folder.with_name(f".{self.folder.name}.old")
        if self.folder.exists():  # a broken one that a resumed run has come back to
            self.folder.rename(aside)
        self.temporary.rename(self.folder)
        fsync_folder(self.folder.parent)
        shutil.rmtree(aside, ignore_errors=True)
        point(self.folder, "latest")


class _SafetensorsStream:
    """A safetensors file of fp32 tensors, appended one by one: 8 bytes of header length, JSON header, data."""

    def __init__(self, path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
        header, offset = {}, 0
        for name, shape in shapes.items():
            end = offset + 4 * int(torch.Size(shape).numel())
            header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.hash = hashlib.sha256()
        self.bytes = 0
        self.unsynced = 0
        self.file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._write(struct.pack("<Q", len(text)) + text)

    def append(self, value: Tensor) -> None:
        self._write(value.detach().to("cpu", torch.float32).contiguous().view(-1).numpy().data.cast("B"))

    def _write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.hash.update(data)
        self.bytes += len(data)
        self.unsynced += len(data)
        if self.unsynced >= _SYNC_BYTES:  # so that no single wait for the disk is long
            self._sync()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.unsynced = 0

    def close(self) -> dict[str, Any]:
        try:
            self._sync()
        finally:
            self.file.close()
        return {"bytes": self.bytes, "sha256": self.hash.hexdigest()}


class CheckpointReader:
    """A checkpoint's JSON and, one at a time, its tensors."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
        self.state: dict[str, Any] = json.loads((folder / STATE).read_bytes())
        self._model = safe_open(folder / MODEL, framework="pt")
        self._optimizer = safe_open(folder / OPTIMIZER, framework="pt")

    def weight(self, name: str) -> Tensor:
        """A whole fp32 weight."""
        return self._model.get_tensor(name)

    def moment(self, moment: str, name: str) -> Tensor:
        """A whole fp32 moment of Adam (`exp_avg` or `exp_avg_sq`)."""
        return self._optimizer.get_tensor(f"{moment}.{name}")


def point(folder: Path, pointer: str) -> None:
    """Make the text file `latest` or `best` name a step folder."""
    with atomic_write(folder.parent / pointer) as file:
        file.write(f"{folder.name}\n".encode())


def pointed(run: Path, pointer: str) -> str | None:
    """The name in `latest` or `best`, or None."""
    path = run / "checkpoints" / pointer
    return path.read_text().strip() if path.exists() else None


def retain(run: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` and the best."""
    best = pointed(run, "best")
    latest = pointed(run, "latest")
    # Broken ones that were passed over at the start may bear later steps: they count for nothing.
    good = [folder for folder in checkpoints(run) if latest is None or folder.name <= latest]
    for folder in good[keep:]:
        if folder.name != best:
            # Under the temporary name first: a kill in the middle leaves no broken checkpoint.
            doomed = folder.with_name(f".{folder.name}.old")
            folder.rename(doomed)
            shutil.rmtree(doomed)


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and what belongs to it; `info` is the checkpoint's config.json."""

    model: GPT
    tokenizer_folder: Path
    info: dict[str, Any]


def load_for_inference(run_or_step_folder: Path, device: str | torch.device = "cpu") -> LoadedRun:
    """The model of a run's newest checkpoint that verifies, or of the step folder given, in fp32, eval mode."""
    folder = Path(run_or_step_folder)
    needed = (MODEL, CONFIG)
    if (folder / MANIFEST).exists() and (folder / CONFIG).exists():
        if fault := problem(folder, needed):
            raise UserError(f"the checkpoint {folder} is broken: {fault}; name its run's folder for the one before.")
        step = folder
    else:
        faults: list[str] = []
        found = newest_good(folder, faults.append, needed)
        if found is None:
            raise UserError(
                f"{folder} holds no usable checkpoint ({'; '.join(faults) or 'no checkpoints/step-* folder'}); "
                "give the --out folder of a training run or one of its step folders."
            )
        step = found
    info = json.loads((step / CONFIG).read_bytes())
    model = GPT(GPTConfig(**info["model"]))
    model.load_state_dict(load_file(step / MODEL))
    return LoadedRun(model.to(device).eval(), step.resolve().parent.parent / "tokenizer", info)

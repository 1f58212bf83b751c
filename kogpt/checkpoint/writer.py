"""Write a checkpoint. In: each rank's shards, and JSON. Out: a complete step folder on disk, or none.

1. `write_shards`: every rank writes its files to the same temporary folder.
2. `publish`: when all have finished, one rank writes config, state, and manifest, and renames the folder.
3. `discard`: if anything raised OSError (a full disk), the temporary folder is removed.

`write_checkpoint` does all of this in one process, for whole tensors.
"""

import hashlib
import json
import os
import shutil
import struct
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from kogpt.checkpoint.layout import (
    CONFIG,
    FORMAT,
    MANIFEST,
    MODEL,
    OPTIMIZER,
    STATE,
    VERSION,
    point,
    shard_file,
    step_folder,
    temporary_folder,
)
from kogpt.checkpoint.shards import Shard, whole
from kogpt.common.files import atomic_write, fsync_folder

Files = dict[str, dict[str, Any]]
"""Manifest entries by file name: {"bytes", "sha256"}."""
_SYNC_BYTES = 1 << 28


class ShardFile:
    """A safetensors file to which fp32 shards are appended. Format: header length (8 bytes), JSON header, data."""

    def __init__(self, path: Path, shards: Iterable[Shard]) -> None:
        header: dict[str, Any] = {}
        offset, cut = 0, {}
        for shard in shards:
            end = offset + 4 * shard.numel
            shape = shard.shape if shard.is_whole else (shard.numel,)
            header[shard.key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, end]}
            if not shard.is_whole:
                cut[shard.key] = [shard.start, list(shard.shape)]
            offset = end
        if cut:
            header["__metadata__"] = {"shards": json.dumps(cut)}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        self.path = path
        self.hash = hashlib.sha256()
        self.bytes = 0
        self.unsynced = 0
        self.file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by close()
        self._write(struct.pack("<Q", len(text)) + text)

    def append(self, value: Tensor) -> None:
        """Append the elements of the next shard. They may be on any device."""
        self._write(value.detach().to("cpu", torch.float32).contiguous().view(-1).numpy().data.cast("B"))

    def _write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.hash.update(data)
        self.bytes += len(data)
        self.unsynced += len(data)
        if self.unsynced >= _SYNC_BYTES:  # otherwise the last sync would wait for the whole file
            self._sync()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.unsynced = 0

    def close(self) -> dict[str, Any]:
        """Sync and close the file, and return its manifest entry."""
        try:
            self._sync()
        finally:
            self.file.close()
        return {"bytes": self.bytes, "sha256": self.hash.hexdigest()}


def write_shards(folder: Path, rank: int, ranks: int, shards: list[Shard], get: Callable[[Shard], Tensor]) -> Files:
    """Write one rank's files, weights first. `get` is called once for each shard, in that order."""
    folder.mkdir(parents=True, exist_ok=True)
    files: Files = {}
    for kind in (MODEL, OPTIMIZER):
        mine = [shard for shard in shards if shard.kind == kind]
        name = shard_file(kind, rank, ranks)
        file = ShardFile(folder / name, mine)
        try:
            for shard in mine:
                file.append(get(shard))
        finally:
            files[name] = file.close()
    fsync_folder(folder)
    return files


def publish(temporary: Path, folder: Path, files: Files, config: dict[str, Any], state: dict[str, Any]) -> None:
    """Complete a checkpoint whose shards are written: add config, state, and manifest, rename it, update `latest`."""
    for name, content in ((CONFIG, config), (STATE, state)):
        files[name] = _write_json(temporary / name, content)
    _write_json(temporary / MANIFEST, {"format": FORMAT, "version": VERSION, "files": files})
    fsync_folder(temporary)
    aside = temporary.with_name(f"{temporary.name}.old")
    if folder.exists():  # a resumed run reached this step again: the old one is damaged, or lacks its evaluation
        folder.rename(aside)
    temporary.rename(folder)
    fsync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
    point(folder, "latest")


def discard(temporary: Path) -> None:
    """Remove the temporary folder of a checkpoint that could not be written."""
    shutil.rmtree(temporary, ignore_errors=True)


def write_checkpoint(
    run: Path, step: int, weights: Mapping[str, Tensor], config: dict[str, Any], state: dict[str, Any]
) -> Path:
    """Write a checkpoint of whole weights without optimizer state, and return its folder.

    Raises `OSError`, and leaves nothing behind, if it cannot be written.
    """
    temporary, folder = temporary_folder(run, step, uuid.uuid4().hex[:12]), step_folder(run, step)
    try:
        shards = [whole(name, None, tuple(value.shape)) for name, value in weights.items()]
        files = write_shards(temporary, 0, 1, shards, lambda shard: weights[shard.name])
        publish(temporary, folder, files, config, state)
    except OSError:
        discard(temporary)
        raise
    return folder


def _write_json(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"
    with atomic_write(path) as file:
        file.write(data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

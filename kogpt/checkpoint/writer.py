"""Writes a checkpoint. In: each rank's shards, JSON. Out: a step folder that is whole and on disk, or none.

Every rank writes its files into the same temporary folder (`write_shards`); when all have, one of them publishes it
(`publish`: config, state, manifest, rename, `latest`). Any of it may raise OSError (a full disk); then `discard`.
`write_checkpoint` is all of it for whole tensors in one process.
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
"""What a manifest says of each file: {"bytes", "sha256"}."""
_SYNC_BYTES = 1 << 28


class ShardFile:
    """A safetensors file of fp32 shards, appended one by one: 8 bytes of header length, JSON header, data."""

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
        """The next shard's elements, from any device."""
        self._write(value.detach().to("cpu", torch.float32).contiguous().view(-1).numpy().data.cast("B"))

    def _write(self, data: bytes | memoryview) -> None:
        self.file.write(data)
        self.hash.update(data)
        self.bytes += len(data)
        self.unsynced += len(data)
        if self.unsynced >= _SYNC_BYTES:  # so that the last wait for the disk is not the longest
            self._sync()

    def _sync(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.unsynced = 0

    def close(self) -> dict[str, Any]:
        """Have it on disk; its entry in the manifest."""
        try:
            self._sync()
        finally:
            self.file.close()
        return {"bytes": self.bytes, "sha256": self.hash.hexdigest()}


def write_shards(folder: Path, rank: int, ranks: int, shards: list[Shard], get: Callable[[Shard], Tensor]) -> Files:
    """Write one rank's files, those of the weights first; `get` is called for each shard once, in that order."""
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
    """Make a checkpoint of what the ranks have written: config, state, manifest, rename, `latest`."""
    for name, content in ((CONFIG, config), (STATE, state)):
        files[name] = _write_json(temporary / name, content)
    _write_json(temporary / MANIFEST, {"format": FORMAT, "version": VERSION, "files": files})
    fsync_folder(temporary)
    aside = temporary.with_name(f"{temporary.name}.old")
    if folder.exists():  # a broken one, or one without its evaluation, that a resumed run has come back to
        folder.rename(aside)
    temporary.rename(folder)
    fsync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
    point(folder, "latest")


def discard(temporary: Path) -> None:
    """Leave nothing of a checkpoint that could not be written."""
    shutil.rmtree(temporary, ignore_errors=True)


def write_checkpoint(
    run: Path, step: int, weights: Mapping[str, Tensor], config: dict[str, Any], state: dict[str, Any]
) -> Path:
    """A checkpoint of whole weights and no optimizer state; its folder. OSError, and nothing left, on a full disk."""
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

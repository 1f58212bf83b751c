"""Writes a checkpoint. In: tensors one by one, JSON. Out: a step folder that is whole, or none."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from kogpt.checkpoint.layout import FORMAT, MANIFEST, VERSION, point, step_folder
from kogpt.common.files import atomic_write, fsync_folder

_SYNC_BYTES = 1 << 28


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

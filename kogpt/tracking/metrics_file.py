"""metrics.jsonl: one line per step, in order, none missing and none twice. In: a record per step. Out: the file.

It is the truth about a training: W&B, curves.png and the model card are made from it. What a resumed run does again
is cut off first. JSON has no NaN and no infinity: they are written as null.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write


class MetricsFile:
    """metrics.jsonl, opened to go on behind step `last`: later lines are cut off, earlier ones must all be there.

    `source` is where the earlier lines are: the same file, or that of the run whose checkpoint is gone on from.
    On a full disk lines wait in memory; `sync` raises as long as they do.
    """

    def __init__(self, path: Path, last: int, source: Path) -> None:
        kept = list(_lines_through(source, last))
        if [step for step, _ in kept] != list(range(1, last + 1)):
            raise UserError(
                f"{source} does not hold the steps 1 to {last} that the checkpoint has behind it; "
                "put the file back, or train into another --out."
            )
        with atomic_write(path) as file:
            file.writelines(line for _, line in kept)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._waiting = b""

    def append(self, record: dict[str, Any]) -> None:
        """Add a line; a kill leaves at most a last line without its end."""
        self._waiting += json.dumps(finite(record), ensure_ascii=False).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._write()

    def sync(self) -> None:
        """Have all lines on disk, before a checkpoint that counts on them."""
        self._write()
        os.fsync(self._file.fileno())

    def _write(self) -> None:
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]


def _lines_through(path: Path, last: int) -> Iterator[tuple[int, bytes]]:
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                step = json.loads(line)["step"]
            except ValueError:  # cut off by a kill
                return
            if step > last or not line.endswith(b"\n"):
                return
            yield step, line


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without a last line that is still being written."""
    records = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def finite(value: Any) -> Any:
    """JSON knows no nan and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

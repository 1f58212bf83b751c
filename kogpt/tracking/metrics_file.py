"""metrics.jsonl: one line per step, in order, without gaps or repetitions. In: a record per step. Out: the file.

It is the reference for everything else: W&B, curves.png, and the model card are made from it. A resumed run first
removes the lines of the steps that it repeats. NaN and infinity, which JSON lacks, are written as null.
"""

import contextlib
import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write


class MetricsFile:
    """metrics.jsonl, opened to continue after step `last`. Later lines are removed; all earlier ones must exist.

    `source` holds the earlier lines: the same file, or that of the run whose checkpoint is resumed. On a full disk,
    lines are kept in memory, and `sync` raises until they are written.
    """

    def __init__(self, path: Path, last: int, source: Path) -> None:
        kept = list(_lines_through(source, last))
        if [step for step, _ in kept] != list(range(1, last + 1)):
            raise UserError(
                f"{source} does not hold the steps 1 to {last} that precede the checkpoint; "
                "restore the file, or train into another --out."
            )
        with atomic_write(path) as file:
            file.writelines(line for _, line in kept)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open as long as the run
        self._waiting = b""
        self._lock = threading.Lock()

    def append(self, record: dict[str, Any]) -> None:
        """Add a line. A kill leaves at most one incomplete last line."""
        with self._lock:
            self._waiting += json.dumps(finite(record), ensure_ascii=False).encode() + b"\n"
        with contextlib.suppress(OSError):
            self._write()

    def sync(self) -> None:
        """Flush all lines to disk, before a checkpoint that depends on them; from any thread."""
        self._write()
        os.fsync(self._file.fileno())

    def _write(self) -> None:
        with self._lock:
            while self._waiting:
                self._waiting = self._waiting[self._file.write(self._waiting) :]


def _lines_through(path: Path, last: int) -> Iterator[tuple[int, bytes]]:
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                step = json.loads(line)["step"]
            except ValueError:  # incomplete because of a kill
                return
            if step > last or not line.endswith(b"\n"):
                return
            yield step, line


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, without a last line that is still incomplete."""
    records = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records


def write_json(result: dict[str, Any], path: Path) -> None:
    """Write the result of an evaluation to a file of its own."""
    text = json.dumps(finite(result), ensure_ascii=False, indent=1)
    with atomic_write(path) as file:
        file.write(text.encode(errors="backslashreplace") + b"\n")  # a name of texts that is not UTF-8


def finite(value: Any) -> Any:
    """The value with NaN and infinity, which JSON lacks, replaced by None."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

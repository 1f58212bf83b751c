"""run.json: the current state of a run, readable at any time. In: changed fields. Out: the file, and its content."""

import json
import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from kogpt.common.files import atomic_write
from kogpt.tracking.metrics_file import finite

RUN_JSON_SECONDS = 10.0


def read_run_file(run: Path) -> dict[str, Any]:
    """The run.json of a run folder; {} if there is none that can be read."""
    with suppress(OSError, ValueError):
        return json.loads((run / "run.json").read_bytes())
    return {}


class RunFile:
    """run.json, rewritten at every important change and every few seconds."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content, self._written = path, dict(content), -math.inf

    def update(self, *, now: bool, **changes: Any) -> None:
        """Change fields, and write the file if `now` or if the last write is a while ago."""
        self.content |= changes
        if now or time.monotonic() - self._written > RUN_JSON_SECONDS:
            with atomic_write(self.path) as file:
                file.write(json.dumps(finite(self.content), indent=1, ensure_ascii=False).encode() + b"\n")
            self._written = time.monotonic()

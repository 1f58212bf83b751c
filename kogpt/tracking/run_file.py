"""run.json: where a run stands, for other programs to read at any time. In: fields that changed. Out: the file."""

import json
import math
import time
from pathlib import Path
from typing import Any

from kogpt.common.files import atomic_write
from kogpt.tracking.metrics_file import finite

RUN_JSON_SECONDS = 10.0


class RunFile:
    """run.json: rewritten whole at every change that matters, and every few seconds."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content, self._written = path, dict(content), -math.inf

    def update(self, *, now: bool, **changes: Any) -> None:
        """Change fields; on disk `now`, or when the last time is a while ago."""
        self.content |= changes
        if now or time.monotonic() - self._written > RUN_JSON_SECONDS:
            with atomic_write(self.path) as file:
                file.write(json.dumps(finite(self.content), indent=1, ensure_ascii=False).encode() + b"\n")
            self._written = time.monotonic()

"""run.json is complete at any time, and is not written too often."""

import json
from pathlib import Path

from kogpt.tracking.run_file import RunFile


def test_run_file_is_written_at_once_or_after_a_while(tmp_path: Path) -> None:
    file = RunFile(tmp_path / "run.json", {"state": "running"})
    file.update(now=False, step=1)
    file.update(now=False, step=2)
    assert json.loads((tmp_path / "run.json").read_text())["step"] == 1
    file.update(now=True, step=3)
    assert json.loads((tmp_path / "run.json").read_text()) == {"state": "running", "step": 3}

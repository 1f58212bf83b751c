"""The demo's DeepSpeed file, for any number of GPUs, and how it starts programs."""

import json
import runpy
from pathlib import Path

import pytest
from trainings import PROJECT

from kogpt.train.deepspeed_config import plan

demo = runpy.run_path(str(PROJECT / "launch" / "demo.py"))
deepspeed_file = demo["deepspeed_file"]


@pytest.mark.parametrize("ranks", range(1, 17))
def test_its_batch_divides(ranks: int, tmp_path: Path) -> None:
    path = deepspeed_file(tmp_path, ranks)
    fitted = plan(path, json.loads(path.read_text()), world_size=ranks, device="cuda", has_bf16=True)
    assert 16 <= fitted.global_batch < 16 + ranks
    assert (path.parent == tmp_path) == (ranks not in (1, 2, 4, 8, 16))


def test_a_program_starts_whose_first_line_names_no_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pip writes that of `deepspeed` where the project's path has a space: the kernel cuts it there."""
    scripts = tmp_path / "연구 자료" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "deepspeed").write_text(f"#!{scripts}/python\nimport sys\nopen(sys.argv[1], 'w').write('here')\n")
    (scripts / "deepspeed").chmod(0o755)
    monkeypatch.setitem(demo["run"].__globals__, "BIN", scripts)
    demo["run"]("deepspeed", tmp_path / "done")
    assert (tmp_path / "done").read_text() == "here"

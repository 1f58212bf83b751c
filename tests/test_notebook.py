"""notebooks/korean_gpt.ipynb: its outputs are those of its code, it tells nothing of the machine, and it runs."""

import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from kogpt.tracking.metrics_file import read_metrics

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks/korean_gpt.ipynb"
CELLS: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
PROSE = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown"]
OUTPUTS = [output for cell in CODE for output in cell["outputs"]]


def texts(outputs: list[dict[str, Any]]) -> str:
    """What the outputs show as text."""
    shown = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join("".join(text) for text in shown)


def test_its_outputs_are_those_of_its_code() -> None:
    code = "\0".join("".join(cell["source"]) for cell in CODE)
    about = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["metadata"]["kogpt"]
    assert about["executed"] == hashlib.sha256(code.encode()).hexdigest(), "run bench/notebook.py: its code has changed"
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    assert not [output for output in OUTPUTS if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_what_it_imports_of_kogpt_is_there() -> None:
    code = "\n".join("".join(cell["source"]) for cell in CODE)
    lines = re.findall(r"^from kogpt[\w.]* import .+$", code, re.MULTILINE)
    assert lines
    exec("\n".join(lines), {})


def test_it_is_small_and_tells_nothing_of_the_machine_that_executed_it() -> None:
    content = NOTEBOOK.read_text(encoding="utf-8")
    assert len(content.encode()) < 1_000_000
    without_colab = content.replace("/content/drive", "")
    assert not re.findall(
        r"(?<![\w.\"}])/(?:root|home|work|tmp|opt|usr|mnt|var|etc|srv|Users|content)/\S*", without_colab
    )
    assert not re.findall(r"https?://\S+", texts(OUTPUTS))


@pytest.mark.parametrize("text", PROSE, ids=range(len(PROSE)))
def test_every_text_is_korean_and_then_english(text: str) -> None:
    paragraphs = [part for part in text.split("\n\n") if not part.startswith("#")]
    english = [part.startswith("*") and part.endswith("*") and not part.startswith("**") for part in paragraphs]
    assert english == sorted(english)
    assert set(english) == {False, True}
    for part, is_english in zip(paragraphs, english, strict=True):
        assert bool(re.search("[가-힣]", re.sub("`.*?`", "", part))) != is_english, part


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(PROSE))
    assert links
    assert not [link for link in links if not (NOTEBOOK.parent / link).exists()]


def cut_off(command: list[str], metrics: Path) -> None:
    """Execute the notebook until its training has logged three steps, and kill everything that it has started."""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as executing:
        end = time.monotonic() + 600
        while not metrics.exists() or metrics.read_bytes().count(b"\n") < 3:
            assert executing.poll() is None, "it ended before it trained"
            assert time.monotonic() < end, "it never trained"
            time.sleep(0.02)
        process = psutil.Process(executing.pid)
        for one in (process, *process.children(recursive=True)):
            one.kill()


@pytest.mark.ecosystem
@pytest.mark.timeout(1500)
def test_it_goes_on_where_it_was_cut_off_and_runs_to_the_conversation(tmp_path: Path) -> None:
    out, folder = tmp_path / "executed.ipynb", tmp_path / "결과 폴더"
    command = [sys.executable, "bench/notebook.py", "--out", str(out), "--set", f"FOLDER={folder}", "MINUTES=0.001"]
    cut_off(command, folder / "run/metrics.jsonl")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Continuing after step [1-7]\b", (folder / "run.log").read_text(encoding="utf-8"))
    assert [record["step"] for record in read_metrics(folder / "run/metrics.jsonl")] == list(range(1, 9))
    cells = [cell for cell in json.loads(out.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    watched = [cell["outputs"] for cell in cells if "kogpt.watch" in "".join(cell["source"])]
    for outputs, steps in zip(watched, (8, 24), strict=True):
        assert [len(output["data"].get("image/png", "")) > 5000 for output in outputs if "data" in output] == [True]
        assert f"Finished after {steps} steps." in texts(outputs)
    assert texts(cells[-1]["outputs"]).count("모델 ") == 3

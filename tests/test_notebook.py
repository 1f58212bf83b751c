"""notebooks/korean_gpt.ipynb: its outputs are those of its code, it tells nothing of the machine, and it runs."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.ecosystem
@pytest.mark.timeout(900)
def test_it_runs_from_its_first_cell_to_the_conversation(tmp_path: Path) -> None:
    out, folder = tmp_path / "executed.ipynb", tmp_path / "결과 폴더"
    command = [sys.executable, "bench/notebook.py", "--out", str(out), "--set", f"FOLDER={folder}", "MINUTES=0.001"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = [cell for cell in json.loads(out.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    watched = [cell["outputs"] for cell in cells if "kogpt.watch" in "".join(cell["source"])]
    for outputs, steps in zip(watched, (8, 24), strict=True):
        assert [len(output["data"].get("image/png", "")) > 5000 for output in outputs if "data" in output] == [True]
        assert f"Finished after {steps} steps." in texts(outputs)
    assert texts(cells[-1]["outputs"]).count("모델 ") == 3

"""`kogpt report`: everything of a run in one page, of runs that are old, at work, or barely begun."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import record, write_records

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "version-0.1" / "run"


def headings(text: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", text)


def test_a_trained_run(trained: Path, corpus: Path, tmp_path: Path, kogpt: Any) -> None:
    run = tmp_path / "내 실험"
    shutil.copytree(trained, run)
    scored = {"bits_per_char": 3.21, "standard_error": 0.05, "chars": 1234}
    (run / "evaluation.json").write_text(json.dumps({"run": "x", "step": 12, "bits_per_char": {"뉴스": scored}}))
    done = kogpt("report", run)
    assert done.returncode == 0, done.stderr
    assert str(run / "report.html") in done.stdout
    text = (run / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|src=|href=|@import|url\(|<script", text), "it needs nothing else"
    assert "<h1>Run 내 실험</h1>" in text
    assert headings(text) == [
        *("Bits per character", "Loss", "Learning rate", "Speed", "Gradient norm"),
        *("Evaluation", "Samples", "Data", "Machine", "Cost", "Settings"),
    ]
    assert "finished at step 12 of 12" in text
    assert "3.2100 ± 0.0500" in text
    assert "kolaw" in text, "the sources of the corpus"
    for name in ("CPU of rank 0", "device hours", "FLOPs", "model.n_embd"):
        assert f"<td>{name}</td>" in text
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert f"{last['val_bits_per_char']:.4f}" in text


def test_samples_and_corpora_of_a_mixture(tmp_path: Path, kogpt: Any) -> None:
    told = {
        "continuations": [["대한민국은", "<b>민주</b>\n공화국"]],
        "val_bits_per_char/위키": 2.5,
        "above_chance": 0.1,
    }
    data = [{"name": "위키", "folder": "gone", "corpus": "0" * 64, "share": 0.7, "windows": 5}]
    data += [{"name": "뉴스", "folder": "gone", "corpus": "1" * 64, "share": 0.3, "windows": 5}]
    records = [record(step, val_loss=1.0, val_bits_per_char=3 - step / 100, **told) for step in range(1, 100)]
    kogpt("report", write_records(tmp_path / "run", *records, data=data), "--out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count("&lt;b&gt;민주&lt;/b&gt; ↵ 공화국") == 8, "samples spread over the training"
    assert "validation, 위키" in text
    assert "위키, 70.0% of the windows, fingerprint" in text
    assert "not in its folder any more" in text
    assert "Multiple choice during training" in headings(text)


@pytest.mark.parametrize("run", ["old", "unvalidated", "empty"])
def test_runs_of_which_little_is_known(run: str, tmp_path: Path, kogpt: Any) -> None:
    records = [record(1, loss=None, grad_norm=None)] if run == "unvalidated" else []
    folder = OLD if run == "old" else write_records(tmp_path / "run", *records)
    done = kogpt("report", folder, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert len(headings((tmp_path / "page.html").read_text(encoding="utf-8"))) == 11


def test_a_strange_evaluation_is_named(tmp_path: Path, kogpt: Any) -> None:
    folder = write_records(tmp_path / "run", record(1))
    (folder / "evaluation-2.json").write_text("[]")
    done = kogpt("report", folder)
    assert done.returncode == 2
    assert "evaluation-2.json is no result of" in done.stderr
    (folder / "evaluation-2.json").write_text("{}")
    assert "evaluation-2.json is no result of" in kogpt("report", folder).stderr


def test_no_folder_of_this_machine_is_on_the_page(trained: Path, tmp_path: Path, kogpt: Any) -> None:
    assert kogpt("report", trained, "--out", tmp_path / "page.html").returncode == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    about = json.loads((trained / "run.json").read_bytes())
    config = Path(about["options"]["run"]["deepspeed_config"])
    assert config.name in page
    assert str(config.parent) not in page

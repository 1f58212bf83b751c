"""Where Ray, DeepSpeed, and what only POSIX systems have are missing, every command but preprocessing gives the same.

The process of tests/elsewhere.py has none of them; it runs the commands on the same folders as this process.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import make_chat_run
from servers import client, service_of, serving
from trainings import GLOBAL_BATCH, Plan, copy_as_of, flags, losses, records, together

import kogpt as package
from kogpt.checkpoint.layout import MANIFEST, step_folder
from kogpt.common.ports import free_port
from kogpt.tokenizer.wordpiece import Tokenizer

PROGRAM = Path(__file__).with_name("elsewhere.py")
PROJECT = PROGRAM.parents[1]
STEPS, CUT = 6, 3
SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}},
    "muon": {"optimizer": {"type": "Muon", "params": {"lr": 1e-2}}, "gradient_clipping": 0.0},
    "bf16": {"bf16": {"enabled": True}, "zero_optimization": {"stage": 2}},
}
"""Sections of DeepSpeed files; each has two micro-batches in a step."""


def elsewhere(jobs: list[tuple[str, list[str], str]], scratch: Path) -> tuple[list[list[Any]], str]:
    """The exit status and the output of each command line there, and what was said on standard error."""
    path = scratch / "jobs.json"
    path.write_text(json.dumps(jobs))
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    environment["PYTHONWARNDEFAULTENCODING"] = "1"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(path)], capture_output=True, text=True, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return json.loads(path.with_suffix(".out.json").read_text()), done.stderr


def test_the_commands_give_the_same(
    kogpt: Callable[..., Any], corpus: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = make_chat_run(tmp_path / "내 모델" / "run", tokenizer, arch="qwen3")

    def lines(place: str) -> list[tuple[list[str], str]]:
        there = tmp_path / place
        there.mkdir()
        generate = ["generate", str(run), "국회는", "대한민국은", "--max-new-tokens", "8", "--samples", "2"]
        return [
            (generate, ""),
            (["chat", str(run), "--max-new-tokens", "8"], "국회는?\n"),
            (["evaluate", str(run), "--corpus", str(corpus)], ""),
            (["inspect", str(corpus)], ""),
            (["export-windows", str(corpus), str(there / "windows")], ""),
            (["export", str(run), str(there / "exported")], ""),
            (["import", str(there / "exported"), str(there / "imported"), "--corpus", str(corpus)], ""),
        ]

    port = str(free_port())
    jobs = [("kogpt", *line) for line in lines("저기 (2)")]
    others = [("load", [str(run), "국회는"], ""), ("kogpt", ["doctor"], "")]
    found, said = elsewhere([*jobs, *others, ("kogpt", ["serve", str(run), "--port", port], "")], tmp_path)
    # Windows reads text in the encoding of its language where the code names none.
    assert not re.search(rf"{PROJECT}/(kogpt|launch)/\S+: EncodingWarning", said)
    for (words, stdin), (code, shown) in zip(lines("여기 (1)"), found[: len(jobs)], strict=True):
        here = kogpt(*words, stdin=stdin)
        assert here.returncode == code == 0, here.stderr
        same = shown.replace("/저기 (2)/", "/여기 (1)/").replace("python launch", "deepspeed launch")
        assert same == here.stdout, words
    for name in ("exported", "imported", "windows"):
        files = {path.relative_to(tmp_path / "여기 (1)"): path for path in (tmp_path / "여기 (1)" / name).rglob("*.*")}
        for relative, path in files.items():
            if path.is_file() and path.name not in ("README.md", ".lock"):  # there are no locks without fcntl
                assert (tmp_path / "저기 (2)" / relative).read_bytes() == path.read_bytes(), relative
    loaded, doctor, (ended, _, answer) = found[len(jobs) :]
    assert loaded[1] == package.load(run).generate("국회는", max_new_tokens=8) + "\n"
    assert "FIX  Ray: not installed" in doctor[1]
    assert "OK   DeepSpeed: not installed" in doctor[1]
    with serving(service_of(run)) as address:
        asked = client(address).completions.create(model="run", prompt="국회는", max_tokens=8, temperature=0)
    assert (ended, answer) == (130, asked.choices[0].text)


def test_training_gives_the_same_bits(corpus: Path, tmp_path: Path) -> None:
    """Losses and checkpoints of stage 0 on one rank, with AdamW, Muon (Qwen3), bf16; a run of DeepSpeed goes on."""

    def line(place: str, name: str) -> list[str]:
        content = {"train_batch_size": GLOBAL_BATCH, "train_micro_batch_size_per_gpu": 4, "gradient_clipping": 0.5}
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content | SETTINGS[name]))
        every = ["--save-every", str(CUT), "--eval-every", str(CUT), "--dropout", "0.1"]
        arch = ("--arch", "qwen3") if name == "muon" else ()
        return flags(corpus, tmp_path / place / name, file, STEPS, *every, *arch)

    assert together(1, [Plan(line("여기 (1)", name)) for name in SETTINGS], tmp_path / "ranks") == [0] * len(SETTINGS)
    begun = copy_as_of(tmp_path / "여기 (1)" / "adamw", CUT, tmp_path / "begun")
    (begun / ".lock").unlink()  # without fcntl and msvcrt, a lock is that its file exists
    resume = [*line("여기 (1)", "adamw"), "--out", str(begun)]
    jobs = [("launch/train.py", line("저기 (2)", name), "") for name in SETTINGS]
    found, said = elsewhere([*jobs, ("launch/train.py", resume, "")], tmp_path)
    assert [code for code, _ in found] == [0] * 4, said
    assert all(output.count("DeepSpeed is not installed") == 1 for _, output in found)
    assert f"Continuing after step {CUT}" in found[-1][1]
    for name in SETTINGS:
        here, there = tmp_path / "여기 (1)" / name, tmp_path / "저기 (2)" / name
        assert losses(there) == losses(here), name
        assert len(losses(there)) == STEPS
        keys = ("val_loss", "grad_norm", "lr")
        assert [[r[key] for key in keys] for r in records(there)] == [[r[key] for key in keys] for r in records(here)]
        assert _files(there) == _files(here), f"{name}: weights, slots and counters"
    assert losses(begun) == losses(tmp_path / "여기 (1)" / "adamw")
    assert _files(begun) == _files(tmp_path / "여기 (1)" / "adamw")


def _files(run: Path) -> Any:
    """The sizes and checksums of the last checkpoint's files."""
    return json.loads((step_folder(run, STEPS) / MANIFEST).read_text())["files"]

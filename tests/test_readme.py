"""A page in two languages shows the same commands, and the commands of README exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


KOREAN = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.ko.md"), *ROOT.glob("docs/*.ko.md")))


def commands(name: str) -> list[str]:
    """The lines of the blocks marked as sh, and of the indented ones."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```|^(    .*?)$", text, re.DOTALL | re.MULTILINE)
    shown = [block or indented for language, block, indented in blocks if language in ("sh", "bash") or indented]
    return [line.strip() for block in shown for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("page", KOREAN)
def test_both_languages_show_the_same(page: str) -> None:
    """The same commands, and as many headings and rows of tables."""
    english = page.replace(".ko.md", ".md")
    assert commands(page)
    assert commands(page) == commands(english)
    for mark in (r"^#+ ", r"^\|"):
        counts = [len(re.findall(mark, (ROOT / name).read_text(encoding="utf-8"), re.M)) for name in (page, english)]
        assert counts[0] == counts[1], mark


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in commands("README.md"):
        if command.startswith("make "):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


@pytest.mark.parametrize("script", ["preprocess/run.py", "launch/train.py"])
def test_flags_exist(script: str) -> None:
    shown = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=True)
    flags = {flag for c in commands("README.md") if script in c for flag in re.findall(r"--[a-z-]+\b", c)}
    assert flags
    for flag in flags - {"--help"}:
        assert flag in shown.stdout, f"{script} {flag}"


def test_kogpt_commands_exist() -> None:
    for command in {c.split()[1] for c in commands("README.md") if c.startswith("kogpt ")}:
        program = [sys.executable, str(Path(sys.executable).with_name("kogpt"))]
        subprocess.run([*program, command, "--help"], capture_output=True, check=True)

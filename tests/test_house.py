"""Rules that can be checked automatically: small files, each with a header docstring."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for name in ("kogpt", "preprocess", "launch", "bench", "tests") for path in (ROOT / name).rglob("*.py")
)
LINES = 350
DEMO = ROOT / "launch" / "demo.py"
"""Its way to start programs has a test of its own, in tests/launch/test_demo.py."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LINES, f"{LINES} lines hold one idea; cut it at the seam between two"
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), "its first lines are no docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_installed_programs_are_started_by_the_interpreter(path: Path) -> None:
    """By `python PROGRAM`: the first line of `deepspeed` names an interpreter that a space in the path cuts in two."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    after = {
        id(node)
        for line in ast.walk(tree)
        if isinstance(line, ast.List) and line.elts and ast.unparse(line.elts[0]) == "sys.executable"
        for node in ast.walk(line)
    }
    beside = ("Path(sys.executable).with_name", "Path(sys.executable).parent")
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and id(node) not in after]
    assert not [ast.unparse(node) for node in found if ast.unparse(node) in beside] or path == DEMO, (
        "as in launch/demo.py"
    )


def test_the_makefile_starts_python_and_binaries_only() -> None:
    started = set(re.findall(r"\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text()))
    assert started <= {"python", "ruff", "uv"}  # the last two are no scripts


def test_few_files_lie_at_the_top_of_kogpt() -> None:
    assert len([path for path in (ROOT / "kogpt").iterdir() if path.is_file()]) <= 6

"""Rules that can be checked automatically: small files, each with a header docstring."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path for name in ("kogpt", "preprocess", "launch", "bench", "tests") for path in (ROOT / name).rglob("*.py")
)
LINES = 350


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_is_short_and_says_what_it_is(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= LINES, f"{LINES} lines hold one idea; cut it at the seam between two"
    if source.strip():
        assert ast.get_docstring(ast.parse(source)), "its first lines are no docstring"


def test_few_files_lie_at_the_top_of_kogpt() -> None:
    assert len([path for path in (ROOT / "kogpt").iterdir() if path.is_file()]) <= 6

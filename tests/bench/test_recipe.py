"""bench/recipe.py: a table is gone on with, and the winner is the one of the log."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from trainings import script


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    return script("recipe", "bench")


def _line(cell: Any, bits: float) -> str:
    numbers = {"bits_per_char": bits, "tokens": cell.tokens, "flops": 1, "parameters": 1, "seconds": 1.0}
    return json.dumps({"cell": asdict(cell), **numbers})


def test_a_table_is_gone_on_with(
    recipe: ModuleType, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three cells are there, and a third line that was cut: that cell alone is trained, for two steps."""
    table, arm = tmp_path / "table.jsonl", ("gpt2", "AdamW")
    options = recipe.Options(corpus, tmp_path / "work", table, arms=(" ".join(arm),), tokens=512, depth=1, batch=1)
    *known, missing = recipe.cells(options, "sweep", [])
    before = "".join(_line(cell, 5.0) + "\n" for cell in known)
    table.write_text(before + _line(missing, 5.0)[:40])
    words = ["--corpus", corpus, "--work", options.work, "--json", table, "--cells", "sweep", "--arms", *options.arms]
    words += ["--tokens", options.tokens, "--depth", options.depth, "--batch", options.batch]
    monkeypatch.setattr(sys, "argv", ["recipe.py", *map(str, words)])
    said: list[tuple[str, int]] = []
    recipe.main(lambda text: said.append((text, len(recipe.read(table)))))
    assert table.read_text().startswith(before)
    assert [recipe.Cell(**line["cell"]) for line in recipe.read(table)] == [*known, missing]
    assert recipe.read(table)[-1]["tokens"] == 512
    assert said[0][0].startswith(f"gpt2 AdamW, lr {missing.lr:g}: ")
    assert [lines for _, lines in said] == [3, 3], "a line is written before the next training, or the report"
    written = table.read_bytes()
    recipe.main(lambda text: None)
    assert table.read_bytes() == written, "nothing is left to train"


def test_the_winner_is_the_one_of_the_log(recipe: ModuleType, tmp_path: Path) -> None:
    """Not what has the fewest bits per character after half of the tokens."""
    options = recipe.Options(tmp_path, tmp_path, tmp_path / "table.jsonl", other_corpora=(tmp_path / "16544",))
    bits = {("gpt2 AdamW", 0.002): 4.327, ("qwen3 Muon", 0.04): 3.677}
    lines = [json.loads(_line(cell, bits.get((cell.arm, cell.lr), 5.0))) for cell in recipe.cells(options, "sweep", [])]
    pieces = recipe.cells(options, "pieces", lines)
    found = {"documents": 4.141, "vocabulary": 4.076}
    lines += [json.loads(_line(cell, 4.109 if cell.adam == 1.0 else found.get(cell.piece, 4.2))) for cell in pieces]
    for group in ("seeds", "large"):
        winners = {cell for cell in recipe.cells(options, group, lines) if cell.arm == "qwen3 Muon"}
        assert {(cell.lr, cell.tokens, cell.piece, cell.adam, cell.corpus) for cell in winners} == {
            (0.04, 2_000_000, "documents", None, "")
        }

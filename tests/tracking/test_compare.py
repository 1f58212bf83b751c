"""`kogpt compare`: runs where they have the same tokens, or the same time, behind them."""

from pathlib import Path
from typing import Any

import pytest
from builders import record, write_records

from kogpt.tracking.compare import Comparison


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """The second takes half the tokens a step, a third of the time, and is trained twice as long."""
    about = {"parameters": 1000, "device": "cpu", "model": {"arch": "gpt2", "n_layer": 4}, "seed": 1}
    slow = [record(n, step_s=3600.0, val_bits_per_char=6.0 - n, val_loss=1 / n, tokens=100 * n) for n in (1, 2)]
    fast = [
        record(n, step_s=1200.0, val_bits_per_char=6.0 - n / 2, val_loss=1 / n, tokens=50 * n) for n in (1, 2, 3, 4, 5)
    ]
    return [
        write_records(tmp_path / "느린", *slow, **about),
        write_records(tmp_path / "fast", *fast, **about, adam={"lr": 0.01}, precision="bf16"),
    ]


def test_numbers_at_equal_tokens_and_equal_time(runs: list[Path]) -> None:
    compared = Comparison(runs)
    assert (compared.tokens, compared.hours) == (200, pytest.approx(5 / 3)), "what both have come to"
    numbers = {row[0]: row[1:] for row in compared.numbers()}
    assert numbers["best bits per character"] == ["4.0000", "3.5000"]
    assert numbers["that at 200 tokens"] == ["4.0000", "4.0000"]
    assert numbers["that at 1.67 hours"] == ["4.3333", "3.5000"]
    assert numbers["hours of training"] == ["2.00", "1.67"]


def test_the_command(runs: list[Path], tmp_path: Path, kogpt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = kogpt("compare", *runs)
    assert done.returncode == 0, done.stderr
    for word in ("느린", "fast", "that at 200 tokens", "adam.lr", "precision", "bf16"):
        assert word in done.stdout
    assert "model.n_layer" not in done.stdout, "it is the same in both"
    text = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 4
    assert text.count("느린") >= 4


def test_what_makes_numbers_unequal_is_said(runs: list[Path], tmp_path: Path) -> None:
    other = write_records(tmp_path / "third", record(1, step_s=1.0), corpus="1" * 64, device="NVIDIA H100")
    compared = Comparison([*runs, other])
    assert [note.split()[1] for note in compared.notes] == ["corpora", "machines", "validated:"]
    assert compared.tokens == 200, "it is not held back by a run without validation"
    compared.write_page(tmp_path / "page.html")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_one_run_is_not_compared(count: int, runs: list[Path], kogpt: Any) -> None:
    done = kogpt("compare", *runs[:1] * count)
    assert done.returncode == 2
    assert "at least two runs" in done.stderr

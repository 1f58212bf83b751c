"""curves.png can be drawn from any metrics.jsonl."""

from pathlib import Path

from builders import record

from kogpt.tracking.curves import draw_curves


def test_curves_bear_missing_numbers(tmp_path: Path) -> None:
    records = [record(1), record(2, loss=None, grad_norm=None), record(3, val_loss=2.0, val_bits_per_char=3.0)]
    draw_curves(tmp_path / "curves.png", records)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")

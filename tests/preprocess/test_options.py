"""Conflicting flags are reported, all of them at once."""

from pathlib import Path

import pytest

from kogpt.common.errors import UserError
from preprocess.options import Options


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": ()}, "--input is empty"),
        ({"layout": "aihub"}, "--layout aihub is unknown; choose one of auto, aihub-book, aihub-582"),
        ({"layout": "nikl", "text_path": "text"}, "--layout and --text-path"),
        ({"tokenizer": "x", "vocab_size": 1000}, "--tokenizer and --vocab-size"),
        ({"workers": 0}, "--workers 0 must be 1 or more"),
        ({"limit": -1}, "--limit -1 must be 1 or more"),
        ({"val_fraction": 1.0}, r"--val-fraction 1.0 must be at least 0 and below 1"),
        ({"cache": "s3://bucket/x"}, "--cache s3://bucket/x must be a folder"),
        ({"workers": 0, "limit": 0}, "--workers 0 must be 1 or more; --limit 0 must be 1 or more"),
    ],
)
def test_problems_are_named(flags: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Options(**{"input": ("x",), "output": "y"} | flags)


def test_cache_lies_beside_the_output_unless_it_is_named(tmp_path: Path) -> None:
    assert Options(input=("x",), output=f"{tmp_path}/a/corpus").cache_folder == tmp_path / "a" / "morphemes"
    assert Options(input=("x",), output="c", cache=str(tmp_path)).cache_folder == tmp_path

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
        ({"vocab_size": 100}, "--vocab-size is 100; give at least 300"),
        ({"workers": 0}, "--workers is 0; give at least 1"),
        ({"limit": -1}, "--limit is -1; give at least 1"),
        ({"val_fraction": 1.0}, "--val-fraction is 1.0; give less than 1"),
        ({"cache": "s3://bucket/x"}, "--cache s3://bucket/x must be a folder"),
        ({"workers": 0, "limit": 0}, "--workers is 0; give at least 1.\n--limit is 0; give at least 1."),
    ],
)
def test_problems_are_named(flags: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Options(**{"input": ("x",), "output": "y"} | flags)


def test_cache_lies_beside_the_output_unless_it_is_named(tmp_path: Path) -> None:
    assert Options(input=("x",), output=f"{tmp_path}/a/corpus").cache_folder == tmp_path / "a" / "morphemes"
    assert Options(input=("x",), output="c", cache=str(tmp_path)).cache_folder == tmp_path

"""Text files in the encodings of Korean files."""

import gzip
import os
from pathlib import Path

import pytest

from kogpt.common.errors import UserError
from kogpt.common.text_files import json_lines, read_text


def test_encodings_and_gzip(tmp_path: Path) -> None:
    contents = {"a.txt": "똠방각하".encode(), "b.txt": "\ufeff똠방각하".encode(), "c.txt": "똠방각하".encode("cp949")}
    contents["d.txt.gz"] = gzip.compress(contents["c.txt"])
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert read_text(tmp_path / name) == "똠방각하"


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"0123456789" * 100)[:20])
    (tmp_path / "binary").write_bytes(bytes([0x80, 0xFF, 0x00]))
    for name in ("cut.gz", "binary", "absent"):
        with pytest.raises(UserError, match=f"{name} cannot be read"):
            read_text(tmp_path / name)


def test_a_device_or_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """They may have no end. So may a link to one, which can have any name."""
    (tmp_path / "device.txt").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "pipe.txt")
    for name in ("device", "pipe"):
        with pytest.raises(UserError, match=rf"{name}\.txt is no regular file"):
            read_text(tmp_path / f"{name}.txt")


def test_json_lines_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": "\u2028"}\n\n{"b": 1}\n')
    assert json_lines(path) == [(1, {"a": "\u2028"}), (3, {"b": 1})]
    path.write_text('{"a": 1}\n[]\n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        json_lines(path)

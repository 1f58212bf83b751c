"""Dropped texts are reported, and an --input without articles is an error."""

import tempfile
from pathlib import Path

import pytest
from pipelines import articles_in, scan_of

from kogpt.common.errors import UserError
from preprocess.layouts import named_layout
from preprocess.losses import Losses
from preprocess.sources import find_sources


def watch(*inputs: Path) -> Losses:
    sources = find_sources(tuple(map(str, inputs)))
    losses = Losses(sources)
    with tempfile.TemporaryDirectory() as outlines:
        scan_of(articles_in(sources, named_layout("plain")), Path(outlines), losses=losses)
    return losses


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("good", "same", "other", "odd", "torn"):
        (tmp_path / name).mkdir()
    (tmp_path / "good" / "a.jsonl").write_text('{"text": "글"}\n{"text": ""}\n')
    (tmp_path / "same" / "a.jsonl").write_text('{"text": "글"}\n')
    (tmp_path / "other" / "b.csv").write_text("내용\n긴 글이다\n")
    (tmp_path / "odd" / "c.hwp").write_text("x")
    (tmp_path / "odd" / ".c.txt").write_text("x")
    (tmp_path / "torn" / "d.zip").write_bytes(b"PK")
    return tmp_path


def test_each_reason_has_a_file_a_cause_and_a_mend(folder: Path) -> None:
    assert watch(folder).lines() == [
        "  no text at the path: other/b.csv: looked for text; found 내용; give the path with --text-path 내용",
        "  unknown file type: odd/c.hwp: .hwp; known are .json, .jsonl, .ndjson, .txt, .parquet; unpack or convert it; "
        "supported are .json, .jsonl, .ndjson, .txt, .csv, .tsv, .parquet, .conllu, .wiki, WikiExtractor's files, and "
        "all of them in .zip, .tar, .gz, .bz2, .xz, .zst",
        "  unreadable file: torn/d.zip: File is not a zip file",
    ]
    watch(folder).refuse_empty_inputs()


def test_an_input_that_gives_nothing_is_an_error(folder: Path) -> None:
    watch(folder / "good", folder / "torn").refuse_empty_inputs()
    watch(folder / "good", folder / "same").refuse_empty_inputs()
    for name, why in (("other", r"\(1 no text at the path\): other/b.csv: .*--text-path 내용"),
                      ("odd", r"\(1 system file, 1 unknown file type\): odd/c.hwp: ")):  # fmt: skip
        with pytest.raises(UserError, match=f"--input .*/{name}: it has no article {why}"):
            watch(folder / "good", folder / name).refuse_empty_inputs()
    with pytest.raises(
        UserError, match=r"--input .*/torn: it has no article \(1 unreadable file\): d.zip: File is not"
    ):
        watch(folder / "torn").refuse_empty_inputs()

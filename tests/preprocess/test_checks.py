"""Mistakes that are reported before the work starts."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kogpt.common.errors import UserError
from preprocess.checks import check, check_apart, check_output, check_url_apart, not_ours
from preprocess.options import Options
from preprocess.sources import find_sources


def options(folder: Path, **changes: Any) -> Options:
    return replace(Options(input=(str(folder / "in"),), output=str(folder / "corpus"), analyzer="none"), **changes)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        check_output(tmp_path / "file")
    with pytest.raises(UserError, match="holds something that is not a corpus"):
        check_output(tmp_path)
    for flag in ("--output", "--cache"):
        with pytest.raises(UserError, match=rf"{flag} .* is inside --input"):
            check_apart(flag, tmp_path / "corpus", (str(tmp_path),))
        check_apart(flag, tmp_path / "corpus", (str(tmp_path / "file"), "memory://x"))


def test_a_cache_in_the_input_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UserError, match=r"--cache .* is inside --input"):
        check(options(tmp_path, cache=str(tmp_path / "in" / "cache")))
    assert os.listdir(tmp_path / "in") == []


def test_other_names_of_a_place_are_the_same_place(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inside, file = tmp_path / "in" / "corpus", "file://"
    with pytest.raises(UserError, match="is inside --input"):
        check_apart("--output", inside, (f"{file}{tmp_path}/in",))
    for url, item in (
        (f"{file}{inside}", f"{tmp_path}/in/"),
        ("s3a://bucket/in/corpus", "s3://bucket/in"),
        ("memory://in/corpus", "memory:///in/"),
    ):
        with pytest.raises(UserError, match="is inside --input"):
            check_url_apart(url, (item,))
        check_url_apart(url, (f"{item.rstrip('/')}put", "nosuch://bucket"))
    for name in ("a.json", "corpus/manifest.json"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text("{}")
    wanted = options(tmp_path, input=(str(tmp_path / "in"),), output=f"{file}{inside}", cache=str(tmp_path / "cache"))
    assert [source.name for source in not_ours(find_sources(wanted.input), wanted)] == ["a.json"]


@pytest.mark.parametrize("flag", ["output", "cache"])
def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path, flag: str) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file" / "below", Path("/proc/nowhere")):
        with pytest.raises(UserError, match=f"--{flag} {folder} cannot be written"):
            check(options(tmp_path, **{flag: str(folder)}))


def test_a_url_nobody_can_write(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--output nosuch://x cannot be written"):
        check(options(tmp_path, output="nosuch://x"))


def test_a_glob_passes_over_what_a_run_wrote(tmp_path: Path) -> None:
    wanted = options(tmp_path, input=(str(tmp_path / "**" / "*"),), cache=str(tmp_path / "cache"))
    check(wanted)
    (tmp_path / "a.json").write_text(json.dumps({"text": "글"}))
    (tmp_path / "cache" / "mine.json").write_text(json.dumps({"text": "내 글"}))
    (tmp_path / "cache" / f"{'a' * 64}.{'b' * 64}").write_bytes(b"a result")
    (tmp_path / "cache" / ".lock").touch()
    (tmp_path / "corpus" / "manifest.json").write_text("{}")
    (tmp_path / "corpus" / ".work").mkdir()
    (tmp_path / "corpus" / ".work" / "plan.json").write_text("{}")
    assert [source.name for source in not_ours(find_sources(wanted.input), wanted)] == ["a.json", "cache/mine.json"]

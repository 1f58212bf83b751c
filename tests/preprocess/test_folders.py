"""Folders with links, cycles, pipes, and missing permissions."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from preprocess.sources import find_sources
from preprocess.streams import Broken


def names(*inputs: Path | str) -> dict[str, str]:
    """name -> content, or (reason, detail) why it cannot be read."""
    found = {}
    for source in find_sources(tuple(map(str, inputs))):
        for name, stream in source.members():
            found[name] = f"{stream.reason}: {stream.detail}" if isinstance(stream, Broken) else stream.read().decode()
    return found


@pytest.fixture
def farm(tmp_path: Path) -> Path:
    """farm/d1 and farm/d2 are links to store/1 and store/2, as dataset managers lay them out."""
    for i in "12":
        (tmp_path / "store" / i / "deep").mkdir(parents=True)
        (tmp_path / "store" / i / "x.json").write_text(i)
        (tmp_path / "store" / i / "deep" / "y.json").write_text(f"deep {i}")
        (tmp_path / "farm").mkdir(exist_ok=True)
        (tmp_path / "farm" / f"d{i}").symlink_to(f"../store/{i}")
    return tmp_path / "farm"


def test_links_to_folders_are_followed(farm: Path) -> None:
    everything = {"d1/deep/y.json": "deep 1", "d1/x.json": "1", "d2/deep/y.json": "deep 2", "d2/x.json": "2"}
    assert names(farm) == everything
    assert names(farm / "*" / "*.json") == {"d1/x.json": "1", "d2/x.json": "2"}
    assert names(farm / "**" / "*.json") == everything
    assert names(farm / "**" / "y*") == {name: text for name, text in everything.items() if "y.json" in name}
    assert names(farm / "**") == everything
    assert names(farm / "?2" / "deep" / "y.json") == {"d2/deep/y.json": "deep 2"}


def test_a_folder_is_read_once_and_under_its_own_name(farm: Path) -> None:
    assert set(names(farm.parent)) == {"store/1/deep/y.json", "store/1/x.json", "store/2/deep/y.json", "store/2/x.json"}
    assert names(farm.parent / "*m" / "*" / "x.json") == {"farm/d1/x.json": "1", "farm/d2/x.json": "2"}


def test_a_cycle_of_links_ends(farm: Path) -> None:
    (farm / "here").symlink_to(".")
    (farm.parent / "store" / "1" / "up").symlink_to("../../farm")
    for i in range(30):  # each with two links to the next: 2^30 paths
        (farm / f"c{i}").mkdir()
        for way in "ab":
            (farm / f"c{i}" / way).symlink_to(f"../c{i + 1}" if i < 29 else "../d2")
    found = names(farm)
    assert sorted(found.values()) == ["1", "2", "deep 1", "deep 2"]
    assert sorted(names(farm / "**" / "x.json").values()) == ["1", "2"]


@contextmanager
def as_a_common_user(folder: Path) -> Iterator[None]:
    """Root may list everything."""
    if os.geteuid():
        yield
        return
    for path in [folder, *folder.parents]:
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_cannot_be_read_is_listed(farm: Path) -> None:
    shut = farm / "shut"
    shut.mkdir()
    (shut / "z.json").write_text("z")
    shut.chmod(0)
    (farm / "gone.json").symlink_to("nowhere")
    os.mkfifo(farm / "pipe.json")
    (farm / ".hidden").mkdir()
    (farm / ".hidden" / "z.json").write_text("z")
    with as_a_common_user(farm):
        found = names(farm)
        globbed = names(farm / "*" / "x.json")
    shut.chmod(0o700)
    assert found.pop("shut") == globbed.pop("shut") == "unreadable file: the folder cannot be listed: Permission denied"
    assert found.pop("gone.json") == "unreadable file: a broken link"
    assert found.pop("pipe.json").startswith("unreadable file: a pipe, a socket or a device")
    assert found.pop(".hidden").startswith("system file: hidden")
    assert sorted(found.values()) == ["1", "2", "deep 1", "deep 2"]
    assert globbed == {"d1/x.json": "1", "d2/x.json": "2"}


def test_a_pipe_that_is_named_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    assert names(tmp_path / "pipe.json")["pipe.json"].startswith("unreadable file: a pipe")


def test_a_hidden_file_that_is_named_is_read(tmp_path: Path) -> None:
    (tmp_path / ".a.txt").write_text("a")
    assert names(tmp_path / ".a.txt") == {".a.txt": "a"}
    assert names(tmp_path / ".*.txt") == {".a.txt": "a"}


def test_hidden_folder_above_the_input_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "x").mkdir(parents=True)
    (tmp_path / ".cache" / "x" / "a.txt").write_text("a")
    assert names(tmp_path / ".cache" / "x") == {"a.txt": "a"}
    assert names(tmp_path / ".cache" / "*" / "a.txt") == {"x/a.txt": "a"}

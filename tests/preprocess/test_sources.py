"""Folders, globs, and archives: which streams they give, with which names, in which order."""

import gzip
import io
import unicodedata
import zipfile
from pathlib import Path

import fsspec
import pytest
import zstandard

from kogpt.common.errors import UserError
from preprocess.sources import find_sources


def contents(*inputs: str | Path) -> dict[str, bytes | str]:
    """name -> content of all members of the inputs in order, or the type of the error."""
    found: dict[str, bytes | str] = {}
    for source in find_sources(tuple(map(str, inputs))):
        for name, stream in source.members():
            assert name not in found
            found[name] = type(stream).__name__ if isinstance(stream, Exception) else stream.read()
    return found


def cp949_zip(members: dict[str, bytes]) -> bytes:
    """A zip as Korean Windows writes it: names in cp949, without the UTF-8 flag."""
    buffer = io.BytesIO()
    names = {chr(ord("A") + i) + "~" * (len(name.encode("cp949")) - 1): name for i, name in enumerate(members)}
    with zipfile.ZipFile(buffer, "w") as archive:
        for placeholder, name in names.items():
            archive.writestr(zipfile.ZipInfo(placeholder), members[name])
    data = buffer.getvalue()
    for placeholder, name in names.items():
        assert data.count(placeholder.encode()) == 2  # local header and central directory
        data = data.replace(placeholder.encode(), name.encode("cp949"))
    return data


def test_folder_is_walked_in_the_order_of_nfc_names(tmp_path: Path) -> None:
    names = ["나.txt", "가.txt", "b/라[1]~2.txt", "a.txt"]
    for i, name in enumerate(names):
        path = tmp_path / unicodedata.normalize("NFD", name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(str(i))
    assert contents(tmp_path) == {"a.txt": b"3", "b/라[1]~2.txt": b"2", "가.txt": b"1", "나.txt": b"0"}
    assert list(contents(tmp_path)) == sorted(names)


def test_names_that_nfc_makes_equal_stay_apart(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        (tmp_path / unicodedata.normalize(form, "가.txt")).write_text(form)
    assert sorted(contents(tmp_path).items()) == [("가.txt", b"NFD"), ("가.txt~2", b"NFC")]


def test_several_inputs_are_named_from_what_they_share_and_read_once(tmp_path: Path) -> None:
    for name in ("x/1.txt", "y/1.txt", "y/2.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    both = contents(tmp_path / "y", tmp_path / "x", tmp_path / "y" / "2.json")
    assert list(both) == ["x/1.txt", "y/1.txt", "y/2.json"]
    assert list(contents(tmp_path / "y")) == ["1.txt", "2.json"]
    assert list(contents(tmp_path / "y" / "1.txt")) == ["1.txt"]


def test_glob_and_a_folder_whose_name_looks_like_one(tmp_path: Path) -> None:
    folder = tmp_path / "[라벨]요약*"
    folder.mkdir()
    for name in ("1.json", "2.json", "3.txt"):
        (folder / name).write_text(name)
    assert list(contents(folder)) == ["1.json", "2.json", "3.txt"]
    assert list(contents(tmp_path / "*" / "*.json")) == ["[라벨]요약*/1.json", "[라벨]요약*/2.json"]


def test_archives_are_read_in_place_one_inside_another(tmp_path: Path) -> None:
    inner = cp949_zip({"원천/글.txt": b"deep"})
    with zipfile.ZipFile(tmp_path / "TL1.zip", "w") as archive:
        archive.writestr("라벨/가.json", b"{}")
        archive.writestr("VL1.zip", inner)
        archive.writestr("b.jsonl.gz", gzip.compress(b"1\n"))
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(b"one ") + zstandard.compress(b"two"))
    (tmp_path / "c.txt").write_bytes(b"plain")
    assert contents(tmp_path) == {
        "TL1.zip/VL1.zip/원천/글.txt": b"deep",
        "TL1.zip/b.jsonl.gz": b"1\n",
        "TL1.zip/라벨/가.json": b"{}",
        "c.txt": b"plain",
        "c.txt.zst": b"one two",
    }


def test_zip_names_in_cp949_and_in_unflagged_utf8(tmp_path: Path) -> None:
    (tmp_path / "windows.zip").write_bytes(cp949_zip({"도서자료 요약/똠방각하.json": b"1", "가나다라.json": b"2"}))
    assert contents(tmp_path) == {
        "windows.zip/가나다라.json": b"2",
        "windows.zip/도서자료 요약/똠방각하.json": b"1",
    }
    mac = io.BytesIO()
    with zipfile.ZipFile(mac, "w") as archive:
        archive.writestr(zipfile.ZipInfo("xxx.json"), b"1")
    (tmp_path / "windows.zip").write_bytes(mac.getvalue().replace(b"xxx", "한".encode()))
    assert contents(tmp_path) == {"windows.zip/한.json": b"1"}


def test_truncated_zip_costs_itself(tmp_path: Path) -> None:
    whole = cp949_zip({"1.txt": b"first" * 100, "2.txt": b"second" * 100})
    (tmp_path / "a.zip").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.txt").write_text("good")
    assert contents(tmp_path) == {"a.zip": "BadZipFile", "b.txt": b"good"}


def test_urls_of_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({"/corpus/b/2.txt": b"two", "/corpus/1.txt": b"one"})
    try:
        assert contents("memory://corpus") == {"1.txt": b"one", "b/2.txt": b"two"}
    finally:
        memory.rm("/corpus", recursive=True)


def test_what_is_not_there_is_named_with_the_node(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for missing in (tmp_path / "nothing", tmp_path / "*.json", tmp_path / "empty"):
        with pytest.raises(UserError, match=r"no file found on .*, the node that reads all input"):
            find_sources((str(missing),))
    with pytest.raises(UserError, match="--input nosuch://x cannot be read from"):
        find_sources(("nosuch://x",))

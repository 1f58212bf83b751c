"""Archives as users have them: from a Mac, split, encrypted, truncated, damaged, and malicious."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from preprocess import streams
from preprocess.archives import distinct, is_complete, is_system_file, kind_of, members, part_of
from preprocess.sources import find_sources
from preprocess.streams import Broken, Joined


def contents(folder: Path) -> dict[str, bytes | str]:
    """name -> content, or the reason why it cannot be read."""
    found: dict[str, bytes | str] = {}
    for source in find_sources((str(folder),)):
        for name, stream in source.members():
            assert name not in found
            try:
                if isinstance(stream, Exception):
                    raise stream
                found[name] = stream.read()
            except Broken as broken:
                found[name] = broken.reason
            except streams.READ_ERRORS as error:
                found[name] = type(error).__name__
    return found


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FILES = {"기사/0.json": b"zero", "기사/1.json": b"one" * 1000}


def named(archive: str) -> dict[str, bytes | str]:
    return {f"{archive}/{name}": content for name, content in FILES.items()}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_macs_and_windows_leave_beside_files_is_no_article(tmp_path: Path) -> None:
    left = [
        "__MACOSX/기사/._0.json",
        "기사/._0.json",
        "기사/.DS_Store",
        "Thumbs.db",
        "~$글.docx",
        "desktop.ini",
        ".x/1.json",
    ]
    (tmp_path / "a.zip").write_bytes(zipped(dict.fromkeys(left, b"no") | FILES))
    (tmp_path / "b.tar").write_bytes(tarred({f"./{name}": b"no" for name in left} | FILES))
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as left_again:
        left_again.writestr("Thumbs.db", b"no")
    found = contents(tmp_path)
    for archive in ("a.zip", "b.tar"):
        assert {name for name, content in found.items() if content == "system file"} >= {f"{archive}/{n}" for n in left}
    assert found["a.zip/Thumbs.db~2"] == "system file"
    assert {k: v for k, v in found.items() if v != "system file"} == {**named("a.zip"), **named("b.tar")}
    assert not is_system_file("../a b/~글$.json")


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "tar.zst", "zip.gz"])
def test_every_kind_of_archive_is_read(tmp_path: Path, kind: str) -> None:
    plain = zipped(FILES) if kind == "zip.gz" else tarred(FILES)
    pack: dict[str, Any] = {"tar": bytes, "xz": lzma.compress, "bz2": bz2.compress, "zst": zstandard.compress}
    (tmp_path / f"a.{kind}").write_bytes(pack.get(kind.rpartition(".")[2], gzip.compress)(plain))
    assert contents(tmp_path) == named(f"a.{kind}")


def test_tar_of_a_zip_and_zip_of_a_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tarred({"x.zip": zipped(FILES)})))
    (tmp_path / "b.zip").write_bytes(zipped({"x.tar": tarred(FILES), "y.json.gz": gzip.compress(b"{}")}))
    expected = {**named("a.tar.gz/x.zip"), **named("b.zip/x.tar"), "b.zip/y.json.gz": b"{}"}
    assert contents(tmp_path) == expected


@given(st.lists(st.sampled_from(["a.json", "a.json~2", "a.json~3", "a.json~2~2", "b.json"])))
def test_distinct_names_differ_and_keep_their_kind(names: list[str]) -> None:
    """Also where a file has the name that another one would get."""
    made = distinct(names)
    assert len({*made}) == len(names)
    assert {kind_of(name) for name in made} <= {".json"}
    assert all(new == old for i, (new, old) in enumerate(zip(made, names, strict=True)) if old not in made[:i])


def test_a_file_whose_name_another_one_got_is_read_as_well(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for i, name in enumerate(["a.zip", "a.zip", "a.zip~2"]):
            content = zipped({"x.json": b"%d" % i})
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    made = ["a.zip", "a.zip~2", "a.zip~2~2"]
    assert contents(tmp_path) == {f"t.tar/{name}/x.json": b"%d" % i for i, name in enumerate(made)}
    assert part_of("a.zip.001~2~2") == ("a.zip~2~2", 1)


def test_a_name_that_nobody_made_distinct_keeps_its_kind() -> None:
    assert [kind_of(f"a.json{added}") for added in ("~2", "~10", "~1", "~02")] == [
        ".json",
        ".json",
        ".json~1",
        ".json~02",
    ]


@pytest.mark.parametrize("suffixes", [("part0", "part1000", "part2000"), ("001", "002", "003"), ("part1", "part2")])
def test_parts_are_read_as_the_file_they_were(tmp_path: Path, suffixes: tuple[str, ...]) -> None:
    whole = zipped(FILES, zipfile.ZIP_STORED)
    cut = len(whole) // len(suffixes) + 1
    parts = {f"TL_1.zip.{suffix}": whole[i * cut : (i + 1) * cut] for i, suffix in enumerate(suffixes)}
    backwards = dict(reversed(parts.items()))
    (tmp_path / "folder").mkdir()
    for name, content in backwards.items():
        (tmp_path / "folder" / name).write_bytes(content)
    (tmp_path / "download.tar").write_bytes(
        tarred({f"130.요약/{k}": v for k, v in backwards.items()} | {"a.txt": b"a"})
    )
    (tmp_path / "download.tar.gz").write_bytes(gzip.compress((tmp_path / "download.tar").read_bytes()))
    assert contents(tmp_path) == {
        **named("download.tar/130.요약/TL_1.zip"),
        **named("download.tar.gz/130.요약/TL_1.zip"),
        **named("folder/TL_1.zip"),
        "download.tar/a.txt": b"a",
        "download.tar.gz/a.txt": b"a",
    }


def test_a_missing_part_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.zip.001").write_bytes(b"PK")
    (tmp_path / "a.zip.003").write_bytes(b"PK")
    (tmp_path / "a.zip.004").write_bytes(b"PK")
    assert contents(tmp_path) == {"a.zip": "unreadable file"}
    assert is_complete([0, 1 << 30, 2 << 30])
    assert not is_complete([0, 1 << 30, 3 << 30])
    assert not is_complete([2, 3])


def test_joined_parts_seek_like_the_whole(tmp_path: Path) -> None:
    whole = bytes(range(250))
    parts = [(lambda a=a: io.BytesIO(whole[a : a + 40]), len(whole[a : a + 40])) for a in range(0, 250, 40)]
    stream = io.BufferedReader(Joined(parts))
    assert stream.read() == whole
    for at in (0, 39, 40, 41, 249, 100):
        stream.seek(at)
        assert stream.read(45) == whole[at : at + 45]
    assert stream.seek(-3, io.SEEK_END) == 247
    assert stream.read() == whole[-3:]


def lock(content: bytes, count: int) -> bytes:
    """The first members of a zip marked as encrypted, in both of their headers."""
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        for _ in range(count):
            at = content.index(signature, at + 1)
            content = content[: at + flags] + b"\x01" + content[at + flags + 1 :]
    return content


def test_locked_zip_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "all.zip").write_bytes(lock(zipped(FILES), 2))
    (tmp_path / "one.zip").write_bytes(lock(zipped({"a.txt": b"a", "b.txt": b"b"}), 1))
    assert contents(tmp_path) == {"all.zip": "encrypted", "one.zip/a.txt": "encrypted", "one.zip/b.txt": b"b"}


def test_damage_in_a_tar_is_not_taken_for_its_end(tmp_path: Path) -> None:
    whole = tarred({"1.txt": b"1", "2.txt": b"2", "3.txt": b"3"})
    damaged = whole[:1024] + b"\xff" + whole[1025:]
    (tmp_path / "a.tar").write_bytes(damaged)
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(damaged))
    (tmp_path / "c.tar").write_bytes(whole[:1500])
    (tmp_path / "d.txt").write_bytes(b"d")
    assert contents(tmp_path) == {
        "a.tar/1.txt": b"1",
        "a.tar": "ReadError",
        "b.tar.gz/1.txt": b"1",
        "b.tar.gz": "ReadError",
        "c.tar/1.txt": b"1",
        "c.tar": "ReadError",
        "d.txt": b"d",
    }


def test_nesting_without_end_costs_itself(tmp_path: Path) -> None:
    deep = b"deep"
    for _ in range(9):
        deep = zipped({"x.zip": deep})
    endless = f"a{'.gz' * 3000}"
    (tmp_path / "a.zip").write_bytes(zipped({endless: gzip.compress(b"x"), "b.txt": b"good", "c.zip": deep}))
    found = contents(tmp_path)
    assert found.pop("a.zip/b.txt") == b"good"
    assert list(found.values()) == ["nested too deep", "nested too deep"]
    assert kind_of(endless) == ""
    layers = b"x"
    for _ in range(9):
        layers = gzip.compress(layers)
    (tmp_path / "a.zip").unlink()
    (tmp_path / f"a.txt{'.gz' * 9}").write_bytes(layers)
    (tmp_path / f"b.txt{'.gz' * 8}").write_bytes(gzip.decompress(layers))
    assert list(contents(tmp_path).values()) == ["nested too deep", b"x"]


def test_a_bomb_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MIN_INFLATED", 100_000)
    bomb = bytes(3_000_000)
    text = ("사람은 서로 다르다. " * 8000).encode()  # repeats itself, and is smaller than the smallest limit
    nested = zipped({"x.zip": zipped({f"{i}.txt": bomb for i in range(3)})})
    (tmp_path / "a.zip").write_bytes(zipped({"bomb.txt": bomb, "good.txt": text[:90_000], "nested.zip": nested}))
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(bomb))
    (tmp_path / "c.txt.zst").write_bytes(zstandard.compress(bomb))
    found = contents(tmp_path)
    assert found.pop("a.zip/good.txt") == text[:90_000]
    assert set(found.values()) == {"inflates without end"}
    assert set(found) >= {"a.zip/bomb.txt", "b.txt.gz", "c.txt.zst"}


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    content = bytearray(zipped({f"{i}.txt": bytes(range(256)) * 4 for i in range(4)}, zipfile.ZIP_STORED))
    first = content.index(b"PK\x01\x02")
    entries = []
    at = first
    while content[at : at + 4] == b"PK\x01\x02":
        entries.append(at)
        at += 46 + int.from_bytes(content[at + 28 : at + 30], "little")
    for entry in entries:  # each claims everything before the directory
        content[entry + 20 : entry + 24] = (first - 100).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    assert contents(tmp_path) == {"a.zip": "unreadable file"}


def test_large_archive_in_an_archive_goes_through_a_file(tmp_path: Path) -> None:
    import resource

    big = bytes(range(256)) * 4096
    stored = zipped({f"{i}.bin": big for i in range(24)}, zipfile.ZIP_STORED)
    (tmp_path / "a.zip").write_bytes(zipped({"in.zip": stored}, zipfile.ZIP_STORED))
    del stored
    (source,) = find_sources((str(tmp_path),))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for name, stream in source.members() if not isinstance(stream, Exception)) == 24
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10
    assert [name for name, _ in members("x.txt", io.BytesIO(b""))] == ["x.txt"]

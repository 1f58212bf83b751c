"""The prepared dictionaries: a cache that speeds up the next start, whatever becomes of it."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kogpt.tokenizer.analyzers.kkma import prepared
from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java
from kogpt.tokenizer.analyzers.kkma.prepared import keep, prepared_file, read

JAR = konlpy_java() / "kkma-2.0.jar"
ARRAYS = b"arrays" * 1000
PROGRAM = """
import json, sys
from kogpt.tokenizer.analyzers.kkma import analyzer
from kogpt.tokenizer.analyzers.load import load_analyzer
kept, keep = [], analyzer.keep
analyzer.keep = lambda path, arrays: (kept.append(str(path)), keep(path, arrays))
kkma = load_analyzer("kkma")
print(json.dumps([kept, [kkma.analyze(text).morphemes for text in json.load(sys.stdin)]]))
"""


# Kkma's own dictionary is loaded from its texts, beside the arrays; an expression's text has all that it consists of.
COMPARISON = """
import jpype
from kogpt.tokenizer.analyzers.load import load_analyzer
load_analyzer("kkma")
kkma = jpype.JClass("org.snu.ids.ha.dic.Dictionary").getInstance()
lexicon = jpype.JClass("org.snu.ids.ha.ma.Lexicon").class_
find, contain_noun = (method for name in ("find", "containNoun") for method in lexicon.getDeclaredMethods()
                      if method.getName() == name)
find.setAccessible(True)
contain_noun.setAccessible(True)
words = [str(expression.getExp()) for expression in list(kkma.getAsList())[::200]]
for word in [*words, *(word + "뷁" for word in words)]:
    theirs, ours = kkma.getMExpression(word), find.invoke(None, None, word)
    assert (theirs is None and ours is None) or str(theirs) == str(ours), f"{theirs} {ours}"
    assert bool(kkma.containNoun(word)) == bool(contain_noun.invoke(None, None, word)), word
print(len(words))
"""


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keep(path, lambda: ARRAYS)


def cut(path: Path) -> None:
    write(path)
    os.truncate(path, 5000)


def flip(path: Path) -> None:
    write(path)
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)


def huge(path: Path) -> None:
    write(path)
    os.truncate(path, prepared._LARGEST + 1)  # a sparse file


BROKEN: list[Callable[[Path], object]] = [
    cut,
    flip,
    huge,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("not ours"),
    os.mkfifo,
    Path.mkdir,
    lambda path: path.symlink_to(path),
]


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "key.arrays"
    assert read(path) is None
    keep(path, lambda: ARRAYS)
    assert bytes(read(path) or b"") == ARRAYS
    assert sorted(file.name for file in path.parent.iterdir()) == ["key.arrays", "lock"]


@pytest.mark.parametrize("harm", BROKEN)
def test_what_is_broken_is_not_read_but_replaced(tmp_path: Path, harm: Callable[[Path], object]) -> None:
    path = tmp_path / "key.arrays"
    harm(path)
    assert read(path) is None
    keep(path, lambda: ARRAYS)
    if path.is_file():
        assert bytes(read(path) or b"") == ARRAYS


def test_where_nothing_can_be_written_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "kkma" / "key.arrays", Path("/proc/kogpt/key.arrays"), None):
        keep(path, lambda: ARRAYS)
        assert read(path) is None


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "key.arrays"
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        keep(path, lambda: ARRAYS)
        assert not path.exists()
    keep(path, lambda: ARRAYS)
    assert path.exists()
    before = path.stat().st_ino
    keep(path, lambda: ARRAYS)
    assert path.stat().st_ino == before, "it was there already"


def test_a_file_system_without_locks_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", none)
    keep(tmp_path / "key.arrays", lambda: ARRAYS)
    assert read(tmp_path / "key.arrays") is not None


def test_old_versions_go(tmp_path: Path) -> None:
    for number in range(6):
        keep(tmp_path / f"{number}.arrays", lambda: ARRAYS)
        os.utime(tmp_path / f"{number}.arrays", (number, number))
    assert sorted(path.stem for path in tmp_path.glob("*.arrays")) == ["2", "3", "4", "5"]


def test_another_jar_and_other_code_have_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = prepared_file(JAR)
    (tmp_path / "jar").write_bytes(b"another")
    assert prepared_file(tmp_path / "jar") != ours == prepared_file(JAR)
    monkeypatch.setattr(prepared, "code_digest", lambda room, java: java)
    assert prepared_file(JAR) != ours


@pytest.mark.parametrize("home", ["", "/", "relative"])
def test_without_a_home_there_is_no_file(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", home)
    assert prepared_file(JAR) is None


def test_a_user_without_a_home_has_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert prepared_file(JAR) is None


def run(program: str, home: Path, texts: list[str]) -> Any:
    """What a program with this home prints last."""
    command, environment = [sys.executable, "-c", program], os.environ | {"HOME": str(home)}
    done = subprocess.run(
        command, input=json.dumps(texts), env=environment, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_second_start_reads_what_the_first_one_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laws = sorted((konlpy_java().parent / "data" / "corpus").glob("*/*.txt"))
    texts = [
        *(path.read_text("utf-8")[:3000] for path in laws),
        "뷁쉙뷁이다 쀍쀍했는데요 ㅋㅋ",
        "漢字 신비감 x1-y2 개굴개굴",
    ]
    monkeypatch.setenv("HOME", str(tmp_path))
    path = prepared_file(JAR)
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\0" * 100)
    made, from_texts = run(PROGRAM, tmp_path, texts)
    assert made == [str(path)]
    assert read(path) is not None
    made, from_file = run(PROGRAM, tmp_path, texts)
    assert made == []
    assert from_file == from_texts
    assert run(COMPARISON, tmp_path, []) > 1000

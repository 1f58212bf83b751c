"""The class files: what changes, that javac gives the committed ones, that the cache heals and races well."""

import shutil
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kogpt.tokenizer.analyzers.kkma import patch as kkma_patch
from kogpt.tokenizer.analyzers.kkma.patch import kkma_identity, konlpy_java, patched_classes

JAR = konlpy_java() / "kkma-2.0.jar"
SOURCES = Path(kkma_patch.__file__).parent / "java"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.class")}


def test_javac_gives_the_committed_class_files(tmp_path: Path) -> None:
    javac = shutil.which("javac")
    if javac is None:
        pytest.skip("no javac on this machine")
    classpath = f"{patched_classes(JAR)}:{JAR}"
    options = ["--release", "8", "-encoding", "UTF-8", "-g:none", "-Xlint:-options"]
    sources = sorted(map(str, SOURCES.rglob("*.java")))
    subprocess.run([javac, *options, "-cp", classpath, "-d", str(tmp_path / "built"), *sources], check=True)
    assert contents(tmp_path / "built") == contents(SOURCES)


def test_no_class_of_kkma_is_committed() -> None:
    with zipfile.ZipFile(JAR) as archive:
        assert not set(archive.namelist()) & set(contents(SOURCES))


def test_changed_classes_keep_their_length_but_for_the_constants() -> None:
    folder = patched_classes(JAR)
    assert folder is not None
    changed = contents(folder)
    assert {Path(name).stem for name in changed} == {"MCandidate", "MorphemeAnalyzer", "Tokenizer"}
    with zipfile.ZipFile(JAR) as archive:
        for name, content in changed.items():
            original = archive.read(name)
            old, new = kkma_patch._ClassFile(original), kkma_patch._ClassFile(content)
            assert len(content) > len(original)
            assert content[new._pool_end :][:8] == original[old._pool_end :][:8]
            assert len(content) - new._pool_end == len(original) - old._pool_end


def test_no_debug_string_is_built_and_no_slow_call_is_left() -> None:
    folder = patched_classes(JAR)
    assert folder is not None
    for name, content in contents(folder).items():
        file = kkma_patch._ClassFile(content)
        called = {file._callee(at) for at in file._instructions()}
        assert called.isdisjoint(callee for callee, _ in kkma_patch._REDIRECTED[Path(name).stem])
        assert kkma_patch._SILENCED["MorphemeAnalyzer"] not in called


def test_a_change_that_finds_nothing_is_an_error() -> None:
    with zipfile.ZipFile(JAR) as archive:
        file = kkma_patch._ClassFile(archive.read("org/snu/ids/ha/ma/Token.class"))
    with pytest.raises(ValueError, match="no call"):
        file.redirect("a.b ()V", "C.d")
    with pytest.raises(ValueError, match="no call"):
        file.silence("a.b (Ljava/lang/Object;)V")
    with pytest.raises(ValueError, match="no double call"):
        file.once("a.b ()V")
    with pytest.raises(ValueError, match="no member"):
        file.open({"absent"})


def test_a_damaged_file_of_the_cache_is_replaced() -> None:
    folder = patched_classes(JAR)
    assert folder is not None
    before = contents(folder)
    next(folder.rglob("Tokenizer.class")).write_bytes(b"broken")
    assert patched_classes(JAR) == folder
    assert contents(folder) == before


def test_many_may_make_the_cache_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = set(pool.map(patched_classes, [JAR] * 16))
    (folder,) = folders
    assert folder is not None
    assert len(list(folder.rglob("*"))) == len(contents(folder)) + 5  # nothing but the folders besides


def test_a_cache_that_cannot_be_written_moves_to_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(kkma_patch.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    folder = patched_classes(JAR)
    assert folder is not None
    assert folder.is_relative_to(tmp_path / "temporary")


def test_another_jar_is_left_alone(tmp_path: Path) -> None:
    jar = tmp_path / "kkma-2.0.jar"
    shutil.copy(JAR, jar)
    with zipfile.ZipFile(jar, "a") as archive:
        archive.writestr("extra.txt", "not the known jar")
    assert patched_classes(jar) is None


def test_the_identity_names_the_jar_and_the_budget() -> None:
    identity = kkma_identity()
    assert identity == {"name": "kkma", "konlpy": "0.6.0", "jar": kkma_patch.KNOWN_JAR, "budget": kkma_patch.BUDGET}

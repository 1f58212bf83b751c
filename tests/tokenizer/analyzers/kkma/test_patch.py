"""Kkma's class files: what is changed, that javac gives the committed classes, and where the JVM loads them from."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.kkma import patch as kkma_patch
from kogpt.tokenizer.analyzers.kkma.compile import SOURCES, compile_java
from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java, patched_classes

JAR = konlpy_java() / "kkma-2.0.jar"


@pytest.fixture(scope="module")
def changed() -> dict[str, bytes]:
    classes = patched_classes(JAR)
    assert classes is not None
    return classes


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.class")}


def test_javac_gives_the_committed_class_files(tmp_path: Path) -> None:
    if shutil.which("javac") is None:
        pytest.skip("no javac on this machine: install a JDK")
    compile_java(tmp_path)
    assert contents(tmp_path) == contents(SOURCES), "run make java and commit its classes"


def test_no_javac_and_a_mistake_in_the_sources_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("javac") is not None:
        (tmp_path / "Broken.java").write_text("class Broken { int a }")
        with monkeypatch.context() as patch:
            patch.setattr("kogpt.tokenizer.analyzers.kkma.compile.SOURCES", tmp_path)
            with pytest.raises(UserError, match=r"javac cannot compile .*\n.*Broken\.java:1: error"):
                compile_java(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install a JDK"):
        compile_java(tmp_path)


def test_no_class_of_kkma_is_committed() -> None:
    with zipfile.ZipFile(JAR) as archive:
        assert not set(archive.namelist()) & set(contents(SOURCES))


def test_changed_classes_keep_their_length_but_for_the_constants(changed: dict[str, bytes]) -> None:
    assert {Path(name).stem for name in changed} == {"MCandidate", "MorphemeAnalyzer", "Tokenizer"}
    with zipfile.ZipFile(JAR) as archive:
        for name, content in changed.items():
            original = archive.read(name)
            old, new = kkma_patch._ClassFile(original), kkma_patch._ClassFile(content)
            assert len(content) > len(original)
            assert content[new._pool_end :][:8] == original[old._pool_end :][:8]
            assert len(content) - new._pool_end == len(original) - old._pool_end


def test_no_debug_string_is_built_and_no_slow_call_is_left(changed: dict[str, bytes]) -> None:
    for name, content in changed.items():
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


def test_no_class_comes_from_a_folder_that_somebody_else_could_write(tmp_path: Path) -> None:
    """Every class of Kkma is loaded from memory, the jar, or this package. In the home are arrays, which are data."""
    for planted in (tmp_path / ".cache" / "kogpt", tmp_path / f"kogpt-{os.getuid()}"):
        for name in patched_classes(JAR) or ():
            path = planted / "kkma-0000" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"planted")
    before = sorted(tmp_path.rglob("*"))
    environment = os.environ | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    code = """
import jpype
from kogpt.tokenizer.analyzers.load import load_analyzer
assert load_analyzer("kkma").analyze("나는 간다.").morphemes == ["나", "는", "갈", "ㄴ다", "."]
print(jpype.java.lang.System.getProperty("java.class.path"))
print(jpype.JClass("org.snu.ids.ha.ma.MCandidate").class_.getDeclaredField("expList").getModifiers())
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    classpath, modifiers = done.stdout.splitlines()[-2:]
    assert modifiers == "0", "not the changed MCandidate"
    support = {path for path in classpath.split(os.pathsep) if Path(path).name == "org.jpype.jar"}
    assert set(classpath.split(os.pathsep)) - support == {str(SOURCES), str(JAR)}
    data = tmp_path / ".cache" / "kogpt" / "kkma"
    left = {path for path in tmp_path.rglob("*") if path not in before}
    assert left == {data, data / "lock", *data.glob("*.arrays")}, "something else was left behind"


def test_another_jar_is_left_alone(tmp_path: Path) -> None:
    jar = tmp_path / "kkma-2.0.jar"
    shutil.copy(JAR, jar)
    with zipfile.ZipFile(jar, "a") as archive:
        archive.writestr("extra.txt", "not the known jar")
    assert patched_classes(jar) is None

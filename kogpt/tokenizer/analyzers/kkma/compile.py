"""`make java`: compile java/**/*.java to the class files that are committed. Needs a JDK, 11 or later.

The class path contains Kkma's changed classes before konlpy's jar, because our classes use members that only the change
makes accessible. The bytes depend only on the sources: javac 17 and 25 give the same.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from kogpt.common.errors import UserError, exit_on_user_error
from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java, patched_classes

SOURCES = Path(__file__).parent / "java"
# Release 11 has MethodHandles.Lookup.defineClass, and every current javac can target it. With invokedynamic for string
# concatenation, the order of the constants would depend on the compiler's version.
_OPTIONS = ["--release", "11", "-encoding", "UTF-8", "-g:none", "-XDstringConcat=inline"]


def compile_java(folder: Path) -> None:
    """Compile our sources into `folder`. Raises `UserError` without a JDK."""
    javac = shutil.which("javac")
    if javac is None:
        raise UserError("javac is not on the PATH; install a JDK (apt install default-jdk-headless).")
    jar = konlpy_java() / "kkma-2.0.jar"
    patched = patched_classes(jar)
    if patched is None:
        raise UserError(f"{jar} is not the Kkma that the classes are compiled against; install konlpy==0.6.0.")
    with tempfile.TemporaryDirectory() as changed:
        for name, content in patched.items():
            path = Path(changed, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        options = [*_OPTIONS, "-cp", f"{changed}{os.pathsep}{jar}"]
        sources = sorted(map(str, SOURCES.rglob("*.java")))
        done = subprocess.run([javac, *options, "-d", str(folder), *sources], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"javac cannot compile the sources in {SOURCES}:\n{done.stderr}")


def main() -> None:
    """Compile, and replace the class files in the source folder."""
    with tempfile.TemporaryDirectory() as folder:
        compile_java(Path(folder))
        for path in SOURCES.rglob("*.class"):
            path.unlink()
        shutil.copytree(folder, SOURCES, dirs_exist_ok=True)
    print(f"{len(list(SOURCES.rglob('*.class')))} classes in {SOURCES}", file=sys.stderr)


if __name__ == "__main__":
    with exit_on_user_error():
        main()

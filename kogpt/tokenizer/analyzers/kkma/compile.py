"""java/**/*.java -> java/**/*.class, as they are committed: `make java`, with any JDK from 11 on.

Ours are compiled against konlpy's jar with the changed classes before it, because they use members that only the
change makes reachable. javac 17 and 25 give the same bytes, which depend on the sources alone.
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
# Release 11 has MethodHandles.Lookup.defineClass, and every present javac can target it. Strings joined by
# invokedynamic would make the order of the constants depend on the compiler's version.
_OPTIONS = ["--release", "11", "-encoding", "UTF-8", "-g:none", "-XDstringConcat=inline"]


def compile_java(folder: Path) -> None:
    """Compile our sources into `folder`; a `UserError` without a JDK."""
    javac = shutil.which("javac")
    if javac is None:
        raise UserError("there is no javac on the PATH: install a JDK (apt install default-jdk-headless)")
    jar = konlpy_java() / "kkma-2.0.jar"
    patched = patched_classes(jar)
    if patched is None:
        raise UserError(f"{jar} is not the known Kkma, which the classes are compiled against: install konlpy==0.6.0")
    with tempfile.TemporaryDirectory() as changed:
        for name, content in patched.items():
            path = Path(changed, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        options = [*_OPTIONS, "-cp", f"{changed}{os.pathsep}{jar}"]
        sources = sorted(map(str, SOURCES.rglob("*.java")))
        done = subprocess.run([javac, *options, "-d", str(folder), *sources], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"javac refuses the sources in {SOURCES}:\n{done.stderr}")


def main() -> None:
    """Replace the committed classes."""
    with tempfile.TemporaryDirectory() as folder:
        compile_java(Path(folder))
        for path in SOURCES.rglob("*.class"):
            path.unlink()
        shutil.copytree(folder, SOURCES, dirs_exist_ok=True)
    print(f"{len(list(SOURCES.rglob('*.class')))} classes in {SOURCES}", file=sys.stderr)


if __name__ == "__main__":
    with exit_on_user_error():
        main()

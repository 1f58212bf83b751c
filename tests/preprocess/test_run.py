"""preprocess/run.py as users call it: real Kkma, real Ray, another working folder, and kill -9 at random times."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from builders import bills, constitution

from kogpt.data.corpus import TokenCorpus
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import open_tokenizer
from preprocess.report_page import REPORT

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "preprocess" / "run.py"
SECONDS = 240


def command(folder: Path, *flags: str) -> list[str]:
    return [sys.executable, str(RUN), "--output", str(folder / "corpus"), "--ray-address", "local", *flags]


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the command in an empty working folder, and wait for it."""
    elsewhere = folder / "cwd"
    elsewhere.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(folder, *flags), cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=SECONDS
    )


def vocabulary(folder: Path, text: str) -> str:
    """A WordPiece folder that covers the characters of a text."""
    characters = sorted({c for c in text if not c.isspace()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{c}" for c in characters)]
    (folder / "bert").mkdir()
    (folder / "bert" / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return str(folder / "bert")


def checksums(corpus: Path) -> dict[str, str]:
    files = sorted(path for path in corpus.rglob("*") if path.is_file() and path.name != REPORT)
    return {str(path.relative_to(corpus)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_help_reads_well(tmp_path: Path) -> None:
    result = run(tmp_path, "--help")
    assert result.returncode == 0
    for flag in ("--input", "--vocab-size", "--text-path", "--ray-address", "--wandb"):
        assert flag in result.stdout


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--input", "nowhere.json", "--tokenizer", "BERT"), "--input nowhere.json: no file found on"),
        (("--input", "x", "--workers", "0"), "--workers is 0; give at least 1"),
        (("--input", "x", "--tokenizer", "/no/such/folder"), "--tokenizer /no/such/folder"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_2(tmp_path: Path, flags: tuple[str, ...], sentence: str) -> None:
    bert = vocabulary(tmp_path, "가")
    result = run(tmp_path, *(bert if flag == "BERT" else flag for flag in flags))
    assert result.returncode == 2
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1


def test_kkma_from_end_to_end(tmp_path: Path) -> None:
    """Costly texts and emoji among laws and articles, and a trained vocabulary: every text decodes exactly."""
    texts = [text.strip() for text in (*constitution(), *bills()[4:6])]
    texts += ["웃음ㅋㅋㅋ 🙂👍 끝\n\n  둘", "ㄷ" * 40, "굿" * 30 + "!"]
    (tmp_path / "원천").mkdir()
    for i, text in enumerate(texts):
        book = {"passage": text, "metadata": {"doc_id": str(i)}}
        (tmp_path / "원천" / f"[라벨]~{i:03}.json").write_text(json.dumps(book, ensure_ascii=False), encoding="utf-8")
    result = run(
        tmp_path, "--input", str(tmp_path / "원천"), "--vocab-size", "2000", "--workers", "2", "--wandb", "offline"
    )
    assert result.returncode == 0, result.stderr
    assert "layout auto: aihub-book" in result.stderr
    corpus = TokenCorpus.open(tmp_path / "corpus")
    assert corpus.verify() == []
    tokenizer = open_tokenizer(corpus.tokenizer_folder)
    unique = list(dict.fromkeys(normalize(text)[0] for text in texts))
    assert [tokenizer.decode(corpus.article(i)) for i in range(len(corpus))] == unique
    assert corpus.manifest["analyzer"]["name"] == "kkma"
    assert corpus.manifest["counts"]["articles_in"] == len(texts)
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    again = run(tmp_path, "--input", str(tmp_path / "원천"), "--vocab-size", "2000")
    assert again.returncode == 0
    assert "there is nothing to do" in again.stderr


# ---- kill -9


@contextmanager
def started(folder: Path, *flags: str) -> Iterator[subprocess.Popen]:
    """Run the command in the background. Everything it started is killed at the end."""
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(command(folder, *flags), cwd=folder, stdout=log, stderr=log)
    family: dict[int, psutil.Process] = {}
    try:
        process.family = family  # type: ignore[attr-defined]
        yield process
    finally:
        members: list[Any] = [*family.values(), process]
        for member in members:
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                member.kill()
        process.wait()


def run_until(process: subprocess.Popen, seconds: float, event: Callable[[], bool] = lambda: False) -> bool:
    """Let it run for this time, or until the event, and note what it starts. Returns True if it ended by itself."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if process.poll() is not None:
            return True
        if event():
            return False
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                process.family[child.pid] = child  # type: ignore[attr-defined]
        time.sleep(0.05)
    return False


def named(process: subprocess.Popen, name: str) -> list[psutil.Process]:
    """Living processes of the run: "actor" or "raylet"."""
    found = []
    for child in process.family.values():  # type: ignore[attr-defined]
        try:
            title = " ".join(child.cmdline())
            if "ray::Actor" in title if name == "actor" else Path(title.split(" ")[0]).name == name:
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="module")
def killing_ground(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...], dict[str, str], float]:
    """(folder, flags, bytes of an undisturbed run, its seconds), with some seconds of work in each stage."""
    folder = tmp_path_factory.mktemp("kill")
    rng = random.Random(1)
    syllables = [chr(code) for code in range(0xAC00, 0xAC00 + 11172, 41)]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(5000)]
    with open(folder / "articles.jsonl", "w", encoding="utf-8") as file:
        for _ in range(5000):
            text = " ".join(rng.choices(words, k=150))
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            if rng.random() < 0.1:
                file.write(json.dumps({"text": f"{text} 끝, 전화 02-123-4567"}, ensure_ascii=False) + "\n")
    flags: tuple[str, ...] = ("--input", str(folder / "articles.jsonl"), "--analyzer", "none", "--workers", "2")
    flags += ("--near-duplicates", "0.8", "--personal-data", "mask")
    flags += ("--tokenizer", vocabulary(folder, "".join(syllables)))
    (folder / "calm").mkdir()
    began = time.monotonic()
    result = run(folder / "calm", *flags)
    assert result.returncode == 0, result.stderr
    return folder, flags, checksums(folder / "calm" / "corpus"), time.monotonic() - began


def is_there(folder: Path, pattern: str) -> bool:
    return any(folder.glob(pattern))


def kill_and_go_on(ground: tuple, folder: Path, plan: list[tuple[str, float | str]]) -> int:
    """Kill that process, again and again; then let it finish and compare.

    A moment is a share of a run's time, or a pattern: as soon as the folder has such a file. Returns how many were
    killed: a run may be over before its turn comes.
    """
    _, flags, expected, seconds = ground
    folder.mkdir()
    killed = 0
    for victim, moment in plan:
        with started(folder, *flags) as process:
            if isinstance(moment, str):
                over = run_until(process, SECONDS, partial(is_there, folder, moment))
            else:
                over = run_until(process, moment * seconds)
            found: list[psutil.Process] = []
            while not over and victim != "driver" and not (found := named(process, victim)):
                over = run_until(process, 0.2)  # between two stages there is no actor
            if over:
                assert process.returncode == 0, (folder / "log").read_text()
                continue
            killed += 1
            if victim == "driver":
                os.kill(process.pid, signal.SIGKILL)
                continue
            with suppress(psutil.NoSuchProcess):
                found[0].kill()
            if victim == "raylet":
                run_until(process, 60)  # Ray ends the driver; when, is its own affair
            else:
                assert run_until(process, SECONDS)
                assert process.returncode == 0, (folder / "log").read_text()
    result = run(folder, *flags)
    assert result.returncode == 0, result.stderr
    assert checksums(folder / "corpus") == expected
    return killed


@pytest.mark.timeout(900)
def test_killed_driver_and_actor_cost_nothing(killing_ground: tuple) -> None:
    """The first actor is killed, and its run goes to the end; in another folder, a driver in each of the two stages."""
    assert kill_and_go_on(killing_ground, killing_ground[0] / "actor", [("actor", 0.0)]) == 1
    plan: list[tuple[str, float | str]] = [("driver", "morphemes/*.*"), ("driver", "corpus/.work/ids/*.*")]
    assert kill_and_go_on(killing_ground, killing_ground[0] / "driver", plan) >= 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_random_kills_end_in_the_same_bytes(killing_ground: tuple) -> None:
    rng = random.Random(2)
    victims = ["driver", "driver", "actor", "raylet"]
    plan: list[tuple[str, float | str]] = [(rng.choice(victims), rng.uniform(0.05, 1.0)) for _ in range(20)]
    # A finished corpus ends the game: a fifth of the kills in each of four folders.
    folders = [(killing_ground[0] / f"round{part}", plan[part::4]) for part in range(4)]
    assert sum(kill_and_go_on(killing_ground, *folder) for folder in folders) >= 8

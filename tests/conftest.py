"""Shared fixtures: a token corpus, its tokenizer, a run with a random model, and a trained run.

Each is made once per session when a test first asks for it, also when several processes run tests in parallel. They are
read-only. A test that changes one must copy it first (`shutil.copytree`); otherwise the session fails.
"""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_chat_corpus, make_corpus, make_run
from engines import one_rank
from filelock import FileLock
from hypothesis import settings
from trainings import Plan, deepspeed_file, flags, together

from kogpt import cli
from kogpt.tokenizer.wordpiece import Tokenizer, open_tokenizer

# The tests' models are so small that a second thread only waits for the first; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# A shell's background jobs ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example may take as long as a busy machine needs.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")


def _once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Iterator[Path]:
    """The folder that `make` fills; the first process of the session makes it, the others find it."""
    base = factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base  # pytest-xdist: one base folder per process
    folder = shared / "shared" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            making = folder.with_name(f"making-{name}")
            shutil.rmtree(making, ignore_errors=True)
            make(making)
            making.rename(folder)
    before = _digest(folder)
    yield folder
    assert _digest(folder) == before, f"a test changed the shared {name}: it has to change a copy"


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.fixture(scope="session")
def _group_of_one() -> Iterator[Any]:
    with one_rank() as found:
        yield found


@pytest.fixture
def ranks(_group_of_one: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A process group of one rank, for DeepSpeed engines inside this process; DeepSpeed bears no second one."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)  # DeepSpeed looks; processes that tests start must not
    return _group_of_one


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Korean constitution as tokens: 13 articles, the last of them for validation, a vocabulary of 693."""
    yield from _once(tmp_path_factory, "corpus", make_corpus)


@pytest.fixture(scope="session")
def chat_corpus(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """66 short conversations about the constitution (`builders.conversations`) under the vocabulary of `corpus`."""
    yield from _once(tmp_path_factory, "chat-corpus", lambda folder: make_chat_corpus(folder, tokenizer))


@pytest.fixture
def kogpt(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`kogpt("inspect", folder)`: the command in this process, as `subprocess.run` would report it."""

    def call(*words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        argv = ["kogpt", *map(str, words)]
        monkeypatch.setattr(sys, "argv", argv)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        code = 0
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return subprocess.CompletedProcess(argv, code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def tokenizer(corpus: Path) -> Tokenizer:
    """The corpus's."""
    return open_tokenizer(corpus / "tokenizer")


@pytest.fixture(scope="session")
def run(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run whose weights are random numbers (`builders.make_run`): any test of what reads a checkpoint."""
    yield from _once(tmp_path_factory, "run", lambda folder: make_run(folder, tokenizer))


@pytest.fixture(scope="session")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """12 steps of launch/train.py on the corpus by one rank, with checkpoints of the steps 6 and 12. About 10 s."""

    def make(folder: Path) -> None:
        scratch = tmp_path_factory.mktemp("trained")
        arguments = flags(corpus, folder, deepspeed_file(scratch / "ds.json", 2), 12, "--save-every", "6")
        assert together(1, [Plan(arguments)], scratch / "ranks") == [0]

    yield from _once(tmp_path_factory, "trained", make)

"""Every flag and folder of every command with nonsense for a value: it works, or ends in a sentence and status 2.

The flags are asked of tyro, so that a new one is covered without anybody thinking of it. The commands run in this
process: preprocessing and training up to where Ray and the engine would start, `kogpt` whole. The values are those that
shells, schedulers and typing errors produce: nothing, an empty word, text or `nan` for a number, numbers too large for
64 bits, paths that are missing, too long, below a file, of the wrong kind, or not UTF-8.
"""

import json
import os
import re
import signal
import subprocess
import sys
import typing
import warnings
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import tyro
from builders import make_chat_run, record, write_records
from trainings import script

import preprocess.run
from kogpt import cli
from kogpt.common.errors import UserError
from kogpt.common.ranges import ranges
from kogpt.data.pt_windows import export_windows
from kogpt.generate.sampling import Sampling
from kogpt.hub.export import export_model
from kogpt.tokenizer.wordpiece import open_tokenizer
from kogpt.train.options import ModelOptions, RunOptions, ScheduleOptions, TrainOptions
from preprocess.options import Options

Line = list[str]
Run = Callable[[Line], "subprocess.CompletedProcess[str]"]

NUMBERS = ["", "abc", "-1", "-0", "nan", "inf", "1e999", str(10**30), "9" * 5000, "1.5"]
WORDS = ["", "abc", "-1"]
TEXTS = ["", "-1", "한글 낱말", "\udcff", "s" * 300, "../..", "a\nb", "nosuch://x", "["]
PATHS = [
    "/proc/nowhere",
    "nowhere",
    "no/where",
    "file",
    "file/below",
    "folder",
    "folder/file.json",
    "s" * 300,
    f"{'s/' * 2500}s",
]
EXCLUDED = {"--tokenizer": "--vocab-size"}
"""Flags that must not be there together with another."""
PLACES = {"RUN", "CORPUS", "FOLDER", "PATH"}


class WorkBegins(BaseException):
    """What was checked before the work was good."""


def _no_hub(name: str) -> Any:
    raise UserError(f"--tokenizer {name}: nobody asks the hub here")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths of the values, and of what is written for a URL, are in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)  # comes back in the end
    _fresh_folder(tmp_path, -1)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr("kogpt.tokenizer.vocab._read_hub", _no_hub)


def _fresh_folder(home: Path, number: int) -> None:
    """Go to a new folder with what `PATHS` and the commands name."""
    folder = home / str(number) / "here"
    (folder / "folder").mkdir(parents=True)
    (folder / "in").mkdir()
    (folder / "file").write_text("글")
    (folder / "folder" / "file.json").write_text('{"a": 1}')
    (folder / "in" / "a.txt").write_text("나는 학교에 갔다.")
    os.chdir(folder)


def _actions(command: Any) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return tyro.extras.get_parser(command)._actions[1:]


def _values(action: Any) -> list[str | None]:
    """What to try; None is no value at all."""
    if action.nargs == 0 or action.choices:
        return [None, *WORDS] if action.nargs else ["abc"]
    kind = re.split(r"[\s=\[\]]", str(action.metavar).strip("["))[0]
    if kind in PLACES:
        return [None, *TEXTS, *PATHS]
    return [None, *NUMBERS] if kind in ("INT", "FLOAT") else [None, *TEXTS]


def _mistakes(run: Run, base: Line, action: Any) -> list[str]:
    """Run the command with every value for one flag; what went otherwise than it should."""
    found = []
    home = Path.cwd().parents[1] / action.dest
    flag = action.option_strings[0] if action.option_strings else f"<{action.dest.upper()}>"
    for gone in {flag, EXCLUDED.get(flag, flag)} & {*base} if action.option_strings else ():
        base = base[: base.index(gone)] + base[base.index(gone) + 2 :]
    for number, value in enumerate(_values(action)):
        _fresh_folder(home, number)
        words = [] if value is None else [value]
        line = [*base, flag, *words]
        if not action.option_strings:
            line = [other for word in base for other in (words if word == flag else [word])]
        shown = f"{flag} {str(value)[:40]!r}"
        try:
            done = run(line)
        except WorkBegins:
            continue
        except BaseException as error:
            found.append(f"{shown}: {type(error).__name__}: {str(error)[:150]}")
            continue
        said = done.stderr
        if done.returncode == 0:
            continue
        if done.returncode != 2 or "Traceback" in said or not _names(said, action, value):
            found.append(f"{shown}: status {done.returncode}, {said!r}")
    return found


def _names(said: str, action: Any, value: str | None) -> bool:
    """Whether the sentence says which flag, value, or file in it is meant; of a missing word there may be no name."""
    if not value:
        return bool(said)
    spoken = value.encode(errors="replace").decode()[:40]
    words = (
        *(action.option_strings or [action.dest.upper(), str(action.metavar).split()[0]]),
        spoken,
        spoken.replace("//", "/").rstrip("/"),
        os.path.realpath(value),
        "file.json",
        "No space",
    )
    return any(word in said for word in words)


def _by_command(commands: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(name, action, id=f"{name}-{(action.option_strings or [action.dest])[0]}")
        for name, command in commands.items()
        for action in _actions(command)
    ]


@pytest.fixture(scope="module")
def bases(run: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Line]:
    """A command line for each command that works."""
    made = tmp_path_factory.mktemp("made")
    talker = make_chat_run(made / "talker", open_tokenizer(corpus / "tokenizer"))
    export_model(run, made / "exported")
    export_windows(corpus, made / "windows", "pt")
    one, two = (str(write_records(made / name, record(1))) for name in ("one", "two"))
    return {
        "generate": [str(run), "나는", "--max-new-tokens", "1"],
        "chat": [str(talker)],
        "serve": [str(talker), "--port", "0"],
        "evaluate": [str(run), "--texts", "in", "--limit", "1"],
        "report": [one, "--out", "page.html"],
        "compare": [one, two, "--out", "page.html"],
        "export": [str(run), "exported"],
        "import": [str(made / "exported"), "imported", "--corpus", str(corpus)],
        "inspect": [str(corpus)],
        "plan": ["--corpus", str(corpus), "--hours", "1", "--gpu", "H100"],
        "import-pt": [str(made / "windows"), "made", "--tokenizer", str(corpus / "tokenizer"), "--analyzer", "none"],
        "export-windows": [str(corpus), "out"],
        "doctor": [],
    }


@pytest.mark.parametrize(("name", "action"), _by_command(cli.COMMANDS))
def test_kogpt(name: str, action: Any, bases: dict[str, Line], kogpt: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogpt.generate import stream

    whole = stream.generate
    monkeypatch.setattr("uvicorn.Server.run", _begin)
    monkeypatch.setattr(stream, "generate", lambda *rest, **more: islice(whole(*rest, **more), 2))
    base = bases[name]
    if not action.option_strings:
        base = list(base)
        order = [a.dest for a in _actions(cli.COMMANDS[name]) if not a.option_strings]
        base[order.index(action.dest)] = f"<{action.dest.upper()}>"
    found = _mistakes(lambda line: kogpt(name, *line), base, action)
    assert not found, "\n".join(found)


class Program:
    """A script of launch/ or preprocess/, called in this process."""

    def __init__(self, main: Callable[[], Any], capsys: Any, patch: Any) -> None:
        self.main, self.capsys, self.patch = main, capsys, patch

    def __call__(self, line: Line) -> "subprocess.CompletedProcess[str]":
        self.patch.setattr(sys, "argv", ["program", *line])
        self.capsys.readouterr()
        try:
            code = self.main() or 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        return subprocess.CompletedProcess(line, code, *self.capsys.readouterr())


def _begin(*_: Any, **__: Any) -> None:
    raise WorkBegins


@pytest.mark.parametrize(("name", "action"), _by_command({"preprocess": Options}))
def test_preprocess(name: str, action: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.init", _begin)
    base = ["--input", "in", "--output", "out", "--analyzer", "none", "--vocab-size", "300"]
    found = _mistakes(Program(preprocess.run.main, capsys, monkeypatch), base, action)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(("name", "action"), _by_command({"train": TrainOptions}))
def test_train(name: str, action: Any, corpus: Path, ranks: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    train = script("train")
    monkeypatch.setattr(train.distributed, "start", lambda: ranks)
    monkeypatch.setattr(train.distributed, "prepare_environment", lambda: None)
    monkeypatch.setattr(train.distributed, "leave", sys.exit)
    monkeypatch.setattr(train, "Stop", lambda: None)
    monkeypatch.setattr("kogpt.train.sample_prompts.encode", _begin)
    monkeypatch.setattr("kogpt.train.trainer.TrainingEngine", _begin)
    base = ["--corpus", str(corpus), "--out", "run", "--wandb", "off", "--max-seq-len", "32"]
    found = _mistakes(Program(lambda: train.end(train.run), capsys, monkeypatch), base, action)
    assert not found, "\n".join(found)


def test_a_disk_that_is_full_when_the_result_is_there(kogpt: Any, run: Path, corpus: Path) -> None:
    for line in (
        ["evaluate", run, "--texts", "in", "--json-file", "/dev/full"],
        ["inspect", corpus, "--decode", "/dev/full"],
    ):
        ended = kogpt(*line)
        assert ended.returncode == 2
        assert "No space left" in ended.stderr


def test_a_url_where_a_path_belongs(kogpt: Any, run: Path) -> None:
    for line in (["inspect", "s3://bucket/corpus"], ["export", run, "s3://bucket/model"]):
        ended = kogpt(*line)
        assert ended.returncode == 2
        assert f"{line[-1]} is a URL; name a path" in " ".join(ended.stderr.replace("│", " ").split())
    assert not Path("s3:").exists()


def test_texts_may_have_names_that_are_not_utf8(
    kogpt: Any, run: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Korean names as Windows wrote them (cp949): Python keeps such bytes as lone surrogates."""
    name = os.fsdecode("글".encode("cp949"))
    os.rename("in", name)
    evaluated = kogpt("evaluate", run, "--texts", name, "--json-file", "numbers.json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert list(json.loads(Path("numbers.json").read_text(encoding="utf-8"))["bits_per_char"]) == [name]
    assert kogpt("generate", run, "--file", f"{name}/a.txt", "--max-new-tokens", "1").returncode == 0
    monkeypatch.setattr("ray.init", _begin)
    with pytest.raises(WorkBegins):
        Program(preprocess.run.main, capsys, monkeypatch)(
            ["--input", name, "--output", "out", "--analyzer", "none", "--vocab-size", "300"]
        )


def test_demo(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = script("demo")
    monkeypatch.setattr(demo, "write_articles", _begin)
    for action in _actions(demo.Demo):
        found = _mistakes(Program(demo.main, capsys, monkeypatch), [], action)
        assert not found, "\n".join(found)


def test_supervise(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    supervise = script("supervise")
    kept = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    [action] = _actions(supervise.Supervision)
    program = Program(supervise.main, capsys, monkeypatch)
    try:
        found = _mistakes(lambda line: program([*line, "--", "true"]), [], action)
    finally:
        for number, handler in kept:
            signal.signal(number, handler)
    assert not found, "\n".join(found)


def _numbers(hint: Any) -> bool:
    return hint in (int, float) or any(map(_numbers, typing.get_args(hint)))


@pytest.mark.parametrize(
    "what",
    [Options, ModelOptions, ScheduleOptions, RunOptions, Sampling, *cli.COMMANDS.values()],
    ids=lambda w: w.__name__,
)
def test_every_number_has_a_range(what: Any) -> None:
    """So that no number is too large for what comes after the checks, where this file does not look."""
    hints = typing.get_type_hints(what, include_extras=True)
    assert not [name for name, hint in hints.items() if _numbers(hint) and not [*ranges(hint)]]

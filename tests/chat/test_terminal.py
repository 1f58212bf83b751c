"""`kogpt chat` on a real terminal: a pty, keys as a user presses them, and what the screen shows."""

import codecs
import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_chat_run, make_endless_run

import kogpt as package
from kogpt.chat.conversation import Conversation
from kogpt.chat.terminal import Terminal, _lines, chat
from kogpt.common.errors import UserError
from kogpt.generate.sampling import SEEDS, Sampling
from kogpt.tokenizer.wordpiece import Tokenizer

CTRL_C, CTRL_D, UP, LEFT, DELETE = "\x03", "\x04", "\x1b[A", "\x1b[D", "\x1b[3~"
_READY = "<ready>"
"""Stands for the escape sequence that prompt_toolkit sends when it begins to read keys."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()=>][AB0]?|\r")


class Screen:
    """A program on a terminal."""

    def __init__(self, *words: str | Path, folder: Path) -> None:
        program = [sys.executable, "-c", "from kogpt.cli import main; main()", *map(str, words)]
        self._keys, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        environment = os.environ | {
            "TERM": "xterm",
            "PYTHONPATH": str(Path(package.__file__).parents[1]),
            "LANG": "C.UTF-8",
        }
        self.process = subprocess.Popen(
            program, stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment, start_new_session=True,
            preexec_fn=lambda: _take_terminal(theirs),
        )  # fmt: skip
        os.close(theirs)
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self.shown = ""

    def press(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def say(self, keys: str) -> None:
        """Press keys as soon as the next prompt reads them."""
        self.wait(_READY)
        self.press(keys)

    def wait(self, words: str, seconds: float = 90) -> str:
        """What is shown up to the words, which are then gone."""
        end = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < end, f"no {words!r} in {self.shown!r}"
            if select.select([self._keys], [], [], 0.1)[0]:
                try:
                    data = os.read(self._keys, 65536)
                except OSError:
                    data = b""
                assert data or words in self.shown, f"it ended; no {words!r} in {self.shown!r}"
                if b"\x1b[6n" in data:  # where is the cursor?
                    self.press("\x1b[1;1R")
                self.shown = _ESCAPES.sub("", (self.shown + self._text.decode(data)).replace("\x1b[?2004h", _READY))
        before, _, self.shown = self.shown.partition(words)
        return before

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._keys)


def _take_terminal(descriptor: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    opened: list[Screen] = []

    def start(*words: str | Path) -> Screen:
        opened.append(Screen(*words, folder=tmp_path))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_a_conversation_on_a_terminal(screen: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = make_chat_run(tmp_path / "talker", tokenizer, max_seq_len=64)
    talk = screen("chat", run, "--max-new-tokens", "12", "--seed", "1")
    talk.wait("/help lists the commands")
    talk.say("안녕하세오" + LEFT + DELETE + "요?\r")
    talk.say("/save one.json\r")
    talk.wait("2 messages -> one.json")
    saved = (tmp_path / "one.json").read_text(encoding="utf-8")
    assert "안녕하세요?" in saved
    talk.say("/retry\r")
    talk.say("/save two.json\r")
    talk.wait("2 messages -> two.json")
    assert (tmp_path / "two.json").read_text(encoding="utf-8") != saved  # another seed
    talk.say(UP + UP + UP + "\r")  # /save one.json again
    talk.wait("2 messages -> one.json")
    talk.say("모든 " + CTRL_C)  # empties the line
    talk.say("/system 짧게 답한다.\r")
    talk.wait("짧게 답한다.\n")
    for _ in range(4):
        talk.say("국회는 국민의 대표이다.\r")
    talk.wait("the context is full; forgotten turns: ")
    talk.say("/nonsense\r")
    talk.wait("/nonsense is not a command")
    talk.say("/undo\r")
    talk.wait("messages are left")
    talk.say("/clear\r")
    talk.wait("A new conversation")
    talk.say("/load one.json\r")
    talk.wait("안녕하세요?")
    talk.say("/load nowhere.json\r")
    talk.wait("nowhere.json cannot be read")
    talk.say(CTRL_D)
    assert talk.process.wait(30) == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(screen: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = make_endless_run(tmp_path / "talker", tokenizer, max_seq_len=16384, n_layer=1)
    talk = screen("chat", run, "--max-new-tokens", "16000")
    talk.say("안녕?\r")
    talk.wait("법 법 법")  # it answers, for many seconds more
    talk.press(CTRL_C)
    talk.wait("(stopped)")
    talk.press(CTRL_C)  # between answer and prompt, or at the prompt
    talk.say("/save one.json\r")
    talk.wait("2 messages -> one.json")
    talk.say("/help\r")
    talk.wait("Ctrl-D ends.")
    talk.say(CTRL_D)
    assert talk.process.wait(30) == 0


def test_lines_of_a_pipe_are_messages(kogpt: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    run = make_chat_run(tmp_path / "talker", tokenizer)
    words = ["chat", run, "--max-new-tokens", "8", "--seed", "3"]
    ended = kogpt(*words, stdin=f"모든 국민은?\n/save {tmp_path}/talk.json\n")
    assert ended.returncode == 0, ended.stderr
    answer = package.load(run).chat([{"role": "user", "content": "모든 국민은?"}], max_new_tokens=8, seed=3)
    assert ended.stdout.startswith(answer)


def test_every_answer_has_a_seed(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those after the largest seed that --seed takes."""
    run = make_chat_run(tmp_path / "talker", tokenizer)
    said = "모든 국민은?\n/retry\n국회는?\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(said), encoding="utf-8"))
    chat(run, Sampling(max_new_tokens=8, seed=SEEDS))
    shown = capsys.readouterr()
    assert "seed" not in shown.err
    assert shown.out.count("\n") >= 3


def test_a_reader_that_has_gone_ends_it(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """`kogpt chat RUN < questions | head -1`: nobody waits for the other answers."""
    run = make_chat_run(tmp_path / "talker", tokenizer)
    program = [sys.executable, "-c", "from kogpt.cli import main; main()", "chat", str(run), "--max-new-tokens", "8"]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8") as process:
        assert process.stdout is not None
        process.stdout.close()
        _, said = process.communicate("모든 국민은?\n/retry\n국회는?\n", 120)
    assert (process.returncode, said) == (141, "")


def test_a_pipe_that_is_no_text_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.BytesIO("안녕\n".encode() + "하나\n".encode("cp949") + b"\xff\xff\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(sent, encoding="utf-8"))
    lines = _lines()
    assert [next(lines), next(lines)] == ["안녕\n", "하나\n"]
    with pytest.raises(UserError, match=r"line 3 of the standard input .* UTF-8 or cp949"):
        next(lines)


def test_a_file_name_with_half_a_character_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal that is not UTF-8 gives lone surrogates. The conversation goes on."""
    Terminal(lambda *_: pytest.fail("nothing to answer")).run(iter(["/save \ud83d.json", "/load \udcff", "/clear"]))
    shown = capsys.readouterr()
    assert shown.err.count("is no file name") == 2
    assert r"'\ud83d.json'" in shown.err
    assert shown.out == "A new conversation.\n"


class Said:
    """A reply of these pieces; None is Ctrl-C."""

    dropped_turns = 0

    def __init__(self, *pieces: str | None) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if piece is None:
                raise KeyboardInterrupt
            yield piece


@pytest.mark.parametrize("nothing", [Said(), Said(None), Said(" ", "\n")])
@pytest.mark.parametrize("line", ["그리고?", "/retry"])
def test_without_an_answer_the_conversation_is_as_it_was(
    nothing: Any, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty answer would be in every later prompt."""
    replies: Iterator[Any] = iter([Said("네", "."), nothing, Said("또", None)])
    Terminal(lambda *_: next(replies)).run(iter(["안녕?", line, f"/save {tmp_path}/1", "다시?", f"/save {tmp_path}/2"]))
    saved = [json.loads((tmp_path / name).read_text(encoding="utf-8"))["messages"] for name in "12"]
    told = [[message["content"] for message in messages] for messages in saved]
    assert told == [["안녕?", "네."], ["안녕?", "네.", "다시?", "또"]]
    assert "(no answer; the conversation is as it was)" in capsys.readouterr().err


def test_a_message_that_does_not_fit_takes_nothing_else_with_it() -> None:
    def reply(talk: Conversation, again: int) -> Any:
        if talk.system:
            raise UserError("the last message, with the system message, has more than the 16 tokens that fit.")
        return Said("네.")

    terminal = Terminal(reply)
    terminal.run(iter(["안녕?", "/system 아주 길게", "/retry", "그리고?"]))
    assert [message.content for message in terminal._talk.turns] == ["안녕?", "네."]


@pytest.mark.parametrize("greedy", [True, False])
def test_greedy_says_that_it_does_not_change_its_mind(greedy: bool, capsys: pytest.CaptureFixture[str]) -> None:
    reply: Any = Said("네.")
    Terminal(lambda *_: reply, greedy=greedy).run(iter(["안녕?", "/retry"]))
    shown = capsys.readouterr()
    assert shown.out == "네.\n네.\n"
    assert ("--greedy always gives the same answer" in shown.err) == greedy


def test_a_base_run_was_never_taught(kogpt: Any, run: Path) -> None:
    ended = kogpt("chat", run)
    assert ended.returncode == 2
    assert "was never taught to answer" in ended.stderr
    assert "--init" in ended.stderr
    with pytest.raises(UserError, match="was never taught to answer"):
        package.load(run).chat([{"role": "user", "content": "안녕?"}])

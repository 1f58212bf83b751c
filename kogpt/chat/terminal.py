"""`kogpt chat`: a conversation in the terminal. In: a run that was taught to answer. Out: its answers, as they come.

On a terminal prompt_toolkit edits the line, with the earlier ones of this conversation under the arrow keys. Otherwise
(a pipe) every line is a message. Ctrl-C stops the answer that is being written, which stays as far as it came; at the
prompt it empties the line. Ctrl-D ends. Without a word of answer, the conversation stays as it was: no training has
seen an empty answer.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from kogpt.chat.conversation import Conversation
from kogpt.checkpoint.choose import Wish
from kogpt.common.errors import UserError
from kogpt.common.text_files import decode
from kogpt.generate.chat import Reply, how_to_teach, is_taught
from kogpt.generate.sampling import Sampling
from kogpt.generate.start import load_with_codec
from kogpt.model.packed import packed
from kogpt.tokenizer.chat import Message
from kogpt.tokenizer.normalize import normalize

HELP = """\
/system TEXT   tell the model how to answer; without a text, show what it was told
/undo          take back your last message and its answer
/retry         answer your last message again
/save FILE     write the conversation to a file
/load FILE     continue a conversation from a file
/clear         begin again
/help          this list
Ctrl-C stops an answer. Ctrl-D ends."""
_PROMPT = ">>> "


def chat(run: Path, sampling: Sampling, *, checkpoint: Wish = None, device: str | None = None) -> None:
    """Talk until the input ends. Raises `UserError` for a run that was never taught to answer."""
    loaded, codec = load_with_codec(run, device, checkpoint)
    if not is_taught(loaded, codec.tokenizer):
        raise UserError(how_to_teach(str(run)))
    model = packed(loaded.model)
    codec.encode("안녕")  # the first answer does not wait for the analyzer, and what is wrong with it is said now

    def reply(talk: Conversation, again: int) -> Reply:
        return Reply(model, codec, talk.messages, sampling, again)

    Terminal(reply, greedy=sampling.greedy).run(_lines())


class Terminal:
    """The loop over lines. `reply(conversation, again)` begins an answer; `again` counts the answers before it."""

    def __init__(self, reply: Callable[[Conversation, int], Reply], *, greedy: bool = False) -> None:
        self._reply, self._greedy = reply, greedy
        self._talk = Conversation()
        self._answers = 0
        self._commands: dict[str, Callable[[str], None]] = {
            "system": self._system,
            "undo": self._undo,
            "retry": self._retry,
            "save": self._save,
            "load": self._load,
            "clear": self._clear,
            "help": lambda _: print(HELP),
        }

    def run(self, lines: Iterator[str]) -> None:
        """Answer every line until there are no more."""
        for line in lines:
            text = line.strip()
            try:
                if text.startswith("/"):
                    self._command(text)
                elif text:
                    before = [*self._talk.turns]
                    self._talk.ask(text)
                    self._answer(before)
            except UserError as error:
                print(f"kogpt: {error}", file=sys.stderr, flush=True)

    def _command(self, text: str) -> None:
        name, _, rest = text[1:].partition(" ")
        command = self._commands.get(name)
        if command is None:
            raise UserError(f"/{name} is not a command; /help lists them.")
        command(rest.strip())

    def _answer(self, before: list[Message]) -> None:
        """Write the answer to the last message; Ctrl-C ends it, and keeps what there is. Without one, go back."""
        parts: list[str] = []
        try:
            reply = self._reply(self._talk, self._answers)
        except UserError:
            self._talk.turns = before  # a message that does not fit would be in the way of the next one
            raise
        self._answers += 1
        if reply.dropped_turns:
            print(f"(the context is full; forgotten turns: {reply.dropped_turns})", file=sys.stderr)
        try:
            with _interruptible(), closing(reply.__iter__()) as pieces:
                for piece in pieces:
                    parts.append(piece)
                    print(piece, end="", flush=True)
        except KeyboardInterrupt:
            print(" (stopped)", end="", file=sys.stderr, flush=True)
        print(flush=True)
        if "".join(parts).strip():
            self._talk.answer("".join(parts))
        else:
            self._talk.turns = before
            print("(no answer; the conversation is as it was)", file=sys.stderr, flush=True)

    def _system(self, text: str) -> None:
        if text:
            self._talk.system = normalize(text)[0]
        print(self._talk.system or "There is no system message; /system TEXT sets one.")

    def _undo(self, _: str) -> None:
        if not self._talk.undo():
            raise UserError("there is nothing to take back.")
        print(f"{len(self._talk.turns)} messages are left")

    def _retry(self, _: str) -> None:
        before = [*self._talk.turns]
        if not self._talk.retry():
            raise UserError("there is no message to answer again.")
        if self._greedy:
            print("(--greedy always gives the same answer; without it, /retry gives another)", file=sys.stderr)
        self._answer(before)

    def _save(self, name: str) -> None:
        self._talk.save(_file(name, "/save"))
        print(f"{len(self._talk.messages)} messages -> {name}")

    def _load(self, name: str) -> None:
        self._talk.load(_file(name, "/load"))
        for message in self._talk.messages:
            print({"user": _PROMPT, "system": "/system "}.get(message.role, "") + message.content)

    def _clear(self, _: str) -> None:
        self._talk.clear()
        print("A new conversation.")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in the block."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _file(name: str, command: str) -> Path:
    if not name:
        raise UserError(f"{command} needs a file name, for example {command} talk.json.")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name!a} is no file name: a part of a character is missing; type it anew.") from None
    return Path(os.path.expanduser(name))


def _lines() -> Iterator[str]:
    """What the user types, until Ctrl-D."""
    if not sys.stdin.isatty():
        for number, line in enumerate(sys.stdin.buffer, 1):
            try:
                yield decode(line)
            except UnicodeDecodeError as error:
                message = f"line {number} of the standard input cannot be read ({error}); give text in UTF-8 or cp949."
                raise UserError(message) from None
        return
    from prompt_toolkit import PromptSession

    print("Ask something. /help lists the commands.")
    session: PromptSession[str] = PromptSession()
    signal.signal(signal.SIGINT, lambda *_: None)  # between answer and prompt, Ctrl-C would end the program
    while True:
        try:
            yield session.prompt(_PROMPT)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return

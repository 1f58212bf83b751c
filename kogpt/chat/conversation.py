"""A conversation in the terminal: its messages, and what the commands do to them. Pure state, without a model.

A conversation is saved as {"messages": [{"role", "content"}]}, which preprocessing reads with `--layout chat`.
"""

import json
from pathlib import Path

from kogpt.common.errors import UserError
from kogpt.common.files import atomic_write
from kogpt.common.text_files import decode
from kogpt.tokenizer.chat import ROLES, Message
from kogpt.tokenizer.normalize import normalize


class Conversation:
    """The system message, and the messages of user and assistant in turn."""

    def __init__(self) -> None:
        self.system = ""
        self.turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """All messages; the system message first, if there is one."""
        return [*([Message("system", self.system)] if self.system else []), *self.turns]

    def ask(self, text: str) -> None:
        """The user says this. What is typed can contain lone surrogates, which no file can."""
        self.turns.append(Message("user", normalize(text)[0]))

    def answer(self, text: str) -> None:
        """The assistant answers this."""
        self.turns.append(Message("assistant", text))

    def undo(self) -> bool:
        """Take back the last question and its answer; False if there is none."""
        return self._back_to("user", keep=False)

    def retry(self) -> bool:
        """Take back the last answer only, so that it can be given again; False if there was no question."""
        return self._back_to("user", keep=True)

    def _back_to(self, role: str, *, keep: bool) -> bool:
        found = [i for i, message in enumerate(self.turns) if message.role == role]
        if found:
            del self.turns[found[-1] + keep :]
        return bool(found)

    def clear(self) -> None:
        """Begin again; the system message stays."""
        self.turns.clear()

    def save(self, path: Path) -> None:
        """Write the conversation as a file. Raises `UserError` if it cannot be written."""
        content = {"messages": [message._asdict() for message in self.messages]}
        try:
            if not path.absolute().parent.is_dir():
                raise UserError(f"there is no folder {path.parent}; create it first.")
            with atomic_write(path) as file:
                file.write(json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}.") from None

    def load(self, path: Path) -> None:
        """Continue a saved conversation. On an error, which is a `UserError`, nothing changes."""
        try:
            content = json.loads(decode(path.read_bytes()))
            messages = [Message(message["role"], normalize(message["content"])[0]) for message in content["messages"]]
            whole = all(message.role in ROLES and isinstance(message.content, str) for message in messages)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            whole = False
        if not whole:
            raise UserError(f'{path} is not a conversation, which looks like {{"messages": [{{"role", "content"}}]}}.')
        system = [message.content for message in messages if message.role == "system"]
        self.system = "\n".join(system)
        self.turns = [message for message in messages if message.role != "system"]

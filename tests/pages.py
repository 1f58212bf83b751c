"""The chat page for tests: a server that takes its time, and what somebody does with the page.

`tests/serve/conftest.py` makes one server and one browser for all tests of the page (`served`, `browser`, `tab`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from servers import serving, wait_until

from kogpt.checkpoint.load import load_for_inference
from kogpt.serve.service import Service
from kogpt.tokenizer.codec import TextCodec

CHROMIUM = Path("/usr/bin/chromium")
needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists() or not find_spec("playwright"),
    reason=f"needs kogpt[ecosystem] and Debian's package chromium ({CHROMIUM})",
)
PACE = {"seconds": 0.02}
"""At least so long takes each step of every model, where `slowed` is: answers can be seen to stream, and be stopped."""


def slowed(step: Callable[..., Any]) -> Callable[..., Any]:
    """The engine's step at PACE."""

    def later(*arguments: Any) -> Any:
        time.sleep(PACE["seconds"])
        return step(*arguments)

    return later


class Served:
    """A server of a run. `stop` and `start` again: it has the same address."""

    def __init__(self, run: Path, *, answers_chat: bool = True, places: int = 8, queue: int = 8, **options: Any):
        self.run, self.answers_chat, self.places, self.queue, self.options = run, answers_chat, places, queue, options
        self.url = ""

    def start(self) -> None:
        """Load the run and listen."""
        loaded = load_for_inference(self.run)
        codec = TextCodec(loaded.tokenizer_folder)
        self.service = Service(
            loaded.model, codec, name="tiny-chat", answers_chat=self.answers_chat, places=self.places, queue=self.queue
        )
        port = int(self.url.rsplit(":", 1)[1]) if self.url else 0
        self._serving = serving(self.service, port=port, **self.options)
        self.url = self._serving.__enter__()
        wait_until(lambda: self.service.ready)

    def stop(self) -> None:
        """End, with what it is answering."""
        self._serving.__exit__(None, None, None)

    @contextmanager
    def another(self, **more: Any) -> Iterator["Served"]:
        """A server of the same run with other settings."""
        server = Served(self.run, **more)
        server.start()
        try:
            yield server
        finally:
            server.stop()

    def wait_until_idle(self) -> None:
        """Every place is free."""
        wait_until(lambda: self.service.under_way == 0, 20)


def until(page: Any, true: str, seconds: float = 60) -> None:
    """Wait until an expression holds in the page. Playwright's own wait evaluates it there, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(true):
        assert time.monotonic() < end, f"not within {seconds} s: {true}"
        page.wait_for_timeout(50)


def ask(page: Any, question: str, *, wait: bool = True) -> None:
    """Type a question and send it; by default, wait for the whole answer."""
    page.fill("#question", question)
    page.keyboard.press("Enter")
    page.wait_for_selector("#send" if wait else "#turns li:last-child")
    if wait:
        until(page, "!document.querySelector('.waiting')")


def turns(page: Any) -> list[tuple[str, str]]:
    """Questions and answers as they are shown."""
    texts = "li => [...li.querySelectorAll('.text')].map(text => text.textContent)"
    shown = page.evaluate(f"[...document.querySelectorAll('#turns li')].map({texts})")
    return [(question, answer) for question, answer in shown]


def answers_seen(page: Any) -> Callable[[], list[str]]:
    """From now on, every text that an answer shows; the result returns those so far."""
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const text = document.querySelector("#turns li:last-child .answer .text")?.textContent;
                if (text) window.seen.push(text);
            }).observe(document.getElementById("turns"), {childList: true, subtree: true, characterData: true});
        }"""
    )
    return lambda: list(page.evaluate("window.seen"))

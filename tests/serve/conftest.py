"""Servers of this process that several tests ask: one that was taught to answer, and one that only continues texts.

For the tests of the page: a browser, and a server whose answers are known.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import make_chat_run
from chats import taught
from pages import CHROMIUM, Served, slowed
from servers import service_of, serving

from kogpt.generate.engine import Engine
from kogpt.serve.service import Service
from kogpt.tokenizer.wordpiece import Tokenizer


@pytest.fixture(scope="session")
def talker_run(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a random model that says to have been trained on conversations."""
    return make_chat_run(tmp_path_factory.mktemp("runs") / "talker", tokenizer)


@pytest.fixture(scope="session")
def service(talker_run: Path) -> Service:
    """The talker's."""
    return service_of(talker_run)


@pytest.fixture(scope="session")
def talker(service: Service) -> Iterator[str]:
    """The address of a server of the talker."""
    with serving(service) as address:
        yield address


@pytest.fixture(scope="session")
def base(run: Path) -> Iterator[str]:
    """The address of a server of a base run."""
    with serving(service_of(run)) as address:
        yield address


@pytest.fixture(scope="module")
def served(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose model has learnt its answers by heart, and is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "step", slowed(Engine.step))
        server = Served(taught(tmp_path_factory.mktemp("runs") / "tiny-chat", tokenizer))
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any, served: Served) -> Iterator[Callable[..., Any]]:
    """`tab()`: a new tab with the page, in the browser of somebody in Korea who set the temperature to 0."""
    context = browser.new_context(locale="ko-KR")
    context.set_default_timeout(60_000)  # a machine that does much besides
    context.add_init_script("localStorage['kogpt:settings'] ??= JSON.stringify({temperature: '0'})")

    def open_(address: str = "", state: str = "ready") -> Any:
        page = context.new_page()
        page.goto(address or served.url)
        page.wait_for_selector(f"#state[data-state={state}]")
        return page

    yield open_
    context.close()

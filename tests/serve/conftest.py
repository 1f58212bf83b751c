"""Servers of this process that several tests ask: one that was taught to answer, and one that only continues texts."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import make_chat_run
from servers import service_of, serving

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

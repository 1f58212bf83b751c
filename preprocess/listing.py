"""Work on object stores that comes before the readers, listing and sampling, done by a worker instead of the driver.

So the driver needs no way to the store, nor credentials. Where no worker has them, or Ray has trouble, the driver does
it: what comes out is the same. If neither can, the error says what each of them says.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from kogpt.common.errors import UserError
from preprocess.auto_layout import guess_layout
from preprocess.cluster import one_line
from preprocess.layouts import Layout
from preprocess.remote import WEB
from preprocess.sources import Expansion, Source, expanded, find_sources

log = logging.getLogger(__name__)
T = TypeVar("T")
_HERE = ("file", "local", *WEB)
"""Protocols of what the driver lists: its own files, and servers that list nothing."""


def listed(inputs: tuple[str, ...], connect: Callable[[], None]) -> list[Source]:
    """All files of the inputs, in order. `connect` starts Ray, if there is a store among them."""

    def expand(item: str, flag: str) -> Expansion:
        if "://" not in item or item.partition("://")[0] in _HERE:
            return expanded(item, flag)
        connect()
        return _by_a_worker(f"list {item}", expanded, item, flag)

    return find_sources(inputs, expand=expand)


def layout_of(sources: Sequence[Source]) -> tuple[Layout, str]:
    """As `guess_layout`."""
    if not sources or any(source.is_local or source.is_web for source in sources):
        return guess_layout(list(sources))
    return _by_a_worker("sample the input", guess_layout, list(sources))


def _by_a_worker(what: str, function: Callable[..., T], *arguments: Any) -> T:
    task: Any = ray.remote(num_cpus=0, scheduling_strategy="SPREAD", max_retries=0)(function)
    try:
        return ray.get(task.remote(*arguments))
    except RayError as error:
        why: Any = getattr(error, "cause", error)
        try:
            found = function(*arguments)
        except UserError as own:  # which of the two is the reason, a misspelled path or no credentials, nobody knows
            if isinstance(why, UserError) and str(why) != str(own):
                raise UserError(f"{own}; a worker says: {why}") from None
            raise
        log.warning(f"a worker could not {what} ({one_line(why)}); the driver did")
        return found

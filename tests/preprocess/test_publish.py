"""A corpus for a URL has two places, the URL and a local folder. A run that one of them refuses changes neither."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from kogpt.common.errors import UserError
from preprocess import pipeline
from preprocess.options import Options
from preprocess.pipeline import preprocess

URL = "memory://two/corpus"


@pytest.fixture
def begun(options: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Options]:
    """A run whose driver died when it had claimed both places."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(pipeline._Run, "_begin_scan", lambda *_: 1 / 0)
    run = replace(options, output=URL, cache=str(options.cache_folder))
    with pytest.raises(ZeroDivisionError):
        preprocess(run)
    yield run
    fsspec.filesystem("memory").rm("/two", recursive=True)


def test_what_the_folder_refuses_does_not_claim_the_url(begun: Options) -> None:
    memory = fsspec.filesystem("memory")
    memory.rm("/two/corpus/.work/plan.json")
    with pytest.raises(UserError, match=r"--output \S+ was begun with no --limit, not 5"):
        preprocess(replace(begun, limit=5))
    assert not memory.exists("/two/corpus/.work/plan.json")
    with pytest.raises(ZeroDivisionError):
        preprocess(begun)


def test_what_the_url_refuses_does_not_claim_the_folder(
    begun: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "another"))
    with pytest.raises(UserError, match=rf"--output {URL} was begun with no --limit, not 5"):
        preprocess(replace(begun, limit=5))
    with pytest.raises(ZeroDivisionError):
        preprocess(begun)

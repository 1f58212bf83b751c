"""Which checkpoint of a run is used: the best, the last, or that of a step; and how it is said."""

import logging
from pathlib import Path

import pytest
from checkpoints import write

from kogpt.checkpoint.choose import choose
from kogpt.checkpoint.layout import MODEL, point, shard_file, step_folder
from kogpt.common.errors import UserError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Checkpoints of steps 1, 2, and 3, of which 2 has the lowest validation loss."""
    for step in (1, 2, 3):
        write(tmp_path, step)
    point(step_folder(tmp_path, 2), "best")
    return tmp_path


@pytest.mark.parametrize(("wish", "step"), [(None, 2), ("best", 2), ("last", 3), ("1", 1), (3, 3)])
def test_the_one_that_is_asked_for(run: Path, wish: str | int | None, step: int) -> None:
    assert choose(run, wish) == step_folder(run, step)


def test_what_is_used_is_said(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kogpt")
    choose(run)
    choose(run, "last")
    assert caplog.messages == [
        "Using the checkpoint step-00000002, the best by validation loss "
        "(the last is step-00000003; --checkpoint last takes it).",
        "Using the checkpoint step-00000003, the last.",
    ]


def test_without_validation_there_is_no_best(run: Path) -> None:
    (run / "checkpoints" / "best").unlink()
    assert choose(run) == step_folder(run, 3)
    with pytest.raises(UserError, match=r"no best checkpoint.*--checkpoint last"):
        choose(run, "best")


def test_a_damaged_one_is_used_by_nobody(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (step_folder(run, 2) / shard_file(MODEL)).write_bytes(b"")
    assert choose(run) == step_folder(run, 3)
    assert "Skipping the best checkpoint" in caplog.text
    for wish in ("best", "2"):
        with pytest.raises(UserError, match="is damaged"):
            choose(run, wish)


def test_a_step_that_is_not_there(run: Path) -> None:
    with pytest.raises(UserError, match=r"--checkpoint 7: .* only of 1, 2, 3"):
        choose(run, "7")


def test_a_step_folder_is_taken_as_it_is(run: Path) -> None:
    assert choose(step_folder(run, 1)) == step_folder(run, 1)
    with pytest.raises(UserError, match="a single checkpoint already"):
        choose(step_folder(run, 1), "best")

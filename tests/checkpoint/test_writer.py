"""Checkpoints are readable by safetensors and by us, for any number of ranks. A failed write leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import write
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from kogpt.checkpoint.layout import CONFIG, MODEL, point, pointed, shard_file, step_folder, step_folders
from kogpt.checkpoint.load import load_for_inference
from kogpt.checkpoint.prune import prune, remove_strays
from kogpt.checkpoint.reader import CheckpointReader
from kogpt.checkpoint.verify import verify
from kogpt.checkpoint.writer import write_checkpoint


def test_one_ranks_file_holds_whole_tensors_for_other_readers(tmp_path: Path) -> None:
    weights = write(tmp_path, 3)
    read = load_file(step_folder(tmp_path, 3) / shard_file(MODEL))
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], value) for name, value in weights.items())
    assert verify(step_folder(tmp_path, 3)) is None
    assert pointed(tmp_path, "latest") == "step-00000003"


@settings(max_examples=30)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=4), st.data())
def test_any_cut_is_put_together_again_exactly_and_any_range_is_read(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], data: st.DataObject
) -> None:
    run = tmp_path_factory.mktemp("run")
    weights = write(run, 1, cuts=tuple(cuts))  # some ranks may have nothing
    folder = step_folder(run, 1)
    assert verify(folder) is None
    reader = CheckpointReader(folder)
    assert reader.shapes == {name: tuple(value.shape) for name, value in weights.items()}
    assert set(reader.slots.values()) == {("momentum",)}
    for name, value in weights.items():
        assert torch.equal(reader.weight(name), value)
        start = data.draw(st.integers(0, value.numel()))
        numel = data.draw(st.integers(0, value.numel() - start))
        assert torch.equal(reader.read(name, "momentum", start, numel), -value.flatten()[start : start + numel])
    loaded = load_for_inference(run).model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_what_killed_saves_leave_is_no_checkpoint_and_goes_with_the_next_start(tmp_path: Path) -> None:
    write(tmp_path, 1)
    stray = tmp_path / "checkpoints" / ".step-00000002.cafe"
    stray.mkdir()
    (stray / shard_file(MODEL)).write_bytes(b"half")
    assert step_folders(tmp_path) == [step_folder(tmp_path, 1)]
    write(tmp_path, 3)
    assert stray.exists(), "another training's, for all a writer knows"
    aside = tmp_path / "checkpoints" / ".step-00000003.cafe.old"
    step_folder(tmp_path, 3).rename(aside)  # killed between the two renames that replace a checkpoint
    remove_strays(tmp_path)
    assert not stray.exists()
    assert verify(step_folder(tmp_path, 3)) is None


def test_a_folder_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, 1, seed=1)
    (step_folder(tmp_path, 1) / shard_file(MODEL)).write_bytes(b"")
    weights = write(tmp_path, 1, seed=2)
    assert verify(step_folder(tmp_path, 1)) is None
    assert torch.equal(load_for_inference(tmp_path).model.state_dict()["wte.weight"], weights["wte.weight"])


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        write(tmp_path, step)
    point(step_folder(tmp_path, 2), "best")
    prune(tmp_path, 2)
    assert [folder.name[-1] for folder in step_folders(tmp_path)] == ["5", "4", "2"]


def test_broken_ones_that_were_passed_over_do_not_count_as_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write(tmp_path, step)
    (step_folder(tmp_path, 3) / shard_file(MODEL)).write_bytes(b"")
    write(tmp_path, 2)  # saved after the run resumed from step 1
    point(step_folder(tmp_path, 2), "latest")
    prune(tmp_path, 1)
    assert [folder.name[-1] for folder in step_folders(tmp_path)] == ["3", "2"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    """The kernel refuses files over 2,000 bytes. In a separate process, because the limit cannot be removed."""
    write(tmp_path, 1)
    program = f"""
import errno, resource
from pathlib import Path
import torch
from kogpt.checkpoint.writer import write_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    write_checkpoint(Path({str(tmp_path)!r}), 2, {{"a": torch.zeros(10), "b": torch.zeros(1000)}}, {{}}, {{}})
except OSError as error:
    assert error.errno == errno.EFBIG, error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)
    assert pointed(tmp_path, "latest") == "step-00000001"
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["latest", "step-00000001"]


def test_whole_weights_without_a_slot(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4)}
    folder = write_checkpoint(tmp_path, 0, weights, {"step": 0}, {"step": 0})
    assert verify(folder) is None
    reader = CheckpointReader(folder)
    assert torch.equal(reader.weight("a"), weights["a"])
    assert not reader.slots
    assert (folder / CONFIG).exists()

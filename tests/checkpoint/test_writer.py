"""The checkpoint folder: what is written is read back by others' readers; what is broken is found and passed over."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from kogpt.checkpoint.layout import CONFIG, MANIFEST, MODEL, OPTIMIZER, STATE, point, pointed, step_folder, step_folders
from kogpt.checkpoint.load import load_for_inference
from kogpt.checkpoint.prune import prune
from kogpt.checkpoint.reader import CheckpointReader
from kogpt.checkpoint.verify import newest_good, verify
from kogpt.checkpoint.writer import CheckpointWriter
from kogpt.common.errors import UserError
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.train.distributed import Ranks
from kogpt.train.resume import find_start

CONFIGURATION = GPTConfig(vocab_size=11, max_seq_len=8, n_layer=1, n_head=1, n_embd=6)


def _write(run: Path, step: int, seed: int = 0, *, writing: bool = True) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    weights = GPT(CONFIGURATION).state_dict()
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    writer = CheckpointWriter(run, step, writing=writing)
    writer.tensors(MODEL, shapes, weights.__getitem__)
    writer.tensors(
        OPTIMIZER, {f"exp_avg.{name}": shape for name, shape in shapes.items()}, lambda key: weights[key[8:]]
    )
    writer.json(CONFIG, {"model": asdict(CONFIGURATION), "step": step})
    writer.json(STATE, {"step": step})
    writer.finish()
    assert writer.error is None
    return weights


def test_tensors_are_what_safetensors_reads(tmp_path: Path) -> None:
    weights = _write(tmp_path, 3)
    folder = step_folder(tmp_path, 3)
    read = load_file(folder / MODEL)
    assert read.keys() == weights.keys()
    assert all(torch.equal(read[name], value) for name, value in weights.items())
    assert verify(folder) is None
    assert pointed(tmp_path, "latest") == "step-00000003"
    reader = CheckpointReader(folder)
    assert torch.equal(reader.moment("exp_avg", "wte.weight"), weights["wte.weight"])


def test_ranks_that_do_not_write_touch_no_disk(tmp_path: Path) -> None:
    _write(tmp_path, 3, writing=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [MODEL, OPTIMIZER, CONFIG, STATE, MANIFEST])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_broken_file_is_found_and_the_checkpoint_before_is_taken(
    name: str, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = _write(tmp_path, 1, seed=1)
    _write(tmp_path, 2, seed=2)
    path = step_folder(tmp_path, 2) / name
    content = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        path.write_bytes(
            content[:middle] + (b"" if how == "cut" else bytes([content[middle] ^ 1]) + content[middle + 1 :])
        )
    assert newest_good(tmp_path) == step_folder(tmp_path, 1)
    (said,) = caplog.messages
    assert "step-00000002 is broken and skipped" in said
    if name in (MODEL, CONFIG):
        loaded = load_for_inference(tmp_path)
        assert loaded.info["step"] == 1
        assert torch.equal(loaded.model.state_dict()["wte.weight"], before["wte.weight"])


def test_what_a_killed_save_leaves_is_no_checkpoint_and_goes_with_the_next(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    stray = tmp_path / "checkpoints" / ".step-00000002.tmp"
    stray.mkdir()
    (stray / MODEL).write_bytes(b"half")
    assert step_folders(tmp_path) == [step_folder(tmp_path, 1)]
    _write(tmp_path, 3)
    assert not stray.exists()


def test_a_broken_folder_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    _write(tmp_path, 1, seed=1)
    (step_folder(tmp_path, 1) / MODEL).write_bytes(b"")
    weights = _write(tmp_path, 1, seed=2)
    assert verify(step_folder(tmp_path, 1)) is None
    assert torch.equal(load_for_inference(tmp_path).model.state_dict()["wte.weight"], weights["wte.weight"])


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        _write(tmp_path, step)
    point(step_folder(tmp_path, 2), "best")
    prune(tmp_path, 2)
    assert [folder.name[-1] for folder in step_folders(tmp_path)] == ["5", "4", "2"]


def test_broken_ones_that_were_passed_over_do_not_count_as_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        _write(tmp_path, step)
    (step_folder(tmp_path, 3) / MODEL).write_bytes(b"")
    _write(tmp_path, 2)  # what the run saves after it went on from step 1
    point(step_folder(tmp_path, 2), "latest")
    prune(tmp_path, 1)
    assert [folder.name[-1] for folder in step_folders(tmp_path)] == ["3", "2"]


def test_a_run_whose_checkpoints_are_all_broken_is_not_begun_anew(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    (step_folder(tmp_path, 1) / MODEL).write_bytes(b"")
    alone = Ranks(0, 1, 0, 1, torch.device("cpu"))
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        with pytest.raises(UserError, match="1 checkpoints, all of them broken"):
            find_start(tmp_path, "auto", {}, alone)
    finally:
        dist.destroy_process_group()


def test_a_full_disk_leaves_nothing_behind_and_is_reported(tmp_path: Path) -> None:
    """The kernel refuses files over 2,000 bytes; in a process of its own, since that is for good."""
    program = f"""
import resource, sys
sys.path[:0] = [{str(Path(__file__).parent)!r}]
from pathlib import Path
import torch
from test_writer import CONFIGURATION, GPT, MODEL, CheckpointWriter, _write, pointed, step_folders
run = Path({str(tmp_path)!r})
_write(run, 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
weights = GPT(CONFIGURATION).state_dict()
asked = []
writer = CheckpointWriter(run, 2, writing=True)
writer.tensors(MODEL, {{n: tuple(v.shape) for n, v in weights.items()}}, lambda n: asked.append(n) or weights[n])
writer.json("config.json", {{}})
writer.finish()
assert asked == list(weights), "the other ranks would hang"
assert isinstance(writer.error, OSError), writer.error
assert [path.name for path in step_folders(run)] == ["step-00000001"]
assert pointed(run, "latest") == "step-00000001"
assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["latest", "step-00000001"]
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_inference_needs_no_deepspeed(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    program = (
        "import sys; from kogpt.checkpoint.load import load_for_inference; "
        f"load_for_inference({str(tmp_path)!r}); assert not {{'deepspeed', 'transformers', 'wandb'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_nothing_usable_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no usable checkpoint"):
        load_for_inference(tmp_path)
    _write(tmp_path, 1)
    folder = step_folder(tmp_path, 1)
    (folder / MANIFEST).write_text(json.dumps({"format": "else"}))
    with pytest.raises(UserError, match="is broken"):
        load_for_inference(folder)

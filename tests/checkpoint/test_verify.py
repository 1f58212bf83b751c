"""A damaged checkpoint is detected, whatever the file and the damage, and the previous checkpoint is used instead."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import write

from kogpt.checkpoint.layout import CONFIG, MANIFEST, MODEL, OPTIMIZER, STATE, kind_of, shard_file, step_folder
from kogpt.checkpoint.load import load_for_inference
from kogpt.checkpoint.verify import newest_good, verify
from kogpt.common.errors import UserError
from kogpt.train.distributed import Ranks
from kogpt.train.resume import find_start

OLD = Path(__file__).parents[1] / "fixtures" / "version-0.1" / "run"


@pytest.mark.parametrize("name", [shard_file(MODEL, 1, 2), shard_file(OPTIMIZER, 0, 2), CONFIG, STATE, MANIFEST])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_broken_file_is_found_and_the_checkpoint_before_is_taken(
    name: str, how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = write(tmp_path, 1, seed=1)
    write(tmp_path, 2, seed=2, cuts=(300,))
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
    assert len(caplog.messages) == 1
    assert "Skipping the damaged checkpoint" in caplog.messages[0]
    assert "step-00000002" in caplog.messages[0]
    if kind_of(name) in (MODEL, CONFIG):
        loaded = load_for_inference(tmp_path)
        assert loaded.info["step"] == 1
        assert torch.equal(loaded.model.state_dict()["wte.weight"], before["wte.weight"])


def test_a_rank_that_the_manifest_does_not_list_is_missed(tmp_path: Path) -> None:
    write(tmp_path, 1, cuts=(300,))
    path = step_folder(tmp_path, 1) / MANIFEST
    content = json.loads(path.read_text())
    del content["files"][shard_file(MODEL, 1, 2)]
    path.write_text(json.dumps(content))
    assert verify(step_folder(tmp_path, 1)) == "manifest.json does not list all files"


def test_version_1_still_verifies_and_loads(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "run")
    assert verify(step_folder(tmp_path / "run", 6)) is None
    assert load_for_inference(tmp_path / "run").info["step"] == 6
    (step_folder(tmp_path / "run", 6) / "optimizer.safetensors").unlink()
    assert verify(step_folder(tmp_path / "run", 6)) == "optimizer.safetensors is missing"


def test_a_run_whose_checkpoints_are_all_broken_is_not_begun_anew(tmp_path: Path, ranks: Ranks) -> None:
    write(tmp_path, 1)
    (step_folder(tmp_path, 1) / shard_file(MODEL)).write_bytes(b"")
    with pytest.raises(UserError, match="1 checkpoints, all of them damaged"):
        find_start(tmp_path, "auto", {}, ranks)


def test_inference_needs_no_deepspeed(tmp_path: Path) -> None:
    write(tmp_path, 1)
    program = (
        "import sys; from kogpt.checkpoint.load import load_for_inference; "
        f"load_for_inference({str(tmp_path)!r}); assert not {{'deepspeed', 'transformers', 'wandb'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_nothing_usable_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no usable checkpoint"):
        load_for_inference(tmp_path)
    write(tmp_path, 1)
    folder = step_folder(tmp_path, 1)
    (folder / MANIFEST).write_text(json.dumps({"format": "else"}))
    with pytest.raises(UserError, match="is damaged"):
        load_for_inference(folder)

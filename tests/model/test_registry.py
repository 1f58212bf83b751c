"""An architecture is two files, kogpt/model/NAME.py and kogpt/hub/NAME.py: with them it goes through the whole project.

The names of an architecture's tensors occur nowhere else.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import SHAPES, make_run
from engines import train_here
from trainings import deepspeed_file, flags

import kogpt
from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.eval.run import evaluate_run
from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.hub.export import export_model
from kogpt.hub.import_run import import_run
from kogpt.model.registry import ARCHITECTURES
from kogpt.tokenizer.wordpiece import Tokenizer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("arch", SHAPES)
def test_an_architecture_goes_everywhere(
    arch: str, corpus: Path, tokenizer: Tokenizer, ranks: Any, tmp_path: Path
) -> None:
    model = load_for_inference(make_run(tmp_path / "source", tokenizer, arch)).model
    assert isinstance(model, ARCHITECTURES[arch].model)
    shape = model.config

    # generate: cached, padded, with fewer KV heads than heads, and beyond the context
    prompts, sampling = [[2, 9, 11, 30], [2]], Sampling(max_new_tokens=40, greedy=True)
    made = list(zip(*generate(model, prompts, sampling), strict=True))
    for prompt, row in zip(prompts, made, strict=True):
        ids, start = list(prompt), 0
        for token in row:
            start = len(ids) - 16 if len(ids) - start > 32 else start
            assert model(torch.tensor([ids[start:]]))[0, -1].argmax().item() == token
            ids.append(token)

    # export and import, where every vocabulary matrix follows the tokenizer
    export_model(tmp_path / "source", tmp_path / "exported", texts=["모든 국민은"])
    import_run(tmp_path / "exported", tmp_path / "run", corpus)
    started = load_for_inference(tmp_path / "run").model
    assert torch.equal(started(torch.tensor(prompts[:1])), model(torch.tensor(prompts[:1])))

    # train from there, resume, and go on
    file = deepspeed_file(tmp_path / "ds.json", 0, lr=1e-2)
    losses = []

    def line(steps: int, *more: str) -> list[str]:
        return [*flags(corpus, tmp_path / "run", file, steps)[4:], *more]  # without the shape

    for steps in (3, 6):
        trainer = train_here(line(steps), ranks)
        assert trainer.config == shape
        info = load_for_inference(tmp_path / "run").info
        assert (info["model"]["arch"], info["step"]) == (arch, steps)
        assert info["format"] == "kogpt-checkpoint"
        best = trainer.checkpoints.best
        losses.append(best["val_loss"] if best else None)
    assert losses[1] < losses[0]
    with pytest.raises(UserError, match="n_layer is 3 instead of 2"):
        train_here(line(9, "--depth", "3"), ranks)
    other = "qwen3" if arch == "gpt2" else "gpt2"
    with pytest.raises(UserError, match=f"arch is {other} instead of {arch}"):
        train_here(line(9, "--arch", other), ranks)

    scored = evaluate_run(tmp_path / "run", corpus=corpus, stride=16, device="cpu")
    assert scored["bits_per_char"][str(corpus)]["loss"] == pytest.approx(losses[1], rel=1e-5)
    assert kogpt.load(tmp_path / "run").generate("모든 국민은", max_new_tokens=4).startswith("모든 국민은")


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("gpt2", r"\bw[tp]e\b|\bln_f\b|\bc_attn\b|\bc_fc\b|\bc_proj\b|\bqkv\b"),
        ("qwen3", r"\b[qkvo]_proj\b|\b(?:gate|up|down)_proj\b|\bembed_tokens\b|\b[qk]_norm\b"),
    ],
)
def test_its_tensors_are_named_in_its_two_files_alone(arch: str, names: str) -> None:
    allowed = {ROOT / f"kogpt/{folder}/{arch}.py" for folder in ("model", "hub")}
    found = {
        path.relative_to(ROOT).as_posix(): re.findall(names, path.read_text(encoding="utf-8"))
        for folder in ("kogpt", "launch", "preprocess")
        for path in (ROOT / folder).rglob("*.py")
        if path not in allowed
    }
    assert not {path: words for path, words in found.items() if words}

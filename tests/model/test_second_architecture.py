"""Adding an architecture takes two files: a toy one imports, trains, resumes, evaluates, generates, and exports.

The names of GPT-2's tensors occur nowhere else.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import write_checkpoint
from toy import Toy, ToyAdapter, ToyConfig
from trainings import deepspeed_file as write_deepspeed_file

import kogpt
from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.eval.run import evaluate_run
from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.hub import adapters
from kogpt.hub.export import export_model
from kogpt.hub.import_run import import_run
from kogpt.hub.weights import import_model
from kogpt.model import registry
from kogpt.tokenizer.wordpiece import Tokenizer
from kogpt.train import deepspeed_config, deepspeed_file
from kogpt.train.options import ModelOptions, RunOptions, ScheduleOptions, TrainOptions
from kogpt.train.stop_signal import Stop
from kogpt.train.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]


class _NoStop(Stop):
    """A `Stop` without signal handlers, which would replace pytest's."""

    def __init__(self) -> None:
        self.code = 0


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ARCHITECTURES, "toy", registry.Architecture(ToyConfig, Toy))
    monkeypatch.setitem(adapters.ADAPTERS, "toy", ToyAdapter())


def _train(corpus: Path, run: Path, config: Path, steps: int, ranks: Any, model: ModelOptions) -> Trainer:
    out = RunOptions(corpus=corpus, out=run, deepspeed_config=config, stride=16, prompts=(), compile="off", wandb="off")
    options = TrainOptions(model, ScheduleOptions(steps=steps), out)
    plan = deepspeed_config.plan(config, deepspeed_file.read(config), world_size=1, device="cpu", has_bf16=False)
    trainer = Trainer(options, plan, TokenCorpus.open(corpus), ranks, _NoStop())
    assert trainer.train() == 0
    return trainer


@pytest.mark.usefixtures("toy")
def test_a_second_architecture_goes_everywhere(corpus: Path, tokenizer: Tokenizer, ranks: Any, tmp_path: Path) -> None:
    shape = ToyConfig(tokenizer.vocab_size, 32, 2, 4, 16, n_kv_head=2)
    torch.manual_seed(0)
    model = Toy(shape).eval()
    assert shape.parameter_count == sum(parameter.numel() for parameter in model.parameters())
    tokenizer.save(tmp_path / "source" / "tokenizer")
    write_checkpoint(tmp_path / "source", model, 5, corpus="c0ffee")
    loaded = load_for_inference(tmp_path / "source").model
    assert isinstance(loaded, Toy)
    assert loaded.config == shape

    # generate: cached, padded, sliding, with fewer KV heads than heads
    prompts, sampling = [[2, 9, 11, 30], [2]], Sampling(max_new_tokens=20, greedy=True)
    made = list(zip(*generate(model, prompts, sampling), strict=True))
    for prompt, row in zip(prompts, made, strict=True):
        ids = list(prompt)
        for token in row:
            assert model(torch.tensor([ids]))[0, -1].argmax().item() == token
            ids.append(token)

    # export and import, where both vocabulary matrices follow the tokenizer
    export_model(tmp_path / "source", tmp_path / "exported", texts=["모든 국민은"])
    assert "Toy architecture" in (tmp_path / "exported" / "README.md").read_text()
    config, state = import_model(tmp_path / "exported")
    assert config == shape
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    import_run(tmp_path / "exported", tmp_path / "run", corpus)
    started = load_for_inference(tmp_path / "run").model
    assert torch.equal(started(torch.tensor(prompts[:1])), model(torch.tensor(prompts[:1])))

    # train from there, resume, and go on
    file = write_deepspeed_file(tmp_path / "ds.json", 0, lr=1e-2)
    losses = []
    for steps in (3, 6):
        trainer = _train(corpus, tmp_path / "run", file, steps, ranks, ModelOptions())
        assert trainer.config == shape
        info = load_for_inference(tmp_path / "run").info
        assert (info["model"]["arch"], info["step"]) == ("toy", steps)
        assert info["format"] == "kogpt-checkpoint"
        losses.append(trainer.best["val_loss"] if trainer.best else None)
    assert losses[1] < losses[0]
    with pytest.raises(UserError, match="n_layer is 12 instead of 2"):
        _train(corpus, tmp_path / "run", file, 9, ranks, ModelOptions(preset="small"))

    scored = evaluate_run(tmp_path / "run", corpus=corpus, stride=16, device="cpu")
    assert scored["bits_per_char"][str(corpus)]["loss"] == pytest.approx(losses[1], rel=1e-5)
    assert kogpt.load(tmp_path / "run").generate("모든 국민은", max_new_tokens=4).startswith("모든 국민은")


def test_gpt2_s_tensors_are_named_in_its_two_files_alone() -> None:
    names = re.compile(r"\bw[tp]e\b|\bln_f\b|\bc_attn\b|\bc_fc\b|\bc_proj\b|\blm_head\b|\bqkv\b")
    allowed = {ROOT / "kogpt/model/gpt2.py", ROOT / "kogpt/hub/gpt2.py"}
    found = {
        path.relative_to(ROOT).as_posix(): names.findall(path.read_text(encoding="utf-8"))
        for folder in ("kogpt", "launch", "preprocess")
        for path in (ROOT / folder).rglob("*.py")
        if path not in allowed
    }
    assert not {path: words for path, words in found.items() if words}

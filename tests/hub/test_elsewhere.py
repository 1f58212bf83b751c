"""The commands of docs/export.md that start other programs, on a small model and without a hub."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from builders import conversations, make_chat_run

from kogpt.eval.run import evaluate_run
from kogpt.hub.export import export_model

PAGE = Path(__file__).parents[2] / "docs/export.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The names of the page: `model`, and `chats` with conversations."""
    here = tmp_path_factory.mktemp("elsewhere")
    export_model(make_chat_run(here / "run", max_seq_len=256), here / "model")
    (here / "chats").mkdir()
    talks = [{"messages": [message._asdict() for message in talk]} for talk in conversations()[:16]]
    talks += [{"messages": [message for talk in talks for message in talk["messages"]]}]  # longer than the context
    (here / "chats/train.jsonl").write_text("\n".join(json.dumps(talk, ensure_ascii=False) for talk in talks))
    return here


def follow(program: str, folder: Path, *more: str) -> None:
    """Run the page's command that begins with `program`, with `more` behind it."""
    (line,) = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"{program} ")]
    name, *words = shlex.split(line)
    command = [sys.executable, str(Path(sys.executable).with_name(name)), *words, *more]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.ecosystem
def test_trl_adapts_it_with_lora(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    more = ["--max_steps", "12", "--use_cpu", "--report_to", "none", "--logging_steps", "1"]
    follow("trl", folder, *more)
    monkeypatch.chdir(folder)  # the adapter names its model as the command did
    ids = torch.arange(20, 30)[None]
    adapted = AutoPeftModelForCausalLM.from_pretrained(folder / "adapter").eval()(ids).logits
    base = AutoModelForCausalLM.from_pretrained(folder / "model").eval()(ids).logits
    assert adapted.shape == base.shape
    assert (adapted - base).abs().max() > 1e-4
    state = json.loads((folder / "adapter/checkpoint-12/trainer_state.json").read_text())
    first, *_, last = (one["loss"] for one in state["log_history"] if "loss" in one)
    assert 0 < last < first


@pytest.mark.ecosystem
def test_lm_eval_measures_what_kogpt_evaluate_does(folder: Path) -> None:
    (folder / "tasks").mkdir()
    data = folder / "items.jsonl"
    asked = [(question.content, answer.content) for *_, question, answer in conversations()]
    items = [
        {"task": "law", "context": question, "question": "", "choices": [asked[n - k][1] for k in range(4)], "label": 0}
        for n, (question, _) in enumerate(asked)
    ]
    data.write_text("\n".join(json.dumps(item, ensure_ascii=False) for item in items))
    (folder / "tasks/kobest.yaml").write_text(
        "task: kobest\ndataset_path: json\noutput_type: multiple_choice\ntest_split: test\n"
        f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        'doc_to_text: "{{context}}"\ndoc_to_choice: "{{choices}}"\ndoc_to_target: label\n'
        "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]\n"
    )
    follow("lm_eval", folder, "--include_path", "tasks", "--device", "cpu", "--output_path", "results.json")
    (found,) = folder.glob("results*.json")
    ours = evaluate_run(folder / "run", choices=data)["multiple_choice"]["0"]["law"]["acc"]
    assert json.loads(found.read_text())["results"]["kobest"]["acc,none"] == ours

"""Multiple-choice tasks within a training: a bounded share of its time, and the numbers of `kogpt evaluate`."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import make_tokenizer
from trainings import Plan, deepspeed_file, flags, records, together

from kogpt.common.errors import UserError
from kogpt.data.batch import Batch
from kogpt.data.corpus import TokenCorpus
from kogpt.eval.likelihood import score_batches
from kogpt.eval.multiple_choice import Item, choice_rows
from kogpt.eval.run import evaluate_run
from kogpt.tokenizer.codec import TextCodec
from kogpt.train import task_evaluation
from kogpt.train.corpora import Corpora, Part
from kogpt.train.evaluation import Evaluation

LAWS = ("모든 국민은", "대통령은", "국회는", "법률은", "이 헌법은")
ITEMS: list[dict[str, Any]] = [
    {"task": task, "context": law, "choices": ["법 앞에 평등하다.", f"{number} 조."], "label": number % 2}
    for task in ("law", "order")
    for number, law in enumerate(LAWS)
]


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(json.dumps(item, ensure_ascii=False) for item in ITEMS), encoding="utf-8")
    return path


def test_a_training_gives_the_numbers_of_kogpt_evaluate(corpus: Path, items: Path, tmp_path: Path) -> None:
    config = deepspeed_file(tmp_path / "ds.json", 3)
    run = tmp_path / "run"
    line = flags(corpus, run, config, 2, "--eval-every", "1000", "--save-every", "1000", "--eval-tasks", str(items))
    assert together(2, [Plan(line)], tmp_path / "logs") == [0]
    first, last = records(run)
    assert "above_chance" not in first
    found = evaluate_run(run, choices=items, device="cpu", checkpoint="last")
    for task, scored in found["multiple_choice"]["0"].items():
        assert scored["items"] == len(LAWS)
        assert last[f"accuracy/{task}"] == scored["accuracy"]
        assert last[f"answer_bits_per_char/{task}"] == pytest.approx(scored["bits_per_char"], rel=1e-5)
    mean = found["above_chance"]["0"]
    assert last["above_chance"] == pytest.approx(mean["mean"])
    assert last["above_chance_standard_error"] == pytest.approx(mean["standard_error"])


def test_prompts_and_tasks_are_encoded_by_one_process(
    corpus: Path, items: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    run = subprocess.run

    def counted(*what: Any, **how: Any) -> Any:
        started.append(what)
        return run(*what, **how)

    monkeypatch.setattr(subprocess, "run", counted)
    corpora = Corpora([Part("laws", TokenCorpus.open(corpus), 1.0, replayed=False)])
    prompts, tasks = Evaluation(corpora, 64, 32, LAWS[:2])._read(task_evaluation.choose(items, 64, 1e6, 16, 1))
    assert len(started) == 1
    codec = TextCodec(corpora.tokenizer_folder)
    assert prompts == [[codec.tokenizer.cls_id, *codec.encode(law)] for law in LAWS[:2]]
    assert tasks.rows == choice_rows(codec.encode, codec.tokenizer, tasks.items, 64)
    assert len(tasks.rows) == 2 * len(ITEMS)


def test_the_items_fit_a_share_of_the_tokens() -> None:
    short, long = (Item("short", "가" * 8, ("나", "다"), 0), Item("long", "가" * 500, ("나", "다"), 0))
    tasks = {"short": [short] * 100, "long": [long] * 3}
    turn = 2 * 64 + 2 * 256  # rows are padded to 64 tokens; the longest is as long as the context
    for tokens, counts in ((turn - 1, (0, 0)), (turn, (1, 1)), (2.5 * turn, (2, 2)), (3 * turn + 256, (5, 3))):
        chosen = task_evaluation._fitting(tasks, 256, tokens, 1, 1)
        assert tuple(sum(item is one for item in chosen) for one in (short, long)) == counts


def test_evaluations_are_counted_with_those_of_checkpoints() -> None:
    assert task_evaluation.tokens_between(100, 100, 8) == 800
    assert task_evaluation.tokens_between(100, 50, 8) == pytest.approx(400)
    assert task_evaluation.tokens_between(3, 2, 6) == pytest.approx(6 * 6 / 4)


def test_tasks_that_do_not_fit_are_refused(items: Path) -> None:
    with pytest.raises(UserError, match=r"--eval-tasks .*items\.jsonl takes more than 2%.* --eval-every"):
        task_evaluation.choose(items, 64, 100.0, 16, 1)


@pytest.mark.parametrize(
    ("windows", "eval_every", "micro_batch", "world"),
    [(32, 100, 32, 1), (64, 20, 8, 8), (256, 5, 1, 64), (96, 20, 4, 24), (64, 100, 8, 8)],
)
def test_the_batches_of_all_ranks_stay_below_2_percent(
    windows: int, eval_every: int, micro_batch: int, world: int
) -> None:
    """Also of a vocabulary with a token for every character, and counting the ranks that wait for the longest batch."""
    draw = random.Random(1)
    tasks = {
        name: [Item(name, "가" * draw.randint(few, many), ("나" * draw.randint(1, 30),) * 2, 0) for _ in range(500)]
        for name, few, many in (("short", 10, 90), ("long", 100, 500))
    }
    tokens = task_evaluation.tokens_between(eval_every, 10**9, windows * 256)
    items = task_evaluation._fitting(tasks, 256, 3 * 0.02 * tokens, micro_batch, world)
    rows = choice_rows(lambda text: [1] * len(text.strip()), make_tokenizer(LAWS), items, 256)

    def positions(rank: int) -> list[int]:
        """Of each batch of a rank."""
        found = []

        def token_nll(batch: Batch) -> torch.Tensor:
            found.append(batch.ids.numel())
            return torch.zeros(batch.ids.shape)

        share: dict[str, Any] = {"batch_rows": micro_batch, "rank": rank, "world_size": world}
        list(score_batches(token_nll, rows, device=torch.device("cpu"), **share))
        return found

    slowest = sum(map(max, zip(*map(positions, range(world)), strict=True)))
    assert 0.01 < world * slowest / 3 / tokens <= 0.02

"""Fine-tuning on conversations: the loss of the answers alone, at every stage and number of ranks, and resumed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_run
from trainings import GLOBAL_BATCH, Plan, copy_as_of, deepspeed_file, flags, losses, records, together

from kogpt.checkpoint.layout import MANIFEST, step_folder
from kogpt.checkpoint.load import load_for_inference
from kogpt.data.corpus import TokenCorpus
from kogpt.data.loader import Share, TrainBatches
from kogpt.eval.run import evaluate_run
from kogpt.tokenizer.chat import Message, prompt
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import Tokenizer

STAGES, STEPS, CONTEXT = (0, 1, 2, 3), 8, 96
QUESTION = "제1조는?"


@pytest.fixture(scope="module")
def base(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("base") / "base", tokenizer, max_seq_len=CONTEXT, spread=0.0)


def _plan(chat: Path, corpus: Path, run: Path, stage: int, *more: str) -> Plan:
    line = flags(chat, run, deepspeed_file(run.with_suffix(".json"), stage), STEPS, *more)
    line = [*line[line.index("--compile") :], "--prompts", *([QUESTION] if stage == 2 else [])]
    line += ["--save-every", "4", "--eval-every", "4"]
    return Plan([*line, "--mix", f"{corpus}=0.2"])


@pytest.mark.timeout(900)
def test_fine_tuning(base: Path, chat_corpus: Path, corpus: Path, tmp_path: Path) -> None:
    runs = {stage: tmp_path / f"stage-{stage}" for stage in STAGES}
    init = ("--init", str(base))
    assert (
        together(2, [_plan(chat_corpus, corpus, run, s, *init) for s, run in runs.items()], tmp_path / "a", seconds=600)
        == [0] * 4
    )
    for run in runs.values():
        assert losses(run) == pytest.approx(losses(runs[0]), abs=1e-5)

    # Killed and resumed, on as many ranks and on one.
    again = {stage: copy_as_of(run, 4, tmp_path / f"again-{stage}") for stage, run in runs.items()}
    assert (
        together(2, [_plan(chat_corpus, corpus, run, s) for s, run in again.items()], tmp_path / "b", seconds=600)
        == [0] * 4
    )
    for stage, run in again.items():
        assert losses(run) == losses(runs[stage])
        one, other = (json.loads((step_folder(r, STEPS) / MANIFEST).read_text()) for r in (run, runs[stage]))
        assert one["files"] == other["files"]
    alone = copy_as_of(runs[2], 4, tmp_path / "alone")
    assert together(1, [_plan(chat_corpus, corpus, alone, 2)], tmp_path / "c", seconds=600) == [0]
    assert losses(alone) == pytest.approx(losses(runs[2]), abs=1e-5)

    run = runs[2]
    _losses_are_those_of_the_answers(run, base, chat_corpus, corpus)
    # The answer to the question is what the model writes after it.
    codec, last = TextCodec(run / "tokenizer"), load_for_inference(run, checkpoint=STEPS)
    assert last.info["kind"] == "conversations"
    assert last.info["init"]["run"] == "base"
    before = evaluate_run(run, corpus=chat_corpus, checkpoint=0, device="cpu")["bits_per_char"][str(chat_corpus)]
    assert last.info["init"]["val_loss"] == pytest.approx(before["loss"], abs=1e-5)
    [(asked, answer)] = records(run)[-1]["continuations"]
    assert asked == QUESTION
    row = prompt([Message("user", QUESTION)], codec.tokenizer, codec.encode, CONTEXT).ids
    length = len(row)
    while len(row) < length + 40 and row[-1] != codec.tokenizer.end_id:
        row.append(int(last.model(torch.tensor([row[-CONTEXT:]]))[0, -1].argmax()))
    assert answer == codec.decode(row[length:])
    chat, replayed = json.loads((run / "run.json").read_text())["data"]
    assert chat["conversations"] == len(TokenCorpus.open(chat_corpus).split("train"))
    assert 0.5 < chat["filled"] <= 1
    assert replayed["replayed"]


def _losses_are_those_of_the_answers(run: Path, base: Path, chat_corpus: Path, corpus: Path) -> None:
    mixed = [(TokenCorpus.open(chat_corpus), 0.8), (TokenCorpus.open(corpus), 0.2)]
    share = Share(GLOBAL_BATCH, 1, 0, 1, torch.device("cpu"))
    step = TrainBatches(mixed, max_seq_len=CONTEXT, seed=1, share=share).step(0)
    model = load_for_inference(base).model
    with torch.no_grad():
        [nll] = [model(*batch).item() for batch in step.micro_batches]
    assert losses(run)[0] == pytest.approx(nll / step.targets, abs=1e-5)

    last = load_for_inference(run, checkpoint=STEPS).model
    talks, nlls, chars = mixed[0][0], list[float](), 0
    for number in talks.split("val").tolist():
        tokens, learnt = torch.from_numpy(talks.article(number).astype(np.int64))[None], talks.learnt(number)
        with torch.no_grad():
            scores = last(tokens[:, :-1])[0].log_softmax(-1)
        nlls += [-float(scores[i - 1, tokens[0, i]]) for i in np.flatnonzero(learnt)]
        chars += talks.articles["learnt_chars"][number].as_py()
    found = records(run)[-1]
    assert found["val_loss"] == pytest.approx(np.mean(nlls), abs=1e-4)
    assert found["val_bits_per_char"] == pytest.approx(sum(nlls) / np.log(2) / chars, abs=1e-3)
    scored = evaluate_run(run, corpus=chat_corpus, checkpoint=STEPS, device="cpu")["bits_per_char"][str(chat_corpus)]
    assert scored["loss"] == pytest.approx(found["val_loss"], abs=1e-5)
    before = evaluate_run(run, corpus=chat_corpus, checkpoint=4, device="cpu")["bits_per_char"][str(chat_corpus)]
    assert scored["loss"] < before["loss"]
    replayed = evaluate_run(run, corpus=corpus, checkpoint=STEPS, device="cpu")["bits_per_char"][str(corpus)]
    assert replayed["bits_per_char"] == pytest.approx(found["val_bits_per_char/corpus"], abs=0.1)  # another stride

"""`evaluate_run`, compared with sums computed one position at a time."""

import gzip
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import SHARED, encoded, make_run, make_tokenizer, needs_shared, write_corpus
from rich.console import Console

from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.data.corpus import TokenCorpus
from kogpt.eval.likelihood import corpus_articles, score_articles
from kogpt.eval.multiple_choice import Item, multiple_choice
from kogpt.eval.report import table
from kogpt.eval.run import evaluate_run
from kogpt.eval.tasks import read_items
from kogpt.eval.texts import encoded_articles, read_texts
from kogpt.model.decoder import Decoder
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.loss import IGNORED
from kogpt.optim.parameter_groups import parameter_groups
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.normalize import normalize

KOBEST = SHARED / "eval/kobest_mc_dev.jsonl.gz"
TEXTS = [
    "나는 학교에 갔다.\n친구가 왔다.",
    "어제는  비가 왔고 오늘은 맑다. " * 6,
    "학교에 친구가 있다.",
    "가",
]
RECORDS: list[dict[str, Any]] = [
    {"task": "copa", "context": "비가 왔다.", "question": "결과", "choices": ["젖었다.", "떴다."], "label": 0},
    {"task": "copa", "context": "나는 웃었다.", "question": "원인", "choices": ["슬펐다.", "기뻤다."], "label": 1},
    {"task": "copa", "context": "문이 열렸다.", "question": "결과", "choices": ["나갔다.", "잤다."], "label": 0},
    {"task": "boolq", "context": "물은 젖는다.", "question": "젖는가?", "choices": ["아니오", "예"], "label": 1},
    {"task": "boolq", "context": "불은 뜨겁다.", "question": "찬가?", "choices": ["아니오", "예"], "label": 0},
    {"task": "hellaswag", "context": "공을 던진다.", "question": "", "choices": ["받는다.", "운다."], "label": 0},
    {"task": "hellaswag", "context": "밥을 먹는다.", "question": "", "choices": ["잔다.", "씹는다."], "label": 1},
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder: a random model with a context of 16, a tokenizer trained on the texts above, a corpus."""
    folder = tmp_path_factory.mktemp("run")
    everything = [*TEXTS, *(f"{r['context']} {r['question']} {' '.join(r['choices'])}" for r in RECORDS)]
    tokenizer = make_tokenizer(everything * 2, 400)
    make_run(folder, tokenizer, max_seq_len=16)
    write_corpus(folder / "corpus", tokenizer, encoded(tokenizer, TEXTS), val_fraction=0.5)
    return folder


@pytest.fixture(scope="module")
def model(run) -> Decoder:
    return load_for_inference(run).model


@pytest.fixture(scope="module")
def codec(run) -> TextCodec:
    return TextCodec(run / "tokenizer")


@torch.no_grad()
def nll_after(model: GPT, before: list[int], id: int) -> float:
    return -model(torch.tensor([before]))[0, -1].double().log_softmax(-1)[id].item()


def test_bits_per_char_is_the_sum_over_single_positions(model, codec):
    """Stride 4 at a context of 16: written out with each target's own context."""
    articles = encoded_articles(codec, TEXTS)
    result = score_articles(model, articles, stride=4)
    per_article = []
    for ids, _ in articles:
        targets, total = len(ids) - 1, 0.0
        for t in range(1, len(ids)):
            # The first window ends at target 16; the i-th begins at min(4 i, targets - 16).
            start = 0 if t <= 16 else min(4 * math.ceil((t - 16) / 4), targets - 16)
            total += nll_after(model, ids[start:t], ids[t])
        per_article.append(total)
    assert len(articles[1][0]) > 40, "no article slides"
    assert result.nll == pytest.approx(per_article, rel=1e-5)
    chars = sum(len(normalize(text)[0]) for text in TEXTS)
    assert (result.articles, result.chars) == (4, chars)
    assert result.targets == sum(len(ids) - 1 for ids, _ in articles)
    assert result.bits_per_char == pytest.approx(sum(per_article) / math.log(2) / chars, rel=1e-5)
    assert result.loss == pytest.approx(sum(per_article) / result.targets, rel=1e-5)


def test_a_model_that_knows_nothing_pays_the_uniform_price(model, codec):
    blank = GPT(model.config).eval()
    with torch.no_grad():
        blank.wte.weight.zero_()
    articles = encoded_articles(codec, TEXTS)
    result = score_articles(blank, articles)
    assert result.bits_per_char == pytest.approx(
        result.targets * math.log2(model.config.vocab_size) / result.chars, rel=1e-5
    )
    with pytest.raises(UserError, match="no text"):
        score_articles(blank, [])


def item_list(tmp_path: Path) -> list[Item]:
    path = tmp_path / "items.jsonl.gz"
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    path.write_bytes(gzip.compress(lines.encode()))
    return read_items(path)


def test_prompts_are_lm_evals(tmp_path):
    items = item_list(tmp_path)
    assert items[0].prompt == "비가 왔다.  그래서"
    assert items[1].prompt == "나는 웃었다.  왜냐하면"
    assert items[3].prompt == "물은 젖는다. 질문: 젖는가? 답변: "
    assert items[5].prompt == "문장: 공을 던진다."


def test_choices_are_scored_per_character_after_the_prompt(model, codec, tmp_path):
    """Accuracy equals that of scores computed by hand. These set the labels, so every task has hits and misses."""
    chosen, wrong = [], []
    nll: dict[str, float] = {}  # of the chosen ones, by task
    for item in item_list(tmp_path):
        prompt = codec.encode(item.prompt.rstrip())
        scores = []
        for choice in item.choices:
            whole = codec.encode(f"{item.prompt} {choice}")
            assert whole[: len(prompt)] == prompt
            ids = [codec.tokenizer.cls_id, *whole][-17:]
            begin = len(ids) - len(whole) + len(prompt)
            scores.append(sum(nll_after(model, ids[:t], ids[t]) for t in range(begin, len(ids))) / len(choice))
        best = scores.index(min(scores))
        nll[item.task] = nll.get(item.task, 0.0) + scores[best] * len(item.choices[best])
        chosen.append(Item(item.task, item.prompt, item.choices, best))
        wrong.append(Item(item.task, item.prompt, item.choices, (best + 1) % len(item.choices)))
    found = multiple_choice(model, codec, chosen)
    assert all(a.accuracy == 1.0 and a.standard_error == 0.0 for a in found.values())
    for task, accuracy in found.items():
        chars = sum(len(item.choices[item.label]) for item in chosen if item.task == task)
        assert accuracy.bits_per_char == pytest.approx(nll[task] / math.log(2) / chars, rel=1e-5)
    assert all(a.accuracy == 0.0 for a in multiple_choice(model, codec, wrong).values())
    mixed = multiple_choice(model, codec, [*chosen, *wrong[:1]])["copa"]
    assert mixed.accuracy == 0.75
    assert mixed.standard_error == pytest.approx(statistics.stdev([1, 1, 1, 0]) / math.sqrt(4))
    assert mixed.chance == 0.5
    assert mixed.items == 4


def test_few_shot_examples_help_a_model_that_copies(codec, tmp_path):
    """The model is trained to repeat the ending of the previous question, so it can be right only with examples."""
    words = ["가", "나"]
    config = GPTConfig(vocab_size=codec.tokenizer.vocab_size, max_seq_len=16, n_layer=2, n_head=2, n_embd=32)
    torch.manual_seed(0)
    copier = GPT(config)
    encoded = [codec.encode(word) for word in words]
    assert all(len(ids) == 1 for ids in encoded)
    ask, between = codec.encode("학교에"), codec.encode("\n\n")
    rows = [[codec.tokenizer.cls_id, *ask, *e, *between, *ask, *e] for e in encoded]
    batch = torch.tensor(rows)
    targets = batch[:, 1:].clone()
    targets[:, :-1] = IGNORED  # the last id alone: what stood behind the question before
    optimizer = torch.optim.AdamW(parameter_groups(copier, 0.0), lr=3e-3)
    for _ in range(120):
        loss = copier(batch[:, :-1], targets) / len(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    copier.eval()
    for label in (0, 1):
        items = [Item("t", "학교에", ("가", "나"), label)] * 5
        assert multiple_choice(copier, codec, items, shots=1)["t"].accuracy == 1.0
    zero = [multiple_choice(copier, codec, [Item("t", "학교에", ("가", "나"), n)] * 2)["t"].accuracy for n in (0, 1)]
    assert sorted(zero) == [0.0, 1.0]
    with pytest.raises(UserError, match="--shots 5"):
        multiple_choice(copier, codec, items, shots=5)


def test_evaluate_run_gives_json_and_a_table(run, model, codec, tmp_path):
    item_list(tmp_path)
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXTS[0])
    (folder / "b.jsonl").write_text("\n".join(json.dumps({"passage": text}) for text in TEXTS[1:]))
    assert read_texts(folder) == TEXTS
    result = evaluate_run(
        run,
        corpus=run / "corpus",
        texts=folder,
        choices=tmp_path / "items.jsonl.gz",
        shots=[0, 1],
        device="cpu",
    )
    assert json.loads(json.dumps(result)) == result
    on_texts = result["bits_per_char"][str(folder)]
    assert on_texts["bits_per_char"] == score_articles(model, encoded_articles(codec, TEXTS)).bits_per_char
    assert result["bits_per_char"][str(run / "corpus")]["articles"] == 2
    assert result["multiple_choice"]["0"].keys() == {"copa", "boolq", "hellaswag"}
    assert result["multiple_choice"]["1"]["copa"]["items"] == 3
    tasks = result["multiple_choice"]["1"].values()
    above = [(task["accuracy"] - task["chance"]) / (1 - task["chance"]) for task in tasks]
    assert result["above_chance"]["1"]["mean"] == pytest.approx(statistics.mean(above))
    errors = [task["standard_error"] / (1 - task["chance"]) for task in tasks]
    assert result["above_chance"]["1"]["standard_error"] == pytest.approx(math.hypot(*errors) / 3)
    console = Console(record=True, width=150, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(result))
    text = console.export_text()
    assert f"{on_texts['bits_per_char']:.4f}" in text
    assert "accuracy, 1 shots" in text
    assert "accuracy above chance, 1 shots" in text


def test_uncut_text_is_compared_article_by_article(tmp_path, monkeypatch):
    """Here the analyzer cuts every character, so that the two ways differ."""
    tokenizer = make_tokenizer(TEXTS * 9, 400)
    run = make_run(tmp_path / "run", tokenizer, max_seq_len=16)
    model = load_for_inference(run).model

    def articles(cut: bool) -> list[dict[str, Any]]:
        made = list(encoded(tokenizer, TEXTS))
        for article, text in zip(made, TEXTS, strict=True):
            if cut:
                text = normalize(text)[0]
                article["ids"] = tokenizer.encode(text, Analysis(list(range(1, len(text))), [], None))
        return made

    write_corpus(tmp_path / "cut", tokenizer, articles(True), val_fraction=0.7)
    write_corpus(tmp_path / "uncut", tokenizer, articles(False), val_fraction=0.7)
    passes, token_nll = [], GPT.token_nll

    def counted(*batch: Any) -> torch.Tensor:
        passes.append(batch)
        return token_nll(*batch)

    monkeypatch.setattr(GPT, "token_nll", counted)
    expected = [evaluate_run(run, corpus=tmp_path / name)["bits_per_char"] for name in ("cut", "uncut")]
    first, second = (next(iter(one.values()))["bits_per_char"] for one in expected)
    once, result = len(passes), evaluate_run(run, corpus=tmp_path / "cut", uncut=True)
    assert len(passes) == 2 * once, "each way is scored once"
    [found] = result["uncut"].values()
    assert (found["cut_bits_per_char"], found["bits_per_char"]) == pytest.approx((first, second))
    assert found["more"] == pytest.approx(second / first - 1)
    assert abs(found["more"]) > 0.01
    cut, uncut = (score_articles(model, corpus_articles(TokenCorpus.open(tmp_path / n))).nll for n in ("cut", "uncut"))
    # The error of a quotient of sums, by leaving out one article after the other (Quenouille's jackknife).
    count, total = len(cut), (sum(uncut), sum(cut))
    without = [(total[0] - u) / (total[1] - c) for u, c in zip(uncut, cut, strict=True)]
    jackknife = math.sqrt((count - 1) / count * sum((q - statistics.mean(without)) ** 2 for q in without))
    assert found["more_standard_error"] == pytest.approx(jackknife, rel=0.5)
    page = Console(width=200, record=True)
    page.print(table(result))
    assert "more than with the analyzer (%)" in page.export_text()
    (texts := tmp_path / "texts.json").write_text(json.dumps([{"text": text} for text in TEXTS]))
    raw = evaluate_run(run, texts=texts, uncut=True)["uncut"][str(texts)]
    assert (raw["more"], raw["more_standard_error"], raw["articles"]) == (0, 0, 4), "the run's analyzer is none"
    lossy = make_run(tmp_path / "lossy", make_tokenizer(TEXTS * 9, 400, spacing="morphemes"), max_seq_len=16)
    with pytest.raises(UserError, match="--spacing original"):
        evaluate_run(lossy, texts=texts, uncut=True)


def test_texts_are_read_as_preprocessing_reads_them(tmp_path):
    text = "한 줄\u2028다음 줄\u0085끝"
    (tmp_path / "a.txt").write_bytes("가나".encode("cp949"))
    (tmp_path / "b.txt").write_bytes("\ufeff다라".encode())
    lines = [json.dumps({"text": text}, ensure_ascii=False), "", json.dumps({"text": "마"})]
    (tmp_path / "c.jsonl").write_bytes("\r\n".join(["\ufeff" + lines[0], *lines[1:]]).encode())
    assert read_texts(tmp_path) == ["가나", "다라", text, "마"]


def test_errors_name_file_and_mend(run, tmp_path):
    with pytest.raises(UserError, match="--corpus, --texts, or --choices"):
        evaluate_run(run)
    with pytest.raises(UserError, match="--uncut is for text"):
        evaluate_run(run, choices=tmp_path / "items.jsonl", uncut=True)
    with pytest.raises(UserError, match="has no texts"):
        read_texts(tmp_path)
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({"text": "가"}) + "\nnot json\n")
    with pytest.raises(UserError, match=r"bad\.jsonl line 2"):
        read_texts(bad)
    bad.write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match=r"bad\.jsonl cannot be read"):
        read_texts(bad)
    with pytest.raises(UserError, match=r"missing\.txt cannot be read"):
        read_texts(tmp_path / "missing.txt")
    items = tmp_path / "items.jsonl.gz"
    item_list(tmp_path)
    with pytest.raises(UserError, match="--shots 3"):  # before anything is loaded or scored
        evaluate_run(tmp_path / "no run", choices=items, shots=[0, 3])
    bad.write_text(json.dumps({**RECORDS[0], "label": 2}))
    with pytest.raises(UserError, match=r"bad\.jsonl line 1 is not an item"):
        read_items(bad)


@needs_shared
def test_reads_the_whole_of_kobest(run, codec, model):
    items = read_items(KOBEST)
    assert len(items) == 1700
    counts = {task: sum(item.task == task for item in items) for task in ("copa", "hellaswag", "boolq")}
    assert counts == {"copa": 500, "hellaswag": 500, "boolq": 700}
    few = [item for task in counts for item in [i for i in items if i.task == task][:20]]
    for accuracy in multiple_choice(model, codec, few).values():
        assert accuracy.items == 20
        assert 0.0 < accuracy.accuracy < 1.0

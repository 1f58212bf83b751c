"""Items and texts as users have them: KoBEST's columns, odd values, folders of mixed files."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from builders import make_run, make_tokenizer

from kogpt.checkpoint.load import load_for_inference
from kogpt.common.errors import UserError
from kogpt.eval.likelihood import row_nll
from kogpt.eval.multiple_choice import choice_rows, multiple_choice
from kogpt.eval.tasks import read_items
from kogpt.eval.texts import read_texts
from kogpt.hub.export import export_model
from kogpt.tokenizer.codec import TextCodec

GOOD: dict[str, Any] = {"task": "t", "context": "물이 끓는다.", "question": "", "choices": ["김", "얼음"], "label": 0}


def _items(folder: Path, *records: dict[str, Any]) -> list[Any]:
    path = folder / "items.jsonl"
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return read_items(path)


def test_kobest_under_its_own_column_names(tmp_path: Path) -> None:
    boolq, copa, spaced, hellaswag = _items(
        tmp_path,
        {"paragraph": "소금은 녹는다.", "question": "녹는가?", "label": 1},
        {"premise": "창이 깨졌다.", "question": "원인", "alternative_1": "공.", "alternative_2": "천.", "label": 0},
        OWN_COLUMNS["kobest_copa"][1],
        {"context": "불을 켠다.", **{f"ending_{n}": f"끝 {n}" for n in range(1, 5)}, "label": 3},
    )
    assert (boolq.task, boolq.prompt) == ("boolq", "소금은 녹는다. 질문: 녹는가? 답변: ")
    assert boolq.choices[boolq.label] == "예"
    assert (copa.prompt, copa.choices, copa.label) == ("창이 깨졌다.  왜냐하면", ("공.", "천."), 0)
    assert spaced.prompt == "비가 왔다.  그래서"
    assert (hellaswag.prompt, hellaswag.choices[hellaswag.label]) == ("문장: 불을 켠다.", "끝 4")


OWN_COLUMNS: dict[str, list[dict[str, Any]]] = {
    "kobest_boolq": [
        {"paragraph": "소금은 녹는다.", "question": "녹는가?", "label": 1},
        {"paragraph": "불은 뜨겁다.", "question": "찬가?", "label": 0},
    ],
    "kobest_copa": [
        {"premise": "창이 깨졌다.", "question": "원인", "alternative_1": "공.", "alternative_2": "천.", "label": 0},
        {"premise": "비가 왔다.", "question": "결과 ", "alternative_1": "공.", "alternative_2": "천.", "label": 1},
    ],
    "kobest_hellaswag": [
        {"context": "불을 켠다.", **{f"ending_{n}": f"끝 {n}" for n in range(1, 5)}, "label": 3},
        {
            "context": "공을 던진다.",
            "ending_1": "받는다.",
            "ending_2": "뷁",
            "ending_3": "a",
            "ending_4": "둘.",
            "label": 0,
        },
    ],
    "kobest_sentineg": [{"sentence": "빨리 왔어요", "label": 1}, {"sentence": "맛이 없어요", "label": 0}],
    "kobest_wic": [
        {"word": "배", "context_1": "[배]를 탄다.", "context_2": "[배]가 달다.", "label": 0},
        {"word": "눈", "context_1": "[눈]이 온다.", "context_2": "흰 [눈].", "label": 1},
    ],
    "kmmlu_law": [
        {"question": " 다음 중 옳은 것은? ", "A": "가", "B": "나", "C": "다", "D": "라", "answer": 3},
        {"question": "법은?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": 1},
    ],
    "haerae_general_knowledge": [
        {"query": f"### 질문: {of}는?\n### 선택지:\n(A) 가\n(B) 나\n### 정답:", "options": "[]", "answer": answer}
        for of, answer in (("수도", "(B)"), ("말머리", "(A)"))
    ],
    "click": [
        {"id": "KIIP_1", "paragraph": "", "question": "수도는?", "choices": ["가", "나", "다", "라"], "answer": "나"},
        {"id": "CSAT_1", "paragraph": "글", "question": "뜻은?", "choices": ["1", "2", "3", "4", "5"], "answer": "5"},
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, whose tokenizer writes some characters of the records as bytes."""
    folder = tmp_path_factory.mktemp("lm-eval")
    texts = [json.dumps(records, ensure_ascii=False) for records in OWN_COLUMNS.values()]
    make_run(folder / "run", make_tokenizer(texts * 2, 400), max_seq_len=256)
    export_model(folder / "run", folder / "exported", texts=texts)
    return folder / "run"


@pytest.mark.ecosystem
@pytest.mark.parametrize("name", OWN_COLUMNS)
def test_lm_eval_asks_and_scores_alike(name: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own tasks, on the exported model: prompt, choices, answer, and likelihoods of each item, and the accuracy."""
    import lm_eval.tasks
    import yaml

    for offline in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(offline, "1")
    folder = Path(lm_eval.tasks.__file__).parent
    file = {
        "kmmlu_law": "kmmlu/default/_default_kmmlu_yaml",
        "haerae_general_knowledge": "haerae/_default_haerae_yaml",
        "click": "click/click_cul/_default_click_cul_yaml",
    }.get(name, f"kobest/{name}.yaml")
    ours = _items(tmp_path, *OWN_COLUMNS[name])
    source = {"data_files": {"test": str(tmp_path / "items.jsonl")}, "cache_dir": str(tmp_path / "cache")}
    change = {"task": "theirs", "dataset_path": "json", "dataset_name": None, "dataset_kwargs": source}
    splits = {"training_split": None, "validation_split": None, "test_split": "test", "fewshot_split": None}
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump({"include": str(folder / file), **change, **splits}))
    manager = lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False)
    theirs = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": str(run.parent / "exported"), "dtype": "float32", "add_bos_token": True},
        tasks=["theirs"],
        task_manager=manager,
        device="cpu",
        batch_size=4,
        log_samples=True,
    )
    task = lm_eval.tasks.get_task_dict(["theirs"], manager)["theirs"]
    model, codec = load_for_inference(run).model, TextCodec(run / "tokenizer")
    nll = iter(row_nll(model, choice_rows(codec.encode, codec.tokenizer, ours, 256)))
    for item, doc, sample in zip(ours, task.test_docs(), theirs["samples"]["theirs"], strict=True):
        assert item.prompt == task.doc_to_text(doc)
        choices = task.doc_to_choice(doc)
        assert list(item.choices) == choices
        target = task.doc_to_target(doc)
        if isinstance(target, str):
            target = choices.index(target) if target in choices else int(target)
        assert item.label == target
        found = [-likelihood for likelihood, _ in sample["filtered_resps"]]
        assert found == pytest.approx([next(nll) for _ in choices], rel=1e-5)
    accuracy, found = multiple_choice(model, codec, ours)[ours[0].task], theirs["results"]["theirs"]
    assert found["acc,none"] == accuracy.acc
    if "acc_norm,none" in found:
        assert found["acc_norm,none"] == accuracy.accuracy
        assert found["acc_norm_stderr,none"] == pytest.approx(accuracy.standard_error)


def test_one_format_for_all_gives_the_same_items_as_own_columns(tmp_path: Path) -> None:
    own = _items(tmp_path, OWN_COLUMNS["kobest_wic"][0], *OWN_COLUMNS["click"])
    ours = _items(
        tmp_path,
        {
            "task": "wic",
            "context": "[배]를 탄다.\n[배]가 달다.",
            "question": "두 문장에서 [배]의 뜻이 같은가?",
            "choices": ["다르다", "같다"],
            "label": 0,
        },
        {"task": "click", "context": "", "question": "수도는?", "choices": ["가", "나", "다", "라"], "label": 1},
        {"task": "click", "context": "글", "question": "뜻은?", "choices": ["1", "2", "3", "4", "5"], "label": 4},
    )
    assert own == ours


def test_no_question_is_no_word(tmp_path: Path) -> None:
    missing = {name: value for name, value in GOOD.items() if name != "question"}
    items = _items(tmp_path, GOOD, {**GOOD, "question": None}, missing)
    assert {item.prompt for item in items} == {"물이 끓는다."}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"choices": ["김", ""]}, "one of its choices is empty"),
        ({"choices": ["김", " \u200b".strip("\u200b")]}, "one of its choices is empty"),
        ({"choices": [1, 2]}, "not a list of texts"),
        ({"choices": ["김"]}, "two are needed"),
        ({"choices": "김얼음"}, "not a list of texts"),
        ({"choices": None}, "not a list of texts"),
        ({"label": 2}, "its label is 2"),
        ({"label": -1}, "its label is -1"),
        ({"label": True}, "its label is True"),
        ({"label": "0"}, "its label is '0'"),
        ({"task": None}, "no task"),
        ({"context": 3}, "context or question"),
        ({"question": 3}, "context or question"),
        ({"task": "copa", "question": "왜"}, "where copa has 원인 or 결과"),
        ({"task": "wic", "question": "물"}, "one for each of its two sentences"),
        ({"task": "wic", "context": "물\n물"}, "it has no word"),
        ({"task": "click"}, "where click has 4 to 5"),
        ({"task": "click", "choices": ["가"] * 6}, "where click has 4 to 5"),
        ({"task": "kmmlu", "choices": ["가"] * 6}, "where kmmlu has 2 to 5"),
    ],
)
def test_an_odd_item_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=r"items\.jsonl line 2 is not an item") as caught:
        _items(tmp_path, GOOD, {**GOOD, **change})
    assert problem in str(caught.value)


def test_every_kind_of_text_file_is_read_and_the_rest_is_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0.json").write_text(json.dumps({"passage": "하나"}))
    (tmp_path / "1.json").write_text(json.dumps([{"text": "둘"}, {"passage": "셋"}]))
    (tmp_path / "2.txt").write_text("넷")
    (tmp_path / "3.txt.gz").write_bytes(gzip.compress("다섯".encode()))
    (tmp_path / "4.jsonl").write_text(json.dumps({"text": "여섯"}))
    (tmp_path / "5.pdf").write_bytes(b"%PDF")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    with caplog.at_level(logging.WARNING):
        assert read_texts(tmp_path) == ["하나", "둘", "셋", "넷", "다섯", "여섯"]
    assert "1 of 6 files" in caplog.text
    assert "5.pdf" in caplog.text
    (tmp_path / "6.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"6\.json is not JSON"):
        read_texts(tmp_path)
    (tmp_path / "6.json").write_text('[{"title": 1}]')
    with pytest.raises(UserError, match=r"6\.json has neither `text` nor `passage`"):
        read_texts(tmp_path)

"""Items and texts as users have them: KoBEST's columns, odd values, folders of mixed files."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from kogpt.common.errors import UserError
from kogpt.eval.tasks import read_items
from kogpt.eval.texts import read_texts

GOOD: dict[str, Any] = {"task": "t", "context": "물이 끓는다.", "question": "", "choices": ["김", "얼음"], "label": 0}


def _items(folder: Path, *records: dict[str, Any]) -> list[Any]:
    path = folder / "items.jsonl"
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return read_items(path)


def test_kobest_under_its_own_column_names(tmp_path: Path) -> None:
    boolq, copa, hellaswag = _items(
        tmp_path,
        {"paragraph": "소금은 녹는다.", "question": "녹는가?", "label": 1},
        {"premise": "창이 깨졌다.", "question": "원인", "alternative_1": "공.", "alternative_2": "천.", "label": 0},
        {"context": "불을 켠다.", **{f"ending_{n}": f"끝 {n}" for n in range(1, 5)}, "label": 3},
    )
    assert (boolq.task, boolq.prompt) == ("boolq", "소금은 녹는다. 질문: 녹는가? 답변:")
    assert boolq.choices[boolq.label] == "예"
    assert (copa.prompt, copa.choices, copa.label) == ("창이 깨졌다. 왜냐하면", ("공.", "천."), 0)
    assert (hellaswag.prompt, hellaswag.choices[hellaswag.label]) == ("불을 켠다.", "끝 4")


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

"""Every format of conversations, alone and under `--layout auto`; a mixture with articles names a file of each."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import SHARED, needs_shared
from pipelines import articles_in

from kogpt.common.errors import UserError
from preprocess.auto_layout import guess_layout
from preprocess.chat_layout import ChatLayout
from preprocess.conversations import placed_messages
from preprocess.documents import Document, Dropped
from preprocess.layouts import Layout
from preprocess.sources import find_sources

HELLO = [("user", "안녕?"), ("assistant", "안녕하세요!")]
MORE = [*HELLO, ("user", "잘 가"), ("assistant", "또 만나요.")]


def read(path: Path, layout: Layout | None = None) -> list[Any]:
    """The conversations (or reasons) that a file or folder gives under --layout auto, or another layout."""
    sources = find_sources((str(path),))
    found = articles_in(sources, layout or guess_layout(sources)[0])
    return [
        [tuple(message) for _, message in placed_messages(one.text)] if isinstance(one, Document) else one.reason
        for one in found
    ]


def turns(*names: str, speaker: str, text: str) -> list[dict[str, str]]:
    """`MORE`, as a list of turns by these names."""
    return [{speaker: names[i % 2], text: content} for i, (_, content) in enumerate(MORE)]


SNS = {"data": [{"header": {"participantsInfo": [{"participantID": "P01"}]},
                 "body": turns("P01", "P02", speaker="participantID", text="utterance")}]}  # fmt: skip
TOPICS = {"info": [{"annotations": {"text": "1 : 안녕?", "lines": [
    {"id": i, "text": f"{i} : x", "norm_text": text, "speaker": {"id": f"{i % 2 + 1}번", "age": "20대"}}
    for i, (_, text) in enumerate(MORE)]}}]}  # fmt: skip
MESSENGER = {"document": [{"metadata": {"speaker": [{"id": "1"}]},
                           "utterance": turns("1", "2", speaker="speaker_id", text="form")}]}  # fmt: skip
SESSIONS = {"sessionInfo": [{"dialog": turns("speaker1", "speaker2", speaker="speaker", text="utterance")}]}
EMOTION = {"talk": {"id": {"talk-id": "1"}, "content": {
    "HS01": "안녕?", "SS01": "안녕하세요!", "HS02": "잘 가", "SS02": "또 만나요.", "HS03": ""}}}  # fmt: skip

VALUES: list[tuple[Any, list[tuple[str, str]]]] = [
    ({"messages": turns("user", "assistant", speaker="role", text="content"), "source": "x"}, MORE),
    ({"conversations": turns("human", "gpt", speaker="from", text="value")}, MORE),
    ({"conversations": turns("user", "assistant", speaker="role", text="content")}, MORE),
    ({"system": "짧게.", "conversations": turns("human", "gpt", speaker="from", text="value")},
     [("system", "짧게."), *MORE]),
    ({"instruction": "안녕?", "input": "", "output": "안녕하세요!"}, HELLO),
    ({"instruction": "옮겨라.", "input": "hi", "output": "안녕"}, [("user", "옮겨라.\nhi"), ("assistant", "안녕")]),
    ({"instruction": "잘 가", "output": "또 만나요.", "history": [["안녕?", "안녕하세요!"]]}, MORE),
    ({"question": "안녕?", "answer": "안녕하세요!", "label": 0}, HELLO),
    ({"Q": "안녕?", "A": "안녕하세요!", "label": "0"}, HELLO),
    ({"질문": "안녕?", "답변": "안녕하세요!"}, HELLO),
    ({"prompt": "안녕?", "response": "안녕하세요!"}, HELLO),
    ({"question": "안녕?", "chosen": "안녕하세요!", "rejected": "몰라요."}, HELLO),
    ({"chosen": turns("user", "assistant", speaker="role", text="content"),
      "rejected": turns("user", "assistant", speaker="role", text="content")}, MORE),
    ({"persona": ["나"], "dialogue": [["안녕?", "안녕하세요!"], ["잘 가", "또 만나요."]]}, MORE),
    ({"dialog": [text for _, text in MORE]}, MORE),
    (SNS, MORE), (TOPICS, MORE), (MESSENGER, MORE), (SESSIONS, MORE), (EMOTION, MORE),
    ({"사람문장1": "안녕?", "시스템응답1": "안녕하세요!", "사람문장2": "", "시스템응답2": ""}, HELLO),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
@pytest.mark.parametrize("form", ["json", "list.json", "jsonl"])
def test_formats(tmp_path: Path, value: tuple[Any, list[tuple[str, str]]], form: str) -> None:
    content, expected = value
    path = tmp_path / f"a.{form}"
    path.write_text(json.dumps([content] if form == "list.json" else content, ensure_ascii=False) + "\n")
    assert read(path) == [expected]


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "qa.csv").write_text('Q,A,label\n안녕?,안녕하세요!,0\n"잘, 가",또 만나요.,1\n')
    assert read(tmp_path / "qa.csv") == [HELLO, [("user", "잘, 가"), ("assistant", "또 만나요.")]]
    pq.write_table(pa.table({"question": ["안녕?"], "answer": ["안녕하세요!"], "n": [1]}), tmp_path / "qa.parquet")
    assert read(tmp_path / "qa.parquet") == [HELLO]


def test_tables_with_a_turn_a_row(tmp_path: Path) -> None:
    rows = [text for _, text in MORE]
    kakao = "".join(f"2020-01-02 12:0{i},{'가나'[i % 2]},{text}\n" for i, text in enumerate(rows))
    (tmp_path / "kakao.csv").write_text("Date,User,Message\n" + kakao)
    assert read(tmp_path / "kakao.csv") == [MORE]
    several = "".join(
        f"{n},{'고객점원'[i % 2 * 2 :][:2]},{text}\n" for n in (1, 2) for i, text in enumerate(rows[: 2 * n])
    )
    (tmp_path / "shop.csv").write_text("dialogue_id,SPEAKER,SENTENCE\n" + several)
    assert read(tmp_path / "shop.csv") == [HELLO, MORE]
    lines = [{"speaker": "ab"[i % 2], "utterance": text} for i, text in enumerate(rows)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "a.json").write_text(json.dumps(lines))
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "a.json") == [MORE]


def test_calls_of_a_call_center(tmp_path: Path) -> None:
    """AI Hub: a turn a row, its text in one of four columns, several calls in one list; the agent speaks first."""
    columns = ("고객질문(요청)", "상담사질문(요청)", "고객답변", "상담사답변")
    calls = [[("상담사", 1, "여보세요."), ("고객", 0, "안녕?"), ("상담사", 3, "안녕하세요!"), ("고객", 2, "잘 가"),
              ("상담사", 3, "또 만나요.")], [("고객", 0, "안녕?"), ("상담사", 3, "안녕하세요!")]]  # fmt: skip
    rows = [
        {"대화셋일련번호": f"B{n}", "화자": who, "문장번호": str(i)}
        | dict.fromkeys(columns, "")
        | {columns[column]: text}
        for n, call in enumerate(calls)
        for i, (who, column, text) in enumerate(call)
    ]
    (tmp_path / "민원.json").write_text(json.dumps(rows, ensure_ascii=False))
    assert read(tmp_path) == [MORE, HELLO]


def test_what_can_be_read_as_articles_is_so_unless_chat_is_asked_for(tmp_path: Path) -> None:
    row = {
        "text": "질문: 안녕? 답: 안녕하세요!",
        "messages": turns("user", "assistant", speaker="role", text="content"),
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    assert read(tmp_path) == [[("", row["text"])]]
    assert read(tmp_path, ChatLayout()) == [MORE]
    lines = [{"speaker": "ab"[i % 2], "text": text} for i, (_, text) in enumerate(MORE)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(read(tmp_path)) == 4
    assert read(tmp_path, ChatLayout()) == [MORE]


def test_what_is_dropped_has_its_reason(tmp_path: Path) -> None:
    values = [
        {"messages": []},
        {"messages": [{"role": "user", "content": "안녕?"}]},
        {"question": "안녕?", "answer": "안녕하세요!"},
        {"question": "안녕? ", "answer": "안녕하세요!\n"},
        {"messages": [{"role": "user", "content": "날씨는?"}, {"role": "tool", "content": "x"}]},
        {"title": "글"},
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(value) + "\n" for value in values))
    expected = ["empty conversation", "no assistant turn", HELLO, "duplicate", "unknown role", "no conversation"]
    assert read(tmp_path / "a.jsonl", ChatLayout()) == expected
    (tmp_path / "b.txt").write_text("글")
    assert read(tmp_path / "b.txt", ChatLayout()) == ["no conversation"]


def test_a_number_in_an_emotional_dialogue_costs_only_the_conversation(tmp_path: Path) -> None:
    rows = [{"HS01": 3, "SS01": "안녕하세요!"}, {"HS01": "안녕?", "SS01": "안녕하세요!", "HS02": None}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(tmp_path) == ["not text", HELLO]


ARTICLE, TALK = '{"passage": "글"}', '{"question": "안녕?", "answer": "안녕하세요!"}'


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"a.json": ARTICLE, "b.json": TALK}, ("a.json has articles", "b.json has conversations")),
        ({"a.txt": "글", "b.json": TALK}, ("a.txt has articles", "b.json has conversations")),
        # beyond the sample: the scan meets it
        ({"a.jsonl": f"{ARTICLE}\n" * 9 + TALK}, ("a.jsonl has articles", "a.jsonl has conversations")),
        ({"a.jsonl": f"{TALK}\n" * 9 + ARTICLE}, ("a.jsonl has articles", "a.jsonl has conversations")),
        ({f"{i:03}.json": TALK for i in range(99)} | {"001.txt": "글"}, ("001.txt has articles", "000.json has")),
    ],
)
def test_a_mixture_is_refused(tmp_path: Path, files: dict[str, str], named: tuple[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="a corpus holds articles or conversations") as caught:
        read(tmp_path)
    assert all(name in str(caught.value) for name in named)
    preset = "plain" if any(name.endswith(".txt") for name in files) else "aihub-book"
    assert str(caught.value).endswith(f"--layout {preset} reads the articles, --layout chat the conversations")
    found = articles_in(find_sources((str(tmp_path),)), ChatLayout())
    assert {one.reason for one in found if isinstance(one, Dropped)} <= {"no conversation", "duplicate"}


@needs_shared
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("alpaca_structure.json", 60), ("sharegpt_structure.json", 15), ("aihub_sns_structure.json", 6),
        ("aihub_020_topic_dialogue_structure.json", 6), ("nikl_modu_messenger_structure.json", 6),
        ("ChatbotData_cut.csv", 399), ("kakao_csv_structure.csv", 1), ("xpersona_ko_cut.json", 15),
        ("dpo_structure.jsonl", 60), ("train-00000-of-00001_structure.parquet", 60),
    ],
)  # fmt: skip
def test_files_that_users_have(name: str, count: int) -> None:
    assert [isinstance(one, list) for one in read(SHARED / "layouts" / name)] == [True] * count

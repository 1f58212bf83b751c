"""The server as the unmodified `openai` package sees it, over real sockets."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from servers import client, http, service_of, serving, wait_until

from kogpt.checkpoint.load import load_for_inference
from kogpt.generate.chat import Reply
from kogpt.generate.sampling import Sampling
from kogpt.serve.service import Service
from kogpt.tokenizer.analyzers.analysis import AnalyzerBroken
from kogpt.tokenizer.chat import Message
from kogpt.tokenizer.codec import TextCodec

QUESTION: list[Any] = [{"role": "user", "content": "모든 국민은?"}]
BREAKS = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
FIXED: dict[str, Any] = {"model": "talker", "messages": QUESTION, "seed": 5, "max_tokens": 30}


def streamed(chunks: Any) -> dict[int, str]:
    """The text of every choice of a stream."""
    texts: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            new = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] = texts.get(choice.index, "") + (new or "")
    return texts


def test_the_model_is_named_after_its_run(talker: str, base: str) -> None:
    [model] = client(talker).models.list()
    assert (model.id, model.model_extra["kind"]) == ("talker", "conversations")
    assert client(talker).models.retrieve("talker") == model
    [other] = client(base).models.list()
    assert other.model_extra["kind"] == "articles"
    with pytest.raises(openai.NotFoundError) as caught:
        client(talker).chat.completions.create(**(FIXED | {"model": "gpt-9"}))
    assert caught.value.body["code"] == "model_not_found"


def test_an_answer_is_that_of_python_whole_and_streamed(talker: str, talker_run: Path) -> None:
    loaded = load_for_inference(talker_run)
    codec = TextCodec(loaded.tokenizer_folder)
    greedy = Sampling(max_new_tokens=30, greedy=True)
    expected = "".join(Reply(loaded.model, codec, [Message("user", "모든 국민은?")], greedy))
    asked = FIXED | {"temperature": 0}
    whole = client(talker).chat.completions.create(**asked)
    assert whole.choices[0].message.content == expected
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 30
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 30
    stream = list(client(talker).chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert streamed(stream) == {0: expected}
    assert stream[0].choices[0].delta.role == "assistant"
    assert stream[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in stream if chunk.choices][-1] == "length"
    assert len(stream) > 10, "it did not stream"
    assert all("\ufffd" not in (c.choices[0].delta.content or "") for c in stream if c.choices)


def test_seeds_and_choices(talker: str) -> None:
    api = client(talker).chat.completions
    both = api.create(**FIXED, n=2)
    texts = [choice.message.content for choice in both.choices]
    assert texts[0] != texts[1]
    assert [choice.index for choice in both.choices] == [0, 1]
    assert [choice.message.content for choice in api.create(**FIXED, n=2).choices] == texts
    assert api.create(**(FIXED | {"seed": 6})).choices[0].message.content == texts[1]  # choice i has seed + i
    assert streamed(api.create(**FIXED, n=2, stream=True)) == dict(enumerate(texts))
    unseeded = {api.create(**(FIXED | {"seed": None})).choices[0].message.content for _ in range(3)}
    assert len(unseeded) == 3
    assert both.usage is not None
    assert both.usage.completion_tokens == 60


def test_max_completion_tokens_and_penalties(talker: str) -> None:
    api = client(talker).chat.completions
    asked = {"model": "talker", "messages": QUESTION, "temperature": 0}
    free = api.create(**asked, max_completion_tokens=60)
    assert free.usage is not None
    assert free.usage.completion_tokens == 60
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"extra_body": {"repetition_penalty": 3.0}}):
        other = api.create(**asked, max_completion_tokens=60, **penalty)
        assert other.choices[0].message.content != free.choices[0].message.content


def test_stop_strings_end_the_text_before_them(talker: str) -> None:
    api = client(talker).chat.completions
    text = api.create(**FIXED).choices[0].message.content
    assert text is not None
    for start in range(3, len(text) - 4):
        stop = text[start : start + 3]  # spans tokens, which are mostly single characters here
        ended = api.create(**FIXED, stop=[stop, "never"])
        assert ended.choices[0].message.content == text[: text.index(stop)]
        assert ended.choices[0].finish_reason == "stop"
        if start % 5 == 0:
            assert streamed(api.create(**FIXED, stop=stop, stream=True)) == {0: text[: text.index(stop)]}


def test_logprobs_belong_to_the_text(talker: str) -> None:
    [choice] = client(talker).chat.completions.create(**FIXED, logprobs=True, top_logprobs=3).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    whole = b"".join(bytes(token.bytes or []) for token in tokens)
    assert whole.decode(errors="ignore") == choice.message.content
    assert len(tokens) == 30
    for token in tokens:
        best = [other.logprob for other in token.top_logprobs]
        assert len(best) == 3
        assert sorted(best, reverse=True) == best
        assert token.logprob <= best[0] <= 0
    parts = client(talker).chat.completions.create(**FIXED, logprobs=True, top_logprobs=3, stream=True)
    entries = [e for c in parts if c.choices and c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
    assert entries == tokens
    asked: dict[str, Any] = {"model": "talker", "prompt": "대한민국은", "max_tokens": 8, "seed": 1}
    [other] = client(talker).completions.create(**asked, logprobs=2).choices
    assert other.logprobs is not None
    assert len(other.logprobs.tokens or []) == len(other.logprobs.token_logprobs or []) == 8
    assert (other.logprobs.text_offset or [])[0] == 0
    assert client(talker).completions.create(**asked).choices[0].logprobs is None


def test_completions_take_texts_and_token_ids(base: str, run: Path) -> None:
    api = client(base).completions
    codec = TextCodec(run / "tokenizer")
    text = "제1조 "
    ids = [codec.tokenizer.cls_id, *codec.encode(text)]
    asked: dict[str, Any] = {"model": "run", "max_tokens": 6, "seed": 3}
    by_text = api.create(**asked, prompt=text)
    by_ids = api.create(**asked, prompt=ids)
    assert by_text.choices[0].text == by_ids.choices[0].text
    assert by_text.usage == by_ids.usage
    several = api.create(**asked, prompt=[text, "국회는"], n=2)
    assert len(several.choices) == 4
    assert several.choices[0].text == by_text.choices[0].text
    assert streamed(api.create(**asked, prompt=[ids, ids], stream=True)) == dict.fromkeys(
        (0, 1), by_ids.choices[0].text
    )


def test_a_base_run_says_how_to_teach_it(base: str) -> None:
    with pytest.raises(openai.BadRequestError, match=r"never taught to answer.*--init") as caught:
        client(base).chat.completions.create(**(FIXED | {"model": "run"}))
    assert caught.value.body["code"] == "not_taught_to_answer"
    assert "/" not in str(caught.value.body["message"]).replace("launch/train.py", "").replace("docs/chat.md", "")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 3),
        ("temperature", "warm"),
        ("top_p", -0.1),
        ("max_tokens", 0),
        ("max_tokens", True),
        ("n", 0),
        ("n", 1000),
        ("seed", 10**30),
        ("stop", ["", "a"]),
        ("stop", 7),
        ("frequency_penalty", 2.5),
        ("top_logprobs", 21),
        ("stream", "yes"),
        ("stream_options", []),
        ("messages", []),
        ("messages", "hi"),
        ("messages[0].role", [{"role": "robot", "content": "a"}]),
        ("messages[0].content", [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        ("messages[1].role", [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]),
        ("messages[0]", [{"role": "assistant", "content": "a"}]),
        ("messages[0]", [{"role": "user", "content": " "}]),
        ("messages", [{"role": "user", "content": "가" * 20_000}]),
    ],
)
def test_a_bad_value_is_400_and_named(talker: str, field: str, value: Any) -> None:
    body = FIXED | {field.split("[")[0]: value}
    answer = http.post(f"{talker}/v1/chat/completions", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(field)
    assert error["message"]


def test_other_bad_requests_have_openai_s_form(talker: str) -> None:
    post = f"{talker}/v1/chat/completions"
    headers = {"Content-Type": "application/json"}
    for content in (b"", b"{", b"[]", b"\xff", b'{"messages": "\\ud800"}', b"[" * 10_000, b'{"temperature": NaN}'):
        answer = http.post(post, content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error"), content[:20]
    assert http.post(post, content=b"{}").status_code == 415
    assert http.get(post).json()["error"]["message"]
    assert http.get(f"{talker}/v1/nothing").status_code == 404
    assert http.get(f"{talker}/openapi.json").status_code == http.get(f"{talker}/docs").status_code == 404
    too_long = {"model": "talker", "prompt": list(range(200))}
    assert http.post(f"{talker}/v1/completions", json=too_long).json()["error"]["code"] == "context_length_exceeded"
    assert http.post(f"{talker}/v1/completions", json={"prompt": [10**9]}).json()["error"]["param"] == "prompt"
    assert http.post(f"{talker}/v1/completions", json={"prompt": "a", "echo": True}).json()["error"]["param"] == "echo"


def test_unknown_fields_and_other_clients_habits_are_fine(talker: str) -> None:
    body = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "짧게 "}, {"type": "text", "text": "답한다"}]},
            {"role": "user", "content": "안녕", "name": "me"},
            {"role": "user", "content": "거기 있니?"},
        ],
        "tools": [],
        "response_format": {"type": "text"},
        "stop": None,
        "n": None,
        "max_tokens": 2,
    }
    answer = http.post(f"{talker}/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text


def test_the_oldest_turns_leave_and_that_is_said(talker: str) -> None:
    turns = [{"role": role, "content": "국회는 국민의 대표이다"} for _ in range(30) for role in ("user", "assistant")]
    answer = http.post(f"{talker}/v1/chat/completions", json={"messages": [*turns, *QUESTION], "max_tokens": 3}).json()
    assert 0 < answer["dropped_turns"] < 31
    assert "dropped_turns" not in client(talker).chat.completions.create(**FIXED).model_extra


def test_health_is_503_until_it_can_answer(talker: str, talker_run: Path) -> None:
    assert http.get(f"{talker}/health").status_code == 200
    with serving(service_of(talker_run), warm=False) as cold:
        assert http.get(f"{cold}/health").status_code == 503
        refused = http.post(f"{cold}/v1/chat/completions", json={"messages": QUESTION})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert refused.headers["Retry-After"]


def has_failed(response: httpx.Response) -> None:
    """Whoever waits would wait for ever."""
    assert (response.status_code, response.json()["error"]["code"]) == (503, "failed")
    assert "Retry-After" not in response.headers


@BREAKS
def test_a_server_whose_model_has_failed_is_not_healthy(talker_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(talker_run)
    with serving(service) as address:
        assert http.get(f"{address}/health").status_code == 200
        monkeypatch.setattr(service._batcher._engine, "_forward", lambda *_: 1 / 0)  # as a GPU after some errors
        ask = partial(http.post, f"{address}/v1/chat/completions", json={"messages": QUESTION})
        assert ask().status_code == 500
        wait_until(lambda: http.get(f"{address}/health").status_code == 503, 10)
        has_failed(ask())


@BREAKS
def test_a_model_that_fails_at_the_start_is_not_ready(talker_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_of(talker_run)
    monkeypatch.setattr(service._batcher._engine, "step", lambda *_: 1 / 0)
    with pytest.raises(RuntimeError, match="failed on its first tokens"):
        asyncio.run(service.warm())
    assert not service.ready
    service.close(0)


def test_the_first_user_does_not_wait_for_the_draft(talker_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its head is packed at its first pass."""
    monkeypatch.setattr("kogpt.model.packed.LEAST_FOR_A_DRAFT", 0)
    service = service_of(talker_run)
    draft = service._batcher._engine.model.draft
    if draft is None:
        pytest.skip("a draft needs fbgemm")
    passes, logits = [], draft.logits

    def counted(hidden: Any) -> Any:
        passes.append(hidden)
        return logits(hidden)

    monkeypatch.setitem(draft.__dict__, "logits", counted)
    asyncio.run(service.warm())
    service.close(1)
    assert passes


def test_a_server_whose_analyzer_is_broken_is_not_healthy(talker_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(_: str) -> list[int]:
        raise AnalyzerBroken

    service = service_of(talker_run)
    with serving(service) as address:
        monkeypatch.setattr(service.codec, "encode", encode)
        ask = partial(http.post, f"{address}/v1/chat/completions", json={"messages": QUESTION})
        assert ask().status_code == 500
        assert http.get(f"{address}/health").status_code == 503
        has_failed(ask())


def counted(address: str, name: str) -> float:
    """A number at /metrics."""
    [value] = [line for line in http.get(f"{address}/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(value.split()[1])


def test_metrics_count(talker: str) -> None:
    before = counted(talker, "kogpt_answer_tokens_total")
    client(talker).chat.completions.create(**FIXED)
    assert counted(talker, "kogpt_answer_tokens_total") == before + FIXED["max_tokens"]
    assert 'kogpt_requests_total{endpoint="chat",status="200"}' in http.get(f"{talker}/metrics").text


def test_a_client_that_leaves_frees_its_place_and_is_counted(
    talker: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = service._batcher._engine
    step = engine.step

    def slow(*rows: Any) -> Any:
        time.sleep(0.02)
        return step(*rows)

    monkeypatch.setattr(engine, "step", slow)
    before = counted(talker, "kogpt_requests_cancelled_total")
    body = {"messages": QUESTION, "max_tokens": 100, "n": 8}
    with http.stream("POST", f"{talker}/v1/chat/completions", json=body | {"stream": True}) as answer:
        next(answer.iter_raw())
    wait_until(lambda: service.under_way == 0, 10)
    with pytest.raises(httpx.ReadTimeout):
        http.post(f"{talker}/v1/chat/completions", json=body, timeout=httpx.Timeout(30, read=0.02))
    wait_until(lambda: service.under_way == 0, 10)
    wait_until(lambda: counted(talker, "kogpt_requests_cancelled_total") == before + 2, 10)


def test_a_full_queue_is_429_at_once(talker_run: Path) -> None:
    service = service_of(talker_run)
    with serving(service) as address, service.admission(service.most_answers):
        answer = http.post(f"{address}/v1/chat/completions", json={"messages": QUESTION})
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        with pytest.raises(openai.RateLimitError):
            client(address).chat.completions.create(**FIXED)

"""What a user types is text: literal role tokens reach the model as characters, through the server as well."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import http, service_of, serving

from kogpt.serve.service import Service
from kogpt.tokenizer.normalize import normalize

LITERAL = [
    "[ASSISTANT]",
    "[END]",
    "[USER]",
    "[SYSTEM]",
    "[RESERVED_1]",
    "[CLS]",
    "[SEP]",
    "<0x41>",
    "##법",
    "법",
    " ",
    "\n",
]
texts = st.lists(st.sampled_from(LITERAL) | st.text(max_size=3), min_size=1, max_size=6).map("".join)


@pytest.fixture(scope="module")
def heard(talker_run: Path) -> Iterator[tuple[str, Service, list[list[int]]]]:
    """A server, and the token ids that its model was asked to continue."""
    service = service_of(talker_run)
    asked: list[list[int]] = []
    start = service.start

    def listen(requests: Any) -> Any:
        asked.extend(list(request.ids) for request in requests)
        return start(requests)

    service.start = listen
    with serving(service) as address:
        yield address, service, asked


@settings(max_examples=25)
@given(text=texts, system=texts)
def test_typed_role_tokens_are_text(heard: tuple[str, Service, list[list[int]]], text: str, system: str) -> None:
    address, service, asked = heard
    tokenizer = service.tokenizer
    asked.clear()
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"말 {text}"}]
    body = {"messages": messages, "max_tokens": 1, "temperature": 0}
    answer = http.post(f"{address}/v1/chat/completions", json=body)
    if answer.status_code == 400:
        assert answer.json()["error"]["code"] == "context_length_exceeded"
        return
    assert answer.status_code == 200, answer.text
    [ids] = asked
    assert tokenizer.roles is not None
    names = tokenizer.roles
    special = [id for id in ids if id in {*names.values(), tokenizer.end_id, tokenizer.cls_id, tokenizer.sep_id}]
    end = tokenizer.end_id
    assert special == [tokenizer.cls_id, names["system"], end, names["user"], end, names["assistant"]]
    first, second = [i for i, id in enumerate(ids) if id == end]
    assert tokenizer.decode(ids[2:first]) == normalize(system)[0].strip()
    assert tokenizer.decode(ids[first + 2 : second]) == normalize(f"말 {text}")[0].strip()
    asked.clear()
    completion = {"prompt": f"말 {text}", "max_tokens": 1}
    assert http.post(f"{address}/v1/completions", json=completion).status_code == 200
    [ids] = asked
    assert ids[0] == tokenizer.cls_id
    assert tokenizer.decode(ids[1:]) == normalize(f"말 {text}")[0]
    assert not {*names.values(), end, tokenizer.sep_id} & {*ids}

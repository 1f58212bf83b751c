"""What a body becomes, without a server."""

import pytest
from pydantic import ValidationError

from kogpt.serve.requests import ChatRequest, CompletionRequest


def test_neighbours_of_a_role_are_joined() -> None:
    said = [("system", "a"), ("developer", "b"), ("user", "c"), ("user", "d"), ("assistant", "e"), ("user", "f")]
    asked = ChatRequest.model_validate({"messages": [{"role": role, "content": text} for role, text in said]})
    assert asked.conversation() == [("system", "a\nb"), ("user", "c\nd"), ("assistant", "e"), ("user", "f")]


@pytest.mark.parametrize("body", ['{"messages": [%s]}', '{"prompt": [%s]}', '{"prompt": [[%s]]}', '{"stop": [%s]}'])
def test_the_first_bad_item_of_a_list_is_enough(body: str) -> None:
    kind = ChatRequest if "messages" in body else CompletionRequest
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(body % ", ".join(["null"] * 1000))
    assert caught.value.error_count() <= 3

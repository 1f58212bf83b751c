"""The requests of OpenAI's API. In: a JSON body. Out: a checked `ChatRequest` or `CompletionRequest`.

Unknown fields are ignored, `null` is the default. Everything else that is wrong is a `Refused` with status 400 that
names the field. Beyond OpenAI's fields there are `top_k` and `repetition_penalty`, as in `kogpt generate`.
"""

import secrets
from itertools import groupby, pairwise
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kogpt.generate.sampling import COLDEST, SEEDS, Sampling
from kogpt.serve.errors import Refused
from kogpt.tokenizer.chat import ROLES, Message

MOST_CHOICES = 64
"""Of one request: prompts x n."""
_ROLES = {role: role for role in ROLES} | {"developer": "system"}
_WHOLE = 10**9


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _prompts(value: Any) -> Any:
    """One or several prompts, each a text or token ids -> a list of them."""
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    return value


def _text(content: Any) -> Any:
    """The content of a message: a text, or OpenAI's list of parts."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError('a part is {"type": "text", "text": "..."}; this model reads nothing but text')
    return "".join(part["text"] for part in content)


def _role(role: Any) -> Any:
    if isinstance(role, str) and role not in _ROLES:
        raise ValueError(f"a role is one of {', '.join(_ROLES)}")
    return _ROLES.get(role, role) if isinstance(role, str) else role


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class StreamOptions(_Body):
    """`stream_options`."""

    include_usage: bool | None = None


class Settings(_Body):
    """The fields that both kinds of request have."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_WHOLE)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=_WHOLE)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.01, le=100)] | None = None
    seed: Annotated[int, Field(ge=-SEEDS // 2, le=SEEDS // 2)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=1000)]],
            Field(max_length=16, fail_fast=True),
            BeforeValidator(_listed),
        ]
        | None
    ) = None

    @property
    def usage_at_end(self) -> bool:
        """Whether a stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def sampling(self, max_new_tokens: int) -> Sampling:
        """The settings of generation: a random seed if none is given, and the rest by default as `kogpt generate`."""
        given = {
            name: value
            for name in ("temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "repetition_penalty")
            if (value := getattr(self, name)) is not None
        }
        seed = secrets.randbelow(2**48) if self.seed is None else self.seed
        greedy = given.get("temperature", 1) < COLDEST or given.get("top_p", 1) == 0
        if greedy:
            for unused in ("temperature", "top_p"):
                given.pop(unused, None)
        return Sampling(max_new_tokens=max_new_tokens, greedy=greedy, seed=seed, **given)


class ChatMessage(_Body):
    """A message of a conversation."""

    role: Annotated[str, BeforeValidator(_role)]
    content: Annotated[str, BeforeValidator(_text)] = ""


class ChatRequest(Settings):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_WHOLE)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    @property
    def most_tokens(self) -> int | None:
        """The largest number of tokens that is asked for."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """The number of most probable tokens to name beside each token; None: no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def conversation(self) -> list[Message]:
        """The messages in the order that the model knows: a system message first, then user and assistant in turn.

        Neighbours of the same role are joined by a line feed. The last message is the user's.
        """
        for i, (before, message) in enumerate(pairwise(self.messages), 1):
            if message.role == "system" and before.role != "system":
                raise Refused(400, "A system message comes before all others.", param=f"messages[{i}].role")
        joined = [
            Message(role, "\n".join(message.content for message in neighbours))
            for role, neighbours in groupby(self.messages, key=lambda message: message.role)
        ]
        if joined[-1].role != "user" or not joined[-1].content.strip():
            last = len(self.messages) - 1
            raise Refused(400, "The last message has to be a user's, with some text.", param=f"messages[{last}]")
        return joined


class CompletionRequest(Settings):
    """The body of POST /v1/completions."""

    prompt: Annotated[
        list[str | Annotated[list[Annotated[int, Field(ge=0)]], Field(fail_fast=True)]],
        Field(min_length=1, max_length=64, fail_fast=True),
        BeforeValidator(_prompts),
    ]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.echo:
            raise Refused(
                400, "echo is not possible here; the text of the answer never repeats the prompt.", param="echo"
            )
        if len(self.prompt) * (self.n or 1) > MOST_CHOICES:
            raise Refused(400, f"The number of prompts times n is more than {MOST_CHOICES}.", param="n")
        return self


Asked = TypeVar("Asked", bound=Settings)


def parse(body: bytes, kind: type[Asked]) -> Asked:
    """The request in a body. Raises `Refused` that names the first field that is wrong."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = _field(found["loc"])
        said = found["msg"].removeprefix("Value error, ")
        raise Refused(400, f"{field or 'The body'}: {said[:1].lower()}{said[1:]}.", param=field or None) from None


def _field(place: tuple[int | str, ...]) -> str:
    """pydantic's place of an error as a JSON path, without the names of types."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part not in ("str", "int"):
            path += f".{part}" if path else part
    return path

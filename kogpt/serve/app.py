"""The web application: OpenAI's API, health, metrics, and the page. In: a `Service`. Out: an ASGI app.

    GET  /health                 200 {"status": "ok"} once it can answer; 503 before, and when model or analyzer broke
    GET  /metrics                Prometheus
    GET  /v1/models              {"data": [{"id", "kind": "conversations" or "articles", "context", ...}]}
    POST /v1/completions         continue a text or token ids
    POST /v1/chat/completions    answer a conversation; 400 for a model that was never taught to, with the way to do it
    GET  /                       the page (static/)

Errors have OpenAI's form (errors.py). Nothing else of the framework answers: no documentation pages, and no CORS unless
it is asked for.
"""

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware

from kogpt.generate import batching
from kogpt.generate.chat import how_to_teach, prompt_limit, stop_ids
from kogpt.serve.answer import Answer
from kogpt.serve.errors import Refused, add_handlers
from kogpt.serve.forms import ChatForm, CompletionForm, Form
from kogpt.serve.gate import Gate
from kogpt.serve.reply import EventStream, Reply, whole
from kogpt.serve.requests import ChatRequest, CompletionRequest, Settings, parse
from kogpt.serve.service import Service

STATIC = Path(__file__).with_name("static")
DEFAULT_COMPLETION = 16
"""Tokens of a completion without `max_tokens`: OpenAI's default."""
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a new version's files must not mix with old ones
}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Python would ask the registry of Windows, where scripts are often plain text, which no browser runs."""


class _Page(StaticFiles):
    """The page's files. Its rules let it load and ask nothing but this server, and run no script from a text."""

    def file_response(self, full_path: Any, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(full_path, *args, **kwargs)
        response.headers.update(_PAGE_HEADERS)
        response.headers["Content-Type"] = f"{_TYPES[Path(full_path).suffix]}; charset=utf-8"
        return response


def create_app(
    service: Service,
    *,
    hosts: Collection[str] | None = None,
    key: str | None = None,
    origins: Sequence[str] = (),
    lifespan: Any = None,
) -> FastAPI:
    """The app. `hosts`, `key`: see gate.py. `origins`: web pages of other origins that may ask (CORS)."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=lifespan)
    add_handlers(app)
    app.add_middleware(Gate, hosts=hosts, key=key)
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    created = int(time.time())

    @app.get("/health")
    async def health() -> JSONResponse:
        if service.ready:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "failed" if service.failed else "starting"}, 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def model() -> dict[str, Any]:
        about = {"id": service.name, "object": "model", "created": created, "owned_by": "kogpt"}
        kind = "conversations" if service.answers_chat else "articles"
        return about | {"kind": kind, "context": service.context}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model()]}

    @app.get("/v1/models/{name}")
    async def one_model(name: str) -> dict[str, Any]:
        _check_model(service, name)
        return model()

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        return await _counted(service, "chat", lambda: _chat(service, request))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        return await _counted(service, "completions", lambda: _complete(service, request))

    app.mount("/", _Page(directory=STATIC, html=True, check_dir=False))
    return app


def _check_model(service: Service, name: str | None) -> None:
    if name is not None and name != service.name:
        message = f"There is no model {name[:100]!r} here; the model is {service.name!r}."
        raise Refused(404, message, param="model", code="model_not_found")


def _check_ready(service: Service) -> None:
    if service.failed:
        raise Refused(503, "The model or its analyzer has failed; restart the server.", code="failed")
    if not service.ready:
        message = "The server is not ready; try again in a few seconds."
        raise Refused(503, message, code="not_ready", headers={"Retry-After": "2"})


async def _counted(service: Service, endpoint: str, answer: Callable[[], Awaitable[Response]]) -> Response:
    status = 500
    try:
        response = await answer()
        status = response.status_code
        return response
    except Refused as refused:
        status = refused.status
        raise
    finally:
        service.metrics.requests.labels(endpoint, str(status)).inc()


async def _chat(service: Service, request: Request) -> Response:
    began = time.perf_counter()
    asked = parse(await request.body(), ChatRequest)
    _check_model(service, asked.model)
    _check_ready(service)
    if not service.answers_chat:
        raise Refused(400, how_to_teach(service.name), param="messages", code="not_taught_to_answer")
    messages = asked.conversation()
    with ExitStack() as held:
        held.enter_context(service.admission(asked.n or 1))
        found = await service.chat_prompt(messages, prompt_limit(service.context, asked.most_tokens))
        answers = [_answer(service, asked, asked.alternatives) for _ in range(asked.n or 1)]
        more = {"dropped_turns": found.dropped_turns} if found.dropped_turns else None
        form = ChatForm(service.name, asked.alternatives, more=more)
        stops = stop_ids(service.tokenizer)
        most = min(asked.most_tokens or service.context, service.context - len(found.ids))
        requests = _requests(asked, [found.ids], [most], stops, asked.alternatives)
        return await _respond(service, request, asked, requests, answers, form, held, began)


async def _complete(service: Service, request: Request) -> Response:
    began = time.perf_counter()
    asked = parse(await request.body(), CompletionRequest)
    _check_model(service, asked.model)
    _check_ready(service)
    with ExitStack() as held:
        held.enter_context(service.admission(len(asked.prompt) * (asked.n or 1)))
        prompts = [await _prompt_ids(service, prompt) for prompt in asked.prompt]
        answers = [_answer(service, asked, asked.logprobs, ids) for ids in prompts for _ in range(asked.n or 1)]
        form = CompletionForm(service.name, asked.logprobs)
        most = [min(asked.max_tokens or DEFAULT_COMPLETION, service.context - len(ids)) for ids in prompts]
        requests = _requests(asked, prompts, most, [service.tokenizer.sep_id], asked.logprobs)
        return await _respond(service, request, asked, requests, answers, form, held, began)


async def _prompt_ids(service: Service, prompt: str | list[int]) -> list[int]:
    """A text as an article that begins with it; token ids as they are."""
    if isinstance(prompt, str):
        ids = [service.tokenizer.cls_id, *await service.encode(prompt, "prompt")]
    else:
        ids = prompt
        if not ids or max(ids) >= service.tokenizer.vocab_size:
            message = (
                f"prompt must hold at least one token id, each between 0 and {service.tokenizer.vocab_size - 1:,}."
            )
            raise Refused(400, message, param="prompt")
    if len(ids) >= service.context:
        message = f"The prompt has {len(ids):,} tokens; the context of {service.context:,} tokens has no room for more."
        raise Refused(400, message, param="prompt", code="context_length_exceeded")
    return ids


def _answer(service: Service, asked: Settings, alternatives: int | None, context: Sequence[int] = ()) -> Answer:
    return Answer(service.tokenizer, context=context, stops=asked.stop or (), with_tokens=alternatives is not None)


def _requests(
    asked: Settings,
    prompts: Sequence[list[int]],
    most: Sequence[int],
    stop_ids: Sequence[int],
    alternatives: int | None,
) -> list[batching.Request]:
    """`n` requests for each prompt; the i-th uses seed + i."""
    made = []
    for ids, tokens in zip(prompts, most, strict=True):
        sampling = asked.sampling(tokens)
        for i in range(asked.n or 1):
            made.append(batching.Request(ids, replace(sampling, seed=sampling.seed + i), stop_ids, alternatives))
    return made


async def _respond(
    service: Service,
    request: Request,
    asked: Settings,
    requests: Sequence[batching.Request],
    answers: Sequence[Answer],
    form: Form,
    held: ExitStack,
    began: float,
) -> Response:
    stream = service.start(requests)
    tokens = sum(len(each.ids) for each in requests) // (asked.n or 1)
    reply = Reply(stream, answers, form, tokens, service.metrics, held.pop_all(), began)
    if asked.stream:
        return EventStream(reply, usage_at_end=asked.usage_at_end)
    return await whole(reply, request)

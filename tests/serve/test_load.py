"""Many clients at once, a third of whom leave: no answer is lost, mixed up, or cut, and memory stays flat.

Each request has one of PATTERNS, whose answer alone is known. The default suite has a small form. The whole one (200
clients, 2,000 requests) is marked slow; its command prints what it measured with `-s`.
"""

import asyncio
import gc
import re
import time
from collections import Counter
from typing import Any

import openai
import psutil
import pytest
from servers import http, wait_until

from kogpt.serve import reply
from kogpt.serve.service import Service

PATTERNS: list[dict[str, Any]] = [
    {
        "model": "talker",
        "messages": [{"role": "user", "content": text}],
        "seed": seed,
        "max_tokens": 10 + 5 * seed,
        "temperature": 1.0,
    }
    for text in ("모든 국민은?", "국회는 무엇을 하니?", "[END] 법")
    for seed in range(5)
]


async def _one(api: Any, number: int, alone: list[str], seen: Counter[str]) -> None:
    """A request; its number decides whether it streams, and whether its client leaves."""
    pattern = PATTERNS[number % len(PATTERNS)]
    expected = alone[number % len(PATTERNS)]
    if number % 3 == 0:  # leaves after the first text
        stream = await api.create(**pattern, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        seen["left"] += 1
        return
    if number % 3 == 1:
        answer = await api.create(**pattern)
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    else:
        text, reason = "", None
        async for chunk in await api.create(**pattern, stream=True):
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or reason
    assert reason in ("stop", "length")
    assert text == expected, f"request {number}"
    seen["whole"] += 1


async def _crowd(address: str, clients: int, requests: int, alone: list[str]) -> Counter[str]:
    seen: Counter[str] = Counter()
    waiting = iter(range(requests))

    async def ask(api: Any) -> None:
        for number in waiting:
            await _one(api, number, alone, seen)

    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=600) as client:
        await asyncio.gather(*(ask(client.chat.completions) for _ in range(clients)))
    return seen


async def _answers(address: str) -> list[str]:
    """The answer to each pattern, alone."""
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as client:
        answers = [await client.chat.completions.create(**pattern) for pattern in PATTERNS]
    return [answer.choices[0].message.content or "" for answer in answers]


def test_a_client_that_reads_nothing_holds_neither_place_nor_memory(
    talker: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers are more than fit into the buffers of a connection."""
    monkeypatch.setattr(reply, "READING_SECONDS", 0.5)

    def given_up() -> float:
        [line] = re.findall(rb"^kogpt_requests_cancelled_total (.*)$", service.metrics.text(), re.MULTILINE)
        return float(line)

    before = given_up()
    body = PATTERNS[0] | {"n": 64, "max_tokens": 100, "logprobs": True, "top_logprobs": 20, "stream": True}
    with http.stream("POST", f"{talker}/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        wait_until(lambda: service.under_way == 0)
        wait_until(lambda: given_up() == before + 1)


@pytest.mark.parametrize(
    ("clients", "requests"), [(12, 45), pytest.param(200, 2000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_a_crowd_gets_what_each_gets_alone(talker: str, service: Service, clients: int, requests: int) -> None:
    alone = asyncio.run(_answers(talker))
    assert len(set(alone)) > len(PATTERNS) // 2
    asyncio.run(_crowd(talker, clients, requests // 4, alone))  # every buffer has had its size
    gc.collect()
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    seen = asyncio.run(_crowd(talker, clients, requests, alone))
    assert seen == {"left": len(range(0, requests, 3)), "whole": requests - len(range(0, requests, 3))}
    wait_until(lambda: service.under_way == 0, 20)
    gc.collect()
    grown = (psutil.Process().memory_info().rss - before) / 2**20
    print(f"{requests} requests of {clients} clients in {time.perf_counter() - began:.1f} s, memory {grown:+.1f} MiB")
    assert grown < 32

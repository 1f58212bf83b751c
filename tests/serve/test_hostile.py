"""Messages that are made to be slow, with Kkma: each gets its answer or a clear error, and others are answered.

How long they delay others is measured by bench/serve.py.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from builders import constitution, make_chat_run
from servers import service_of, serving

from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.wordpiece import train_tokenizer

HOSTILE = {
    "jamo": "ㄷ" * 4000,
    "굿": "굿" * 4000,
    "emoji": "👨‍👩‍👧 😀" * 500,
    "no space": "".join(chr(0xAC00 + i * 37 % 11172) for i in range(4000)),
    "brackets": "[" * 4000,
    "too long": "가" * 20_000,
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server whose run was made with Kkma."""
    kkma = load_analyzer("kkma")
    texts = [normalize(text)[0] for text in constitution()[:3]]
    tokenizer = train_tokenizer([(t, kkma.analyze(t)) for t in texts], 400, spacing="original", analyzer=kkma.identity)
    run: Path = make_chat_run(tmp_path_factory.mktemp("hostile") / "talker", tokenizer, max_seq_len=512)
    with serving(service_of(run)) as found:
        yield found


def test_every_hostile_message_gets_an_answer_or_a_clear_error(address: str) -> None:
    async def ask(api: openai.AsyncOpenAI, text: str) -> str:
        try:
            answer = await api.chat.completions.create(
                model="talker", messages=[{"role": "user", "content": text}], max_tokens=3, temperature=0
            )
        except openai.APIStatusError as error:
            return str(error.code)
        return str(answer.choices[0].finish_reason)

    async def all_at_once() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=120) as api:
            others = [ask(api, "모든 국민은?") for _ in range(4)]
            return await asyncio.gather(*(ask(api, text) for text in HOSTILE.values()), *others)

    results = asyncio.run(all_at_once())
    assert set(results) <= {"length", "stop", "context_length_exceeded", "analysis_too_slow", "queue_full"}
    assert set(results[-4:]) <= {"length", "stop"}

"""Prompts that are made to be slow: one twice as long takes at most 2.5 times the CPU time, and gets its text."""

import random
import time
from pathlib import Path

import pytest
from doubling import more_than_linear

import kogpt

HOSTILE = {
    "spaces": " ",
    "jamo": "ㄷ",
    "brackets": "[",
    "control tokens": "[SEP]",
    "emoji": "👨\u200d",
    "short lines": "가\n",
    "sentences": "모든 국민은 법 앞에 평등하다. ",
}


@pytest.mark.parametrize("name", [*HOSTILE, "one eojeol"])
def test_a_prompt_twice_as_long_takes_twice_the_time(name: str, run: Path) -> None:
    model = kogpt.load(run)

    def seconds(length: int) -> float:
        syllables = [chr(code) for code in range(0xAC00, 0xD7A4, 37)]
        piece = HOSTILE.get(name) or "".join(random.Random(length).choices(syllables, k=length))
        prompt = "가" + piece * (length // len(piece))
        start = time.process_time()
        assert isinstance(model.generate(prompt, max_new_tokens=2, greedy=True), str)
        return time.process_time() - start

    seconds(1000)
    assert not more_than_linear(lambda length: {name: seconds(length)}, 60_000)

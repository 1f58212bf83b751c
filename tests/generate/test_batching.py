"""Continuous batching: requests in company get what they get alone, and none is lost, mixed up, or held up."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kogpt.checkpoint.load import load_for_inference
from kogpt.generate.batching import Batcher, Closed, Done, QueueFull, Request, Ticket
from kogpt.generate.decode import generate
from kogpt.generate.engine import CHUNK, MOST_GUESSES, Engine, Step
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.model.gpt2 import GPT, GPTConfig
from kogpt.model.packed import packed

LIMIT = 60.0
"""Seconds that nothing here takes."""


class Answer:
    """Collects what a request gets. `hook` is called with each token, in the batcher's thread."""

    def __init__(self, batcher: Batcher, request: Request, hook: Callable[["Answer"], None] | None = None) -> None:
        self.ids: list[int] = []
        self.steps: list[Step] = []
        self.reason: str | None = None
        self.hook = hook
        self._ended = threading.Event()
        self.ticket: Ticket = batcher.submit(request, self._on_step)

    def _on_step(self, what: Step | Done) -> None:
        assert self.reason is None, "something came after the end"
        if isinstance(what, Done):
            self.reason = what.reason
            self._ended.set()
            return
        self.steps.append(what)
        self.ids.append(what.id)
        if self.hook:
            self.hook(self)

    def wait(self) -> "Answer":
        assert self._ended.wait(LIMIT), "no end came"
        return self


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


@pytest.fixture(scope="module")
def model(trained: Path) -> Decoder:
    return load_for_inference(trained).model


@pytest.fixture
def batcher(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Batcher]:
    monkeypatch.setattr("kogpt.model.packed.LEAST_FOR_A_DRAFT", 0)  # it guesses, as larger models do
    made = Batcher(model, places=5, queue=200)
    yield made
    made.close(0)


def greedy(count: int, **more: Any) -> Sampling:
    return Sampling(max_new_tokens=count, greedy=True, **more)


def requests(model: Decoder, count: int, seed: int) -> list[Request]:
    """Prompts of all lengths, also beyond the context, with various settings; some go on beyond the context."""
    chance = random.Random(seed)
    limit = model.config.max_seq_len
    made = []
    for number in range(count):
        ids = [chance.randrange(model.config.vocab_size) for _ in range(chance.choice([1, 2, 9, limit - 1, 3 * limit]))]
        tokens = chance.choice([1, 7, 20, limit + 20])
        settings = [
            greedy(tokens),
            greedy(tokens, repetition_penalty=1.3),
            Sampling(tokens, temperature=1.3, top_k=chance.choice([0, 5]), seed=number),
            Sampling(tokens, top_p=0.9, frequency_penalty=0.5, presence_penalty=-0.4, seed=number),
        ]
        made.append(Request(ids, chance.choice(settings), logprobs=chance.choice([None, 0, 3])))
    return made


def test_requests_in_company_get_what_they_get_alone(model: Decoder, batcher: Batcher) -> None:
    """To the bit: tokens and log-probabilities, while others come, go, and are cancelled at random."""
    wanted = requests(model, 60, seed=1)
    alone = []
    for request in wanted:
        alone.append(Answer(batcher, request).wait().steps)
        [rows] = zip(*generate(packed(model), [request.ids], request.sampling), strict=True)
        assert list(rows) == [step.id for step in alone[-1]]
    chance = random.Random(2)
    answers = []
    for request in wanted:
        stop_at = chance.choice([None, None, 0, 3])

        def cancel(answer: Answer, stop_at: int | None = stop_at) -> None:
            if len(answer.ids) == stop_at:
                answer.ticket.cancel()

        answers.append((Answer(batcher, request, cancel), stop_at))
        if stop_at == 0:
            answers[-1][0].ticket.cancel()
        time.sleep(chance.choice([0, 0, 0.003]))
    for (answer, stop_at), steps in zip(answers, alone, strict=True):
        answer.wait()
        if stop_at is None or stop_at >= len(steps):
            assert answer.reason == "length" or stop_at == len(steps)
            assert answer.steps == steps
        else:
            assert answer.reason == "cancelled"
            assert answer.steps == steps[: len(answer.steps)]
            assert len(answer.steps) <= stop_at or stop_at == 0
    wait_until(lambda: batcher.running == batcher.waiting == 0)


def test_log_probabilities_are_the_model_s(model: Decoder, batcher: Batcher) -> None:
    answer = Answer(batcher, Request([2, 5], Sampling(4, temperature=3.0, presence_penalty=2.0), logprobs=5)).wait()
    ids = [2, 5]
    for step in answer.steps:
        with torch.no_grad():
            logprobs = model(torch.tensor([ids]))[0, -1].log_softmax(-1)
        assert step.logprob == pytest.approx(logprobs[step.id].item(), abs=1e-4)
        best = logprobs.topk(5)
        assert [value for _, value in step.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        ids.append(step.id)


def test_a_stop_token_ends_and_is_not_given(batcher: Batcher) -> None:
    free = Answer(batcher, Request([2], greedy(8, repetition_penalty=5.0))).wait()
    assert (free.reason, len(set(free.ids))) == ("length", 8)
    stopped = Answer(batcher, Request([2], greedy(8, repetition_penalty=5.0), stop_ids=[free.ids[3]])).wait()
    assert (stopped.reason, stopped.ids) == ("stop", free.ids[:3])


def test_a_full_queue_refuses_at_once_and_a_cancelled_request_frees_its_place_within_a_step(model: Decoder) -> None:
    batcher = Batcher(model, places=2, queue=3)
    try:
        endless = Request([2], greedy(10**6))
        answers = [Answer(batcher, endless) for _ in range(5)]
        with pytest.raises(QueueFull, match=r"running and . are waiting"):
            batcher.submit(endless, print)
        wait_until(lambda: bool(answers[1].ids))
        answers[4].ticket.cancel()  # it waits
        answers[4].wait()
        before = len(answers[1].ids)
        answers[0].ticket.cancel()
        wait_until(lambda: bool(answers[2].ids))
        assert not answers[4].ids
        assert answers[0].reason == "cancelled"
        # the others went on: the place was not free only at the end of something
        assert len(answers[1].ids) > before
        assert not answers[3].ids
        Answer(batcher, endless)
    finally:
        batcher.close(0)
    assert {answer.wait().reason for answer in answers} == {"cancelled"}


def test_a_cancelled_request_gets_no_further_token(model: Decoder, batcher: Batcher) -> None:
    answer = Answer(batcher, Request([2], greedy(10**6)), hook=lambda answer: answer.ticket.cancel()).wait()
    assert (answer.reason, len(answer.ids)) == ("cancelled", 1)


def test_closing_lets_answers_end_and_refuses_new_ones(model: Decoder) -> None:
    batcher = Batcher(model, places=2, queue=5)
    answers = [Answer(batcher, Request([2], greedy(30))) for _ in range(5)]
    batcher.close(LIMIT)
    assert [(answer.wait().reason, len(answer.ids)) for answer in answers] == [("length", 30)] * 5
    with pytest.raises(Closed):
        batcher.submit(Request([2], greedy(1)), print)
    assert not batcher.alive
    bounded = Batcher(model, places=1, queue=5)
    answers = [Answer(bounded, Request([2], greedy(10**9))) for _ in range(3)]
    wait_until(lambda: len(answers[0].ids) > 3)
    start = time.monotonic()
    bounded.close(0.2)
    assert time.monotonic() - start < LIMIT / 2
    assert [answer.wait().reason for answer in answers] == ["cancelled"] * 3


def test_prompts_that_the_model_cannot_take_are_refused(model: Decoder, batcher: Batcher) -> None:
    size = model.config.vocab_size
    for ids in ([], [2, size], [-1, 2]):
        with pytest.raises(ValueError, match=r"without tokens|not in the vocabulary"):
            batcher.submit(Request(ids, greedy(1)), print)


def test_an_error_ends_only_the_request_that_causes_it(
    model: Decoder, batcher: Batcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    request = Request([2, 5], Sampling(40, seed=3))
    alone = Answer(batcher, request).wait().ids

    def bad(answer: Answer) -> None:
        if len(answer.ids) == 3:
            raise RuntimeError("the callback breaks")

    broken = Answer(batcher, request, hook=bad)
    others = [Answer(batcher, request) for _ in range(2)]
    assert broken.wait().reason == "error"
    assert "the callback breaks" in caplog.text

    whole = Engine._forward

    def fails(engine: Engine, rows: list, *rest: Any) -> torch.Tensor:
        after = whole(engine, rows, *rest)  # so that the cache has moved on
        if any(row.ids[0] == 7 and len(row.ids) > 9 for row in rows):
            raise MemoryError("no memory for this one")
        return after

    monkeypatch.setattr(Engine, "_forward", fails)
    poisonous = Answer(batcher, Request([7], Sampling(40, seed=3)))
    others += [Answer(batcher, request) for _ in range(2)]
    assert poisonous.wait().reason == "error"
    assert 9 <= len(poisonous.ids) < 9 + MOST_GUESSES  # those that were known before
    assert "no memory for this one" in caplog.text
    assert [answer.wait().ids for answer in others] == [alone] * 4
    assert Answer(batcher, Request([7], Sampling(40, seed=3))).wait().reason == "error", "with nobody beside it"
    assert Answer(batcher, request).wait().ids == alone


def test_a_request_that_cannot_be_added_ends_alone(
    model: Decoder, batcher: Batcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Engine.add

    def add(engine: Engine, ids: Any, *more: Any, **settings: Any) -> Any:
        if ids[0] == 7:
            raise MemoryError("no memory for its row")
        return whole(engine, ids, *more, **settings)

    monkeypatch.setattr(Engine, "add", add)
    answers = [Answer(batcher, Request([first], greedy(5))) for first in (2, 7, 2)]
    assert [answer.wait().reason for answer in answers] == ["length", "error", "length"]


def test_a_request_may_come_while_those_that_wait_are_looked_through(model: Decoder) -> None:
    batcher = Batcher(model, places=1, queue=5)
    endless = Request([2], greedy(10**6))
    came = threading.Thread(target=batcher.submit, args=(endless, lambda _: None))

    class Looked(Ticket):
        @property
        def cancelled(self) -> bool:  # type: ignore[override]
            if came.ident is None:
                came.start()
                came.join(0.2)
            return False

    answers = [Answer(batcher, endless) for _ in range(3)]
    wait_until(lambda: bool(answers[0].ids))
    answers[1].ticket.__class__ = Looked
    wait_until(lambda: batcher.waiting == 3)
    before = len(answers[0].ids)
    wait_until(lambda: len(answers[0].ids) > before)
    assert batcher.alive
    batcher.close(0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_broken_model_ends_the_thread(model: Decoder, batcher: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    all_came = threading.Event()

    def fails(*_: Any) -> torch.Tensor:
        assert all_came.wait(LIMIT)
        raise RuntimeError("the GPU computes nothing more")

    monkeypatch.setattr(Engine, "_forward", fails)
    answers = [Answer(batcher, Request([2], greedy(5))) for _ in range(8)]  # more than there are places
    all_came.set()
    assert [answer.wait().reason for answer in answers] == ["error"] * 8
    wait_until(lambda: not batcher.alive)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_thread_leaves_nobody_waiting(model: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    batcher = Batcher(model, places=1, queue=5)
    answers = [Answer(batcher, Request([2], greedy(10**9))) for _ in range(3)]
    wait_until(lambda: bool(answers[0].ids))
    monkeypatch.setattr(batcher, "_admit", lambda: 1 / 0)
    assert [answer.wait().reason for answer in answers] == ["error"] * 3
    assert not batcher.alive
    with pytest.raises(Closed):
        batcher.submit(Request([2], greedy(1)), print)
    batcher.close(1)


def test_a_long_prompt_does_not_hold_up_the_others() -> None:
    """While a prompt of ten chunks goes through, a running request gets a token after every chunk."""
    config = GPTConfig(vocab_size=50, max_seq_len=10 * CHUNK + 32, n_layer=1, n_head=2, n_embd=16)
    engine = Engine(packed(GPT(config).eval()), 4)
    running = engine.add([2], greedy(100))
    engine.step()
    long = [engine.add([3] * 10 * CHUNK, greedy(100)) for _ in range(2)]
    for number in range(1, 21):
        made = engine.step()
        assert running in made
        assert (long[0] in made) == (number >= 10)
        assert (long[1] in made) == (number >= 20)
    short = [engine.add([4] * (CHUNK // 2 - 1), greedy(100)) for _ in range(1)]
    assert set(engine.step()) == {running, *long, *short}


def test_penalties_are_openai_s(batcher: Batcher, model: Decoder) -> None:
    """logits - count * frequency - (count > 0) * presence, over the generated tokens and not the prompt."""
    sampling = greedy(12, frequency_penalty=0.7, presence_penalty=0.2)
    answer = Answer(batcher, Request([2, 9, 9, 9], sampling)).wait()
    ids, counts = [2, 9, 9, 9], torch.zeros(model.config.vocab_size)
    for id in answer.ids:
        with torch.no_grad():
            logits = model(torch.tensor([ids]))[0, -1]
        assert id == (logits - 0.7 * counts - 0.2 * (counts > 0)).argmax().item()
        counts[id] += 1
        ids.append(id)

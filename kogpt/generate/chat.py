"""Answer a conversation. In: messages. Out: the text of the assistant's next message, as a stream.

The context is shared by the prompt and the answer. The newest turns that leave room for the answer stay, the oldest
leave first (kogpt.tokenizer.chat.prompt). An answer ends at [END], or when its tokens or the context are used up.
"""

from collections.abc import Generator, Sequence
from dataclasses import replace

from kogpt.checkpoint.load import LoadedRun
from kogpt.common.system import launcher
from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.tokenizer.chat import Message, prompt
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import StreamDecoder, Tokenizer


def how_to_teach(run: str) -> str:
    """What to tell somebody who wants to talk to a run that only continues texts."""
    return (
        f"The model {run} was never taught to answer; it only continues texts. Fine-tune it on conversations with "
        f"{launcher()} launch/train.py --corpus CHAT --init {run} --out CHAT_RUN (docs/chat.md)."
    )


def is_taught(run: LoadedRun, tokenizer: Tokenizer) -> bool:
    """Whether a run was trained on conversations, with this tokenizer, which has role tokens."""
    return run.talks and tokenizer.roles is not None


def prompt_limit(context: int, max_new_tokens: int | None) -> int:
    """The most tokens of a prompt. The answer keeps what it asks for, up to half of the context; a quarter unasked."""
    return context - min(max_new_tokens or context // 4, context // 2)


def stop_ids(tokenizer: Tokenizer) -> list[int]:
    """The tokens that end an answer: [END], and every other one that an answer cannot contain."""
    return [tokenizer.end_id, tokenizer.sep_id, *(tokenizer.roles or {}).values()]


class Reply:
    """The answer to a conversation: an iterator over its text, as it is generated.

    `again`: how many answers came before, so that this one differs from them unless it is greedy.
    Bytes that are no UTF-8 are left out. `dropped_turns`: how many of the oldest turns did not fit. `whole`: whether
    the answer came to its own end.
    """

    def __init__(
        self, model: Decoder, codec: TextCodec, messages: Sequence[Message], sampling: Sampling, again: int = 0
    ) -> None:
        context = model.config.max_seq_len
        limit = prompt_limit(context, sampling.max_new_tokens)
        self._ids, self.dropped_turns = prompt(messages, codec.tokenizer, codec.encode, limit)
        room = context - len(self._ids)
        self._sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, room))
        self._seed = sampling.seed + again
        self._model, self._tokenizer = model, codec.tokenizer
        self.whole = False

    def __iter__(self) -> Generator[str]:
        decoder = StreamDecoder(self._tokenizer)
        ends = stop_ids(self._tokenizer)
        for [id] in generate(self._model, [self._ids], self._sampling, seeds=[self._seed]):
            if id in ends or id is None:
                self.whole = True
                break
            if text := decoder.push(id).replace("\ufffd", ""):
                yield text

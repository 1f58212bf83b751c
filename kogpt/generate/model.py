"""A trained run for Python code, what `kogpt.load` returns. In: a run folder. Out: text, and tokens.

import kogpt

model = kogpt.load("runs/small")
print(model.generate("대한민국은", max_new_tokens=50))
model.decode(model.encode("모든 국민은"))
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from kogpt.checkpoint.choose import Wish
from kogpt.checkpoint.load import load_for_inference
from kogpt.common.device import choose_device
from kogpt.common.errors import UserError
from kogpt.generate.chat import Reply, how_to_teach, is_taught
from kogpt.generate.sampling import Sampling
from kogpt.generate.stream import continue_texts
from kogpt.model.decoder import Decoder
from kogpt.model.packed import packed
from kogpt.tokenizer.chat import Message
from kogpt.tokenizer.codec import TextCodec


class Model:
    """A checkpoint of a run (kogpt.checkpoint.choose says which), with its tokenizer and analyzer.

    `module` is the torch model (kogpt.model.decoder.Decoder, fp32, eval mode) and `config` its configuration.
    `generate` and `chat` use its weights as they are at the first call of either.
    Raises `kogpt.common.errors.UserError` for a folder without a usable checkpoint or a device that is not there.
    """

    def __init__(self, run: str | Path, device: str | None = None, checkpoint: Wish = None) -> None:
        loaded = load_for_inference(Path(run), choose_device(device), checkpoint)
        self.module, self.step = loaded.model, loaded.info.get("step")
        self.config = self.module.config
        self._codec = TextCodec(loaded.tokenizer_folder)
        self._name, self._run = str(run), loaded

    def __repr__(self) -> str:
        millions = self.config.parameter_count / 1e6
        return f"<kogpt {self.config.arch} of {millions:.1f}M parameters at step {self.step} on {self.module.device}>"

    @cached_property
    def _fast(self) -> Decoder:
        return packed(self.module)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, as in training; without [CLS] and [SEP], which begin and end an article."""
        return self._codec.encode(text)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; [CLS] and [SEP] give nothing."""
        return self._codec.decode(list(tokens))

    def chat(self, messages: Sequence[Message | Mapping[str, str]], **sampling: Any) -> str:
        """The assistant's answer to a conversation: messages with a "role" (system, user, assistant) and "content".

        `sampling` is as for `generate`. The oldest turns are left out if the context is full. Raises `UserError` for a
        run that was never fine-tuned on conversations.
        """
        if not is_taught(self._run, self._codec.tokenizer):
            raise UserError(how_to_teach(self._name))
        talk = [
            message if isinstance(message, Message) else Message(message["role"], message["content"])
            for message in messages
        ]
        return "".join(Reply(self._fast, self._codec, talk, Sampling(**sampling)))

    @overload
    def generate(self, prompt: str, **sampling: Any) -> str: ...
    @overload
    def generate(self, prompt: Sequence[str], **sampling: Any) -> list[str]: ...
    def generate(self, prompt: str | Sequence[str], **sampling: Any) -> str | list[str]:
        """The prompt with its continuation; for several prompts, which are generated together, a list.

        `sampling` are the fields of kogpt.generate.sampling.Sampling: max_new_tokens, greedy, temperature, top_k,
        top_p, repetition_penalty, frequency_penalty, presence_penalty, seed. The result is what `kogpt generate` prints
        with the same flags.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        texts = continue_texts(self._fast, self._codec, prompts, Sampling(**sampling))
        whole = [start + continuation for start, (continuation,) in zip(prompts, texts, strict=True)]
        return whole[0] if isinstance(prompt, str) else whole

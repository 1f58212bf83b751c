"""Fixed prompts that the model continues greedily at every evaluation. In: Korean prompts. Out: their continuations.

Of a training on conversations, they are questions, and what follows is the assistant's answer.

Encoding a prompt may need Kkma, whose JVM would replace the training's signal handlers. It therefore runs once, in a
separate process, which also encodes what else an evaluation reads: `python -m kogpt.train.sample_prompts
TOKENIZER_FOLDER [CONTEXT]`, with [prompts, texts] and their tokens as JSON on stdin and stdout; with a context the
prompts are questions. All ranks generate together, because ZeRO 3 gathers weights only when all ranks call the model.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from kogpt.generate.decode import generate
from kogpt.generate.sampling import Sampling
from kogpt.model.decoder import Decoder
from kogpt.tokenizer.chat import Message, prompt
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import open_tokenizer

log = logging.getLogger(__name__)

ENCODE_SECONDS, ENCODE_RATE = 120, 5000
"""Seconds to start, and at least so many characters a second after that."""
_SAMPLING = Sampling(max_new_tokens=40, greedy=True)


def encode(
    tokenizer_folder: Path, prompts: Sequence[str], context: int | None = None, texts: Sequence[str] = ()
) -> tuple[list[list[int]], list[list[int]]]:
    """[CLS] and the tokens of each prompt, and the tokens of each text; none, with a warning, without the analyzer.

    With a `context`, the prompts are questions: their tokens are those of a conversation that the assistant continues.
    """
    if not prompts and not texts:
        return [], []
    command = [sys.executable, "-m", "kogpt.train.sample_prompts", str(tokenizer_folder)]
    command += [] if context is None else [str(context)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps([list(prompts), list(texts)]),
            capture_output=True,
            encoding="utf-8",
            timeout=ENCODE_SECONDS + sum(map(len, (*prompts, *texts))) / ENCODE_RATE,
            check=True,
        )
        of_prompts, of_texts = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError, OSError) as error:
        said = getattr(error, "stderr", None)
        reason = [*str(error).splitlines(), *(said.strip().splitlines() if isinstance(said, str) else ())][-1]
        log.warning(f"Texts cannot be encoded, so the evaluations go without prompts and tasks: {reason}")
        return [], []
    return of_prompts, of_texts


def continue_prompts(model: Decoder, tokenizer_folder: Path, prompts: list[list[int]]) -> list[str]:
    """The continuation of each encoded prompt. All ranks must call it with the same prompts."""
    tokenizer = open_tokenizer(tokenizer_folder)
    rows = [list(prompt) for prompt in prompts]
    answers = tokenizer.roles is not None and prompts[0][-1] == tokenizer.roles["assistant"]
    for ids in generate(model, prompts, _SAMPLING, stop_id=tokenizer.end_id if answers else tokenizer.sep_id):
        for row, id in zip(rows, ids, strict=True):
            if id is not None:
                row.append(id)
    if answers:
        return [tokenizer.decode(row[len(prompt) :]) for prompt, row in zip(prompts, rows, strict=True)]
    # Decode prompt and continuation together, because only then it is known whether a space separates them.
    texts = [(tokenizer.decode(prompt), tokenizer.decode(row)) for prompt, row in zip(prompts, rows, strict=True)]
    return [whole[len(start) :] for start, whole in texts]


def _main() -> None:
    folder, *context = sys.argv[1:]
    codec = TextCodec(Path(folder))
    prompts, texts = json.load(sys.stdin)

    def start(text: str) -> list[int]:
        if not context:
            return [codec.tokenizer.cls_id, *codec.encode(text)]
        return prompt([Message("user", text)], codec.tokenizer, codec.encode, int(context[0])).ids

    print(json.dumps([[start(text) for text in prompts], [codec.encode(text) for text in texts]]))


if __name__ == "__main__":
    _main()

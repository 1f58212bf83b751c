"""Fixed prompts that the model continues greedily at every evaluation. In: Korean prompts. Out: their continuations.

Of a training on conversations, they are questions, and what follows is the assistant's answer.

Encoding a prompt may need Kkma, whose JVM would replace the training's signal handlers. It therefore runs once, in a
separate process: `python -m kogpt.train.sample_prompts TOKENIZER_FOLDER [CONTEXT]`, with prompts and tokens as JSON on
stdin and stdout; with a context they are questions. All ranks generate together, because ZeRO 3 gathers weights only
when all ranks call the model.
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


def encode(tokenizer_folder: Path, texts: Sequence[str], context: int | None = None) -> list[list[int]]:
    """[CLS] and the tokens of each prompt; [] with a warning if the analyzer cannot run.

    With a `context`, the texts are questions: the tokens are those of a conversation that the assistant continues.
    """
    command = [sys.executable, "-m", "kogpt.train.sample_prompts", str(tokenizer_folder)]
    command += [] if context is None else [str(context)]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(list(texts)),
            capture_output=True,
            encoding="utf-8",
            timeout=ENCODE_SECONDS + sum(map(len, texts)) / ENCODE_RATE,
            check=True,
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError, OSError) as error:
        said = getattr(error, "stderr", None)
        reason = [*str(error).splitlines(), *(said.strip().splitlines() if isinstance(said, str) else ())][-1]
        log.warning(f"Texts cannot be encoded, so the evaluations go without prompts and tasks: {reason}")
        return []


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
    codec = TextCodec(Path(sys.argv[1]))
    prompts = json.load(sys.stdin)
    if len(sys.argv) > 2:
        talks = [[Message("user", question)] for question in prompts]
        print(json.dumps([prompt(talk, codec.tokenizer, codec.encode, int(sys.argv[2])).ids for talk in talks]))
    else:
        print(json.dumps([[codec.tokenizer.cls_id, *codec.encode(text)] for text in prompts]))


if __name__ == "__main__":
    _main()

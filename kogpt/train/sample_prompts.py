"""Fixed prompts that the model continues greedily at every evaluation. In: Korean prompts. Out: their continuations.

Encoding a prompt may need Kkma, whose JVM would replace the training's signal handlers. It therefore runs once, in a
separate process: `python -m kogpt.train.sample_prompts TOKENIZER_FOLDER`, with prompts and tokens as JSON on stdin and
stdout. All ranks generate together, because ZeRO 3 gathers weights only when all ranks call the model.
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
from kogpt.tokenizer.codec import TextCodec
from kogpt.tokenizer.wordpiece import open_tokenizer

log = logging.getLogger(__name__)

ENCODE_SECONDS = 120
_SAMPLING = Sampling(max_new_tokens=40, greedy=True)


def encode(tokenizer_folder: Path, texts: Sequence[str]) -> list[list[int]]:
    """[CLS] and the tokens of each prompt; [] with a warning if the analyzer cannot run."""
    command = [sys.executable, "-m", "kogpt.train.sample_prompts", str(tokenizer_folder)]
    try:
        done = subprocess.run(
            command, input=json.dumps(list(texts)), capture_output=True, text=True, timeout=ENCODE_SECONDS, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError, OSError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        log.warning(f"The prompts cannot be encoded, so no sample texts are generated: {reason}")
        return []


def continue_prompts(model: Decoder, tokenizer_folder: Path, prompts: list[list[int]]) -> list[str]:
    """The continuation of each encoded prompt. All ranks must call it with the same prompts."""
    tokenizer = open_tokenizer(tokenizer_folder)
    rows = [list(prompt) for prompt in prompts]
    for ids in generate(model, prompts, _SAMPLING, stop_id=tokenizer.sep_id):
        for row, id in zip(rows, ids, strict=True):
            if id is not None:
                row.append(id)
    # Decode prompt and continuation together, because only then it is known whether a space separates them.
    texts = [(tokenizer.decode(prompt), tokenizer.decode(row)) for prompt, row in zip(prompts, rows, strict=True)]
    return [whole[len(start) :] for start, whole in texts]


def _main() -> None:
    codec = TextCodec(Path(sys.argv[1]))
    prompts = json.load(sys.stdin)
    print(json.dumps([[codec.tokenizer.cls_id, *codec.encode(prompt)] for prompt in prompts]))


if __name__ == "__main__":
    _main()

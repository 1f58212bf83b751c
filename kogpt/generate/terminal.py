"""`kogpt generate`: prompts from a file or standard input; their continuations on standard output as they come."""

import sys
from pathlib import Path

from kogpt.checkpoint.choose import Wish
from kogpt.common.errors import UserError
from kogpt.common.text_files import decode
from kogpt.generate.sampling import Sampling
from kogpt.generate.stream import generate_text


def print_texts(
    run: Path, prompts: tuple[str, ...], sampling: Sampling, *, samples: int, device: str | None, checkpoint: Wish
) -> None:
    """Print each prompt with each of its continuations.

    All rows are generated together but printed one after the other: the first one live, the others when it ends.
    """
    waiting = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
    held = {row: prompts[row[0]] for row in waiting}
    ended = set()
    for piece in generate_text(run, prompts, sampling, samples=samples, device=device, checkpoint=checkpoint):
        row = piece.prompt, piece.sample
        held[row] += piece.text
        if piece.last:
            ended.add(row)
        while waiting:
            print(held[waiting[0]], end="", flush=True)
            held[waiting[0]] = ""
            if waiting[0] not in ended:
                break
            waiting.pop(0)
            print("\n")


def read_prompts(file: Path | None) -> tuple[str, ...]:
    """The non-empty lines of a file or of standard input."""
    try:
        text = decode(file.read_bytes() if file else sys.stdin.buffer.read())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file or 'standard input'} cannot be read as UTF-8 text ({error}).") from None
    if not (prompts := tuple(line for line in text.splitlines() if line.strip())):
        raise UserError("there is no prompt; give one as an argument, with --file, or on standard input.")
    return prompts

"""`kogpt COMMAND ...`: what one does with a corpus or a trained run, from any folder.

Each command is one function: its signature is the command line, its docstring the help. The rooms that do
the work are imported when a command runs, so that `kogpt --help` starts at once.
"""

import sys
from pathlib import Path

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

from kogpt.errors import UserError, exit_on_user_error


def generate(
    run: Positional[Path],
    prompts: Positional[tuple[str, ...]] = (),
    /,
    file: Path | None = None,
    samples: int = 1,
    max_new_tokens: int = 100,
    greedy: bool = False,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 0.95,
    repetition_penalty: float = 1.0,
    seed: int = 0,
    device: str | None = None,
) -> None:
    """Print each prompt with its continuation by the newest checkpoint of a run, as it comes.

    Args:
        run: the run's folder (or one of its checkpoints).
        prompts: Korean text to continue; without any, and without --file, each line of standard input.
        file: a file with a prompt on each line.
        samples: continuations of each prompt.
        max_new_tokens: how many ids to add at most; the end of the article stops earlier.
        greedy: always take the most probable id.
        temperature: below 1 bolder choices become rarer, above 1 more frequent.
        top_k: choose among the k most probable ids only; 0: among all.
        top_p: choose among the most probable ids that together have this probability.
        repetition_penalty: above 1, ids that occurred already become less probable.
        seed: the same seed gives the same text.
        device: cpu, cuda, cuda:1 ...; by default a GPU if there is one.
    """
    from kogpt.generate import Sampling, generate_text

    if not prompts:
        try:
            lines = file.read_text(encoding="utf-8") if file else sys.stdin.read()
        except OSError as error:
            raise UserError(f"--file {file} cannot be read: {error.strerror}.") from None
        prompts = tuple(line for line in lines.splitlines() if line.strip())
    if not prompts:
        raise UserError("there is no prompt: give one as an argument, with --file or on standard input.")
    sampling = Sampling(max_new_tokens, greedy, temperature, top_k, top_p, repetition_penalty, seed)
    waiting = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
    texts, ended = dict.fromkeys(waiting, ""), set()
    shown = ""
    # All rows are generated together; on the screen they come one after the other, the first of them live.
    for piece in generate_text(run, prompts, sampling, samples=samples, device=device):
        row = (piece.prompt, piece.sample)
        texts[row] += piece.text
        ended |= {row} if piece.last else set()
        while waiting:
            whole = prompts[waiting[0][0]] + texts[waiting[0]]
            print(whole[len(shown) :], end="", flush=True)
            shown = whole
            if waiting[0] not in ended:
                break
            print("\n")
            shown = ""
            waiting.pop(0)


def inspect(corpus: Positional[Path], /, decode: Path | None = None) -> None:
    """Show a token corpus: its counts, a sample cut into its pieces, the state of its checksums.

    Args:
        corpus: the corpus folder.
        decode: write every article back as text, a JSON line {"id", "text"} each, into this file.
    """
    from kogpt import inspect_corpus

    inspect_corpus.inspect(corpus, decode)


def import_pt(
    folder: Positional[Path],
    corpus: Positional[Path],
    /,
    tokenizer: str,
    analyzer: str = "kkma",
    stride: int = 128,
    val_fraction: float = 0.02,
) -> None:
    """Turn a folder of `*_window_*.pt` files into a token corpus.

    Args:
        folder: the folder of window files.
        corpus: the corpus folder to write.
        tokenizer: name or folder of the WordPiece vocabulary that the windows were made with.
        analyzer: the analyzer that they were made with: kkma, kiwi or none.
        stride: how many ids further each window of an article begins.
        val_fraction: the share of articles kept for validation.
    """
    from kogpt import window_files

    window_files.import_pt(
        folder, corpus, tokenizer=tokenizer, analyzer=analyzer, stride=stride, val_fraction=val_fraction
    )


def export_windows(corpus: Positional[Path], folder: Positional[Path], /, format: str = "pt") -> None:
    """Write a token corpus as the original script's windows of 256 ids with stride 128.

    Args:
        corpus: the corpus folder.
        folder: where the files go.
        format: pt (a file a window, named as the script names them), parquet or megatron (.bin and .idx).
    """
    from kogpt import window_files

    count = window_files.export_windows(corpus, folder, format)
    print(f"{count:,} windows -> {folder}")


def main() -> None:
    """The console script `kogpt`."""
    commands = {"generate": generate, "inspect": inspect, "import-pt": import_pt, "export-windows": export_windows}
    with exit_on_user_error():
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="kogpt",
            description="What one does with a corpus or a trained run.",
            config=(FlagCreatePairsOff,),
        )

"""`kogpt COMMAND ...`: what one does with a corpus or a trained run, from any folder.

Each command is one function: its signature is the command line, its docstring the help. The rooms that do
the work are imported when a command runs, so that `kogpt --help` starts at once.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional

from kogpt.common.errors import UserError, exit_on_user_error
from kogpt.common.files import atomic_write
from kogpt.common.renamed_flags import rewrite
from kogpt.generate.sampling import Sampling
from kogpt.tokenizer.normalize import decode


def generate(
    run: Positional[Path],
    prompts: Positional[tuple[str, ...]] = (),
    /,
    sampling: OmitArgPrefixes[Sampling] = Sampling(),  # noqa: B008 (frozen)
    file: Path | None = None,
    samples: int = 1,
    device: str | None = None,
) -> None:
    """Print each prompt with its continuation by the newest checkpoint of a run, as it comes.

    Args:
        run: the run's folder (or one of its checkpoints).
        prompts: Korean text to continue; without any, and without --file, each line of standard input.
        file: a file with a prompt on each line.
        samples: continuations of each prompt.
        device: cpu, cuda, cuda:1 ...; by default a GPU if there is one.
    """
    if samples < 1:
        raise UserError(f"--samples is {samples}, must be at least 1.")
    if not prompts:
        prompts = _lines(file)
    from kogpt.generate.decode import generate_text

    # Many rows are generated together; on the screen they come one after the other, the first of them live.
    waiting = [(prompt, sample) for prompt in range(len(prompts)) for sample in range(samples)]
    held = {row: prompts[row[0]] for row in waiting}
    ended = set()
    for piece in generate_text(run, prompts, sampling, samples=samples, device=device):
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


def _lines(file: Path | None) -> tuple[str, ...]:
    """The prompts of a file, or of standard input: its lines that are not empty."""
    try:
        text = decode(file.read_bytes() if file else sys.stdin.buffer.read())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file or 'standard input'} cannot be read as UTF-8 text ({error})") from None
    if not (prompts := tuple(line for line in text.splitlines() if line.strip())):
        raise UserError("there is no prompt: give one as an argument, with --file or on standard input")
    return prompts


def inspect(corpus: Positional[Path], /, decode: Path | None = None) -> None:
    """Show a token corpus: its counts, a sample cut into its pieces, the state of its checksums.

    Args:
        corpus: the corpus folder.
        decode: write every article back as text, a JSON line {"id", "text"} each, into this file.
    """
    from kogpt.data import inspect as inspect_corpus

    inspect_corpus.inspect(corpus, decode)


def evaluate(
    run: Positional[Path],
    /,
    corpus: Path | None = None,
    texts: Path | None = None,
    choices: Path | None = None,
    shots: tuple[int, ...] = (0,),
    limit: int | None = None,
    json_file: Path | None = None,
    device: str | None = None,
    wandb: Literal["off", "auto", "online", "offline"] = "off",
    wandb_project: str = "kogpt",
) -> None:
    """Bits per character of held-out text, and multiple-choice accuracy (KoBEST) with its standard error.

    Args:
        run: the run's folder (or one of its checkpoints).
        corpus: a token corpus of the same tokenizer, whose validation articles are scored.
        texts: a folder or file of articles (.txt, .jsonl, .jsonl.gz), scored as raw text.
        choices: a .jsonl or .jsonl.gz of items {task, context, question, choices, label}.
        shots: examples before each item: 0, or several numbers.
        limit: take only the first N articles, and the first N items of each task.
        json_file: write the numbers to this file as well.
        device: cpu, cuda, cuda:1 ...; by default a GPU if there is one.
        wandb: log the numbers to Weights & Biases, grouped with the training; auto is online when logged in.
        wandb_project: W&B project.
    """
    from rich.console import Console

    from kogpt.eval.run import evaluate_run, numbers, table
    from kogpt.tracking.tracker import finite
    from kogpt.tracking.wandb_run import log_evaluation

    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise UserError(f"--json-file {json_file}: there is no folder {json_file.parent}; make it.")
    result = evaluate_run(run, corpus=corpus, texts=texts, choices=choices, shots=shots, limit=limit, device=device)
    Console().print(table(result))
    if json_file is not None:
        with atomic_write(json_file) as file:
            file.write(json.dumps(finite(result), ensure_ascii=False, indent=1).encode() + b"\n")
    log_evaluation(Path(result["run"]), wandb, wandb_project, result["step"], numbers(result))


def export(run: Positional[Path], folder: Positional[Path], /, license: str = "unknown") -> None:
    """Write a run's model as a GPT-2 folder that `transformers` loads with no code of this project.

    Args:
        run: the run's folder (or one of its checkpoints).
        folder: where the model goes.
        license: the license of the weights, for the model card (an identifier such as cc-by-sa-4.0).
    """
    from kogpt.hub.export import export_model

    export_model(run, folder, license=license)
    print(f"AutoModelForCausalLM.from_pretrained({str(folder)!r}) loads it")


def import_(folder: Positional[Path], run: Positional[Path], /, corpus: Path) -> None:
    """Make a GPT-2 checkpoint on disk a run at step 0, which launch/train.py goes on from (continued pre-training).

    Args:
        folder: the checkpoint as `transformers` saves it, with its vocabulary.
        run: the run's folder to write.
        corpus: the token corpus to train on; pieces that its vocabulary shares with the model's keep their rows.
    """
    from kogpt.hub.import_run import import_run

    import_run(folder, run, corpus)
    print(f"go on with: deepspeed launch/train.py --corpus {corpus} --out {run}")


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
    from kogpt.data import pt_windows

    pt_windows.import_pt(
        folder, corpus, tokenizer=tokenizer, analyzer=analyzer, stride=stride, val_fraction=val_fraction
    )


def export_windows(corpus: Positional[Path], folder: Positional[Path], /, format: str = "pt") -> None:
    """Write a token corpus as the original script's windows of 256 ids with stride 128.

    Args:
        corpus: the corpus folder.
        folder: where the files go.
        format: pt (a file a window, named as the script names them), parquet or megatron (.bin and .idx).
    """
    from kogpt.data import pt_windows

    print(f"{pt_windows.export_windows(corpus, folder, format):,} windows -> {folder}")


COMMANDS: dict[str, Callable[..., None]] = {
    "generate": generate,
    "evaluate": evaluate,
    "export": export,
    "import": import_,
    "inspect": inspect,
    "import-pt": import_pt,
    "export-windows": export_windows,
}


def main() -> None:
    """The console script `kogpt`; Ctrl-C and a reader that has gone (`| head`) end it quietly, as they do others."""
    try:
        with exit_on_user_error():
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="kogpt",
                args=rewrite(sys.argv[1:]),
                description="What one does with a corpus or a trained run.",
                config=(FlagCreatePairsOff,),
            )
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
        sys.exit(141)

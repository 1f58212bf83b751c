"""The command line `kogpt COMMAND ...`, which works with token corpora and trained runs from any folder.

Each command is one function: its signature is the command line, its docstring the help. The modules that do the
work are imported when a command runs, so that `kogpt --help` is fast.
"""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TextIO

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from kogpt.cli_corpora import Folder, New, export_windows, import_pt, inspect, plan
from kogpt.common.errors import UserError, exit_on_user_error
from kogpt.common.flags import (
    FilePath,
    FilePaths,
    NewFolder,
    OptionalCheckpoint,
    OptionalCount,
    OptionalNewFile,
    OptionalPath,
    OptionalSource,
    OptionalText,
    Text,
)
from kogpt.common.log import set_up_logging
from kogpt.common.ranges import Range, checked
from kogpt.common.renamed_flags import rewrite
from kogpt.generate.sampling import Sampling

Run = Annotated[Positional[FilePath], arg(metavar="RUN", help="Run folder, or one of its checkpoints.")]
Checkpoint = Annotated[
    OptionalCheckpoint, arg(help="Which checkpoint of the run. Default: best where there was validation, else last.")
]
Runs = Annotated[Positional[FilePaths], arg(metavar="RUN ...", help_behavior_hint="")]
RunFolder = Annotated[Positional[FilePath], arg(metavar="RUN", help="Run folder.")]
OptionalQuantization = Annotated[Literal["f16", "q8_0"] | None, arg(metavar="{f16,q8_0}", help_behavior_hint="")]
MOST_SAMPLES = 100_000
"""Of a prompt; each takes memory until it is printed."""
Prompts = Annotated[Positional[tuple[str, ...]], arg(metavar="PROMPT ...", help_behavior_hint="")]


def generate(
    run: Run,
    prompts: Prompts = (),
    /,
    sampling: OmitArgPrefixes[Sampling] = Sampling(),  # noqa: B008 (frozen)
    file: OptionalSource = None,
    samples: Annotated[int, Range(1, MOST_SAMPLES)] = 1,
    checkpoint: Checkpoint = None,
    device: OptionalText = None,
) -> None:
    """Continue prompts with a run, and print the text while it is generated.

    Args:
        prompts: Texts to continue. Without any, prompts are read from --file or standard input, one per line.
        file: A file with one prompt per line.
        samples: Number of continuations per prompt.
        device: cpu, cuda, cuda:1, mps, ... Default: a GPU if there is one.
    """
    from kogpt.generate.terminal import print_texts, read_prompts

    if prompts and file is not None:
        raise UserError(f"a prompt is given, and --file {file} as well; give one of the two.")
    prompts = prompts or read_prompts(file)
    print_texts(run, prompts, sampling, samples=samples, device=device, checkpoint=checkpoint)


def chat(
    run: Run,
    /,
    sampling: OmitArgPrefixes[Sampling] = Sampling(max_new_tokens=256),  # noqa: B008 (frozen)
    checkpoint: Checkpoint = None,
    device: OptionalText = None,
) -> None:
    """Talk to a run that was fine-tuned on conversations. /help lists what else you can type.

    Args:
        device: cpu, cuda, cuda:1, mps, ... Default: a GPU if there is one.
    """
    from kogpt.chat.terminal import chat as talk

    talk(run, sampling, checkpoint=checkpoint, device=device)


def serve(
    run: Run,
    /,
    host: Text = "127.0.0.1",
    port: Annotated[int, Range(0, 65535)] = 8000,
    api_key: OptionalText = None,
    cors: Annotated[tuple[Text, ...], arg(help_behavior_hint="")] = (),
    checkpoint: Checkpoint = None,
    device: OptionalText = None,
) -> None:
    """Serve a chat page and an OpenAI-compatible API, until Ctrl-C.

    Args:
        host: Address to listen on. The default is this machine alone; for another one a key is needed.
        port: Port to listen on; 0: any free one.
        api_key: Key that clients have to send. Default: none on this machine; a new one for another --host.
        cors: Origins whose web pages may ask too, such as http://localhost:3000. Default: none.
        device: cpu, cuda, cuda:1, mps, ... Default: a GPU if there is one.
    """
    from kogpt.serve.server import serve as answer

    answer(run, host=host, port=port, api_key=api_key, cors=cors, checkpoint=checkpoint, device=device)


def evaluate(
    run: Run,
    /,
    corpus: OptionalPath = None,
    texts: OptionalSource = None,
    uncut: bool = False,
    choices: OptionalSource = None,
    shots: tuple[Annotated[int, Range(0)], ...] = (0,),
    limit: OptionalCount = None,
    json_file: OptionalNewFile = None,
    checkpoint: Checkpoint = None,
    device: OptionalText = None,
    wandb: Literal["auto", "online", "offline", "off"] = "off",
    wandb_project: Text = "kogpt",
) -> None:
    """Report bits per character of held-out text, and multiple-choice accuracy (KoBEST) with its standard error.

    Args:
        corpus: Score the validation articles of this token corpus. It must use the run's tokenizer.
        texts: Score the articles of this file or folder (.txt, .json, .jsonl, also with .gz) as raw text.
        uncut: Score corpus and texts also without the analyzer, as programs read them that cannot call it.
        choices: Answer the multiple-choice items of this file (.jsonl, .jsonl.gz), such as KoBEST.
        shots: Number of solved examples before each item. Give several numbers to compare them.
        limit: Use only the first N articles, and the first N items of each task.
        json_file: Also write the results to this file.
        device: cpu, cuda, cuda:1, mps, ... Default: a GPU if there is one.
        wandb: Log the results to W&B, in the group of the training. auto: online if you are logged in, else offline.
        wandb_project: W&B project.
    """
    from rich.console import Console

    from kogpt.eval.report import numbers, table
    from kogpt.eval.run import evaluate_run
    from kogpt.tracking.metrics_file import write_json
    from kogpt.tracking.wandb_run import log_evaluation

    result = evaluate_run(
        run,
        corpus=corpus,
        texts=texts,
        uncut=uncut,
        choices=choices,
        shots=shots,
        limit=limit,
        device=device,
        checkpoint=checkpoint,
    )
    if json_file is not None:
        write_json(result, json_file)
    Console().print(table(result))
    log_evaluation(Path(result["run"]), wandb, wandb_project, result["step"], numbers(result))


def report(run: RunFolder, /, out: OptionalNewFile = None) -> None:
    """Write a run's report: curves, evaluation, samples, data, machine, and cost, as one page for a browser.

    Args:
        out: File to write. Default: report.html in the run folder.
    """
    from kogpt.tracking.report_page import REPORT, write_report

    path = out or run / REPORT
    write_report(run, path)
    print(f"Open {path} in a browser.")


def compare(runs: Runs, /, out: OptionalNewFile = None) -> None:
    """Compare runs at equal tokens and at equal time: a table here, and a page with the curves.

    Args:
        runs: Run folders, at least two.
        out: File to write. Default: compare.html in this folder.
    """
    from rich.console import Console

    from kogpt.tracking.compare import PAGE, Comparison

    comparison, path = Comparison(runs), out or Path(PAGE)
    for one in comparison.tables():
        Console().print(one)
    for note in comparison.notes:
        print(note)
    comparison.write_page(path)
    print(f"Open {path} in a browser for the curves.")


def export(
    run: Run,
    folder: New,
    /,
    license: OptionalText = None,
    gguf: OptionalQuantization = None,
    push: OptionalText = None,
    corpus: OptionalPath = None,
    checkpoint: Checkpoint = None,
) -> None:
    """Write a run's model as a folder that `transformers` loads without this project.

    Args:
        folder: Folder to write.
        license: License of the weights for the model card, for example cc-by-sa-4.0. Default: unknown.
        gguf: Also write a file for llama.cpp and a Modelfile for Ollama: f16, or q8_0, which is half as large.
        push: Also upload the folder to the Hugging Face hub under this name, USER/NAME. A new repository is private.
        corpus: Measure what the model loses without the analyzer, on 100 validation articles of this, for the card.
            Default: on 20 of the run's own corpus, if that is still where it was.
    """
    from kogpt.hub.export import export_model

    address = export_model(run, folder, license=license, gguf=gguf, checkpoint=checkpoint, push=push, corpus=corpus)
    print(f"Load it with AutoModelForCausalLM.from_pretrained({push or str(folder)!r}).")
    if address is not None:
        print(f"Uploaded to {address}. A new repository is private; its settings there make it public.")


def import_(folder: Folder, run: Annotated[Positional[NewFolder], arg(metavar="RUN")], /, corpus: FilePath) -> None:
    """Turn a GPT-2 or Qwen3 checkpoint into a run at step 0, for continued pre-training with launch/train.py.

    Args:
        folder: Checkpoint folder as `transformers` saves it, with its vocabulary.
        run: Run folder to write.
        corpus: Token corpus to train on. Tokens that both vocabularies have keep their embeddings.
    """
    from kogpt.hub.import_run import continuation, import_run

    kept, tokens, config = import_run(folder, run, corpus)
    print(f"{kept:,} of {tokens:,} tokens keep the rows of {folder}, {tokens - kept:,} start at their mean")
    print(f"Continue with: {continuation(config, run, corpus)}")


def doctor() -> None:
    """Show what this machine offers to kogpt, and what to do where something is missing.

    Send its output along with a bug report. The exit status is 1 where a line begins with FIX.
    """
    from kogpt.doctor import examine

    wrong = 0
    for finding in examine(Path.cwd()):
        print(finding, flush=True)
        wrong += finding.mend is not None
    sys.exit(min(wrong, 1))


COMMANDS: dict[str, Callable[..., None]] = {
    "generate": checked(generate),
    "chat": checked(chat),
    "serve": checked(serve),
    "evaluate": checked(evaluate),
    "report": checked(report),
    "compare": checked(compare),
    "export": checked(export),
    "import": checked(import_),
    "inspect": checked(inspect),
    "plan": checked(plan),
    "import-pt": checked(import_pt),
    "export-windows": checked(export_windows),
    "doctor": checked(doctor),
}


def main() -> None:
    """The console script `kogpt`. Ctrl-C or a closed pipe (`| head`) ends it quietly."""
    set_up_logging()
    try:
        with exit_on_user_error():
            tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="kogpt",
                args=rewrite(sys.argv[1:]),
                description="Work with token corpora and trained runs.",
                config=(FlagCreatePairsOff,),
            )
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if not isinstance(error, BrokenPipeError) and not (error.errno == errno.EINVAL and _is_broken(sys.stdout)):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
        sys.exit(141)


def _is_broken(stream: TextIO) -> bool:
    """Whether a stream takes no more. Windows calls a write to a closed pipe an invalid argument (EINVAL)."""
    try:
        stream.flush()
    except OSError:
        return True
    return False

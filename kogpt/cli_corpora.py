"""The commands of kogpt.cli that are about token corpora."""

from typing import Annotated

from tyro.conf import Positional, arg

from kogpt.common.flags import (
    FilePath,
    Location,
    NewFolder,
    OptionalCount,
    OptionalNewFile,
    OptionalText,
    Text,
    WeightedPaths,
)
from kogpt.common.ranges import Count, Range, ShareBelowOne
from kogpt.data.split import VAL_FRACTION

Corpus = Annotated[Positional[FilePath], arg(metavar="CORPUS")]
Folder = Annotated[Positional[FilePath], arg(metavar="FOLDER")]
New = Annotated[Positional[NewFolder], arg(metavar="FOLDER")]


def inspect(corpus: Corpus, /, decode: OptionalNewFile = None, card: bool = False) -> None:
    """Show the counts of a token corpus and a sample of its tokens, and verify its checksums.

    Args:
        corpus: Token corpus folder.
        decode: Write every article to this file as a JSON line {"id", "text"}; conversations as {"id", "messages"}.
        card: Print only a data card in Markdown: sources, lengths, what was left out and why.
    """
    from kogpt.data import inspect as inspect_corpus

    inspect_corpus.inspect(corpus, decode, card)


def import_pt(
    folder: Folder,
    corpus: Annotated[Positional[NewFolder], arg(metavar="CORPUS")],
    /,
    tokenizer: Location,
    analyzer: OptionalText = None,
    stride: Count = 128,
    val_fraction: ShareBelowOne = VAL_FRACTION,
) -> None:
    """Convert a folder of `*_window_*.pt` files into a token corpus.

    Args:
        folder: Folder of window files.
        corpus: Token corpus folder to write.
        tokenizer: WordPiece vocabulary that the windows were made with: a folder or a name on the Hugging Face hub. The
            folder `tokenizer` of a corpus or run also says the analyzer.
        analyzer: Analyzer that they were made with: kkma, kiwi, or none. Default: kkma.
        stride: Number of tokens between the starts of two windows of an article.
        val_fraction: Share of the articles to keep for validation.
    """
    from kogpt.data import pt_windows
    from kogpt.data.corpus import TokenCorpus

    pt_windows.import_pt(
        folder, corpus, tokenizer=tokenizer, analyzer=analyzer, stride=stride, val_fraction=val_fraction
    )
    print(f"{len(TokenCorpus.open(corpus)):,} articles -> {corpus}")


def export_windows(corpus: Corpus, folder: New, /, format: Text = "pt") -> None:
    """Write a token corpus as windows of 256 tokens with a stride of 128.

    Args:
        corpus: Token corpus folder.
        folder: Folder to write.
        format: pt (one file per window), parquet, or megatron (.bin and .idx).
    """
    from kogpt.data import pt_windows

    print(f"{pt_windows.export_windows(corpus, folder, format):,} windows -> {folder}")


def plan(
    *,
    corpus: WeightedPaths,
    hours: Annotated[float, Range(0, 10**5, above=True)],
    gpu: OptionalText = None,
    gpus: OptionalCount = None,
    mfu: Annotated[float, Range(0, 1, above=True)] = 0.35,
    max_seq_len: Annotated[int, Range(2)] = 256,
) -> None:
    """Choose the size of a model for the hours that you have, and say what to expect of it.

    Args:
        corpus: Token corpus folder, or several with their shares of the tokens (wiki=0.7 news=0.3).
        hours: Hours of training.
        gpu: Plan for this GPU, such as H100, instead of this machine, which is measured for a minute.
        gpus: Number of such GPUs. Default: 1.
        mfu: Share of the GPU's peak that training gets.
        max_seq_len: Context length in tokens.
    """
    from rich.console import Console

    from kogpt.plan.run import left_over, make_plan, table

    machine, plans, command = make_plan(corpus, hours, gpu, gpus, mfu, max_seq_len)
    print(machine.words)
    Console().print(table(plans))
    if words := left_over(plans[0], hours):
        print(words)
    print(f"Train the best with:\n{command}")

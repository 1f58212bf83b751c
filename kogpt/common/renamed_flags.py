"""Old spellings of flags, accepted for one version: rewritten on the command line before it is parsed.

In: the words of a command line. Out: the same words in today's spelling, so that --help shows only that one.
"""

from collections.abc import Sequence

RENAMED = {"--licence": "--license", "--train-tokenizer": "--vocab-size"}
"""Since 0.2; to be removed in 0.3."""


def rewrite(words: Sequence[str]) -> list[str]:
    """The command line with every old flag (`--old VALUE` or `--old=VALUE`) under its new name."""
    rewritten = []
    for word in words:
        flag, equals, value = word.partition("=")
        rewritten.append(RENAMED.get(flag.replace("_", "-"), flag) + equals + value)
    return rewritten

"""Old spellings of flags, which still work for one version. They do not appear in --help.

In: the words of a command line. Out: the same words with the new spellings, ready to be parsed.
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

"""Whether one tokenizer is another with role tokens appended, so that a model of the one can be trained on the other.

In: two tokenizers. Out: the appended tokens. Runs and corpora from before chats have vocabularies without role tokens.
"""

from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import Tokenizer


def appended_roles(before: Tokenizer, after: Tokenizer) -> list[str]:
    """The tokens that `after` has at the end and `before` lacks; [] if both have the same vocabulary.

    Raises `ValueError`, with one clause, if they differ in anything else that decides a text's ids.
    """
    for what, one, other in (
        ("analyzer", before.analyzer["name"], after.analyzer["name"]),
        ("spacing", before.spacing, after.spacing),
    ):
        if one != other:
            raise ValueError(f"its {what} is {one} instead of {other}")
    added = after.vocab[len(before.vocab) :]
    if after.vocab[: len(before.vocab)] != before.vocab or not set(added) <= set(ROLE_PIECES):
        raise ValueError(f"it has another vocabulary ({len(before.vocab):,} tokens instead of {len(after.vocab):,})")
    return added

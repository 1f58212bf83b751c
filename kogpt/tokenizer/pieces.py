"""What the tokens of a vocabulary are for: special ones, those of roles, and those that text may match.

Everything here decides which tokens a text becomes, so it is part of `kogpt.tokenizer.wordpiece.encoder_digest`.
"""

import re
from collections.abc import Iterable

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROLE_PIECES = ("[SYSTEM]", "[USER]", "[ASSISTANT]", "[END]", *(f"[RESERVED_{i}]" for i in range(1, 5)))
"""The end of every vocabulary: who speaks, the end of a message (kogpt.tokenizer.chat), and four for later uses."""
_UNMATCHED = re.compile(r"\[[^\[\]]+\]|<0x[0-9A-F]{2}>")


def matchable(pieces: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    """The tokens that text may match, text -> id: plain ones, and continuations without their `##`."""
    plain, rest = {}, {}
    for i, piece in enumerate(pieces):
        if any(character.isspace() for character in piece):
            continue
        if not piece.startswith("##"):
            if piece and not _UNMATCHED.fullmatch(piece):
                plain[piece] = i
        elif len(piece) > 2:
            rest[piece[2:]] = i
    return plain, rest

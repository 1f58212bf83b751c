"""The vocabulary for the `tokenizers` and `transformers` libraries: vocabulary -> tokenizer.json.

Spacing "original": a tokenizer for segmented words (`Tokenizer.presegment`). It splits at white space and applies
greedy WordPiece, in which a word that starts with `##` matches a continuation, without normalization. Its decoder does
what `Tokenizer.decode` does, but marks positions with two Unicode non-characters, so text with U+FDD0 or U+FDD1 and
invalid bytes may be decoded differently. Spacing "morphemes": BertTokenizerFast with do_lower_case=False.
"""

import json

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer

from kogpt.tokenizer.bert import bert_normalizer

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROLE_PIECES = ("[SYSTEM]", "[USER]", "[ASSISTANT]", "[END]", *(f"[RESERVED_{i}]" for i in range(1, 5)))
"""The end of every vocabulary: who speaks, the end of a message (kogpt.tokenizer.chat), and four for later uses."""
_SPACE, _JOIN = "\ufdd0", "\ufdd1"  # before a plain token; after a separator
_NO_LIMIT = 1 << 30


def library_tokenizer(vocab: list[str], spacing: str) -> LibraryTokenizer:
    """The library's tokenizer with this vocabulary."""
    ids = {piece: i for i, piece in enumerate(vocab)}
    if spacing == "original":
        tokenizer = LibraryTokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=_NO_LIMIT))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.decoder = _decoder()
    else:
        tokenizer = LibraryTokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=100))
        tokenizer.normalizer = bert_normalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    tokenizer.add_special_tokens(
        [AddedToken(piece, special=True, normalized=False) for piece in SPECIAL_PIECES + ROLE_PIECES if piece in ids]
    )
    return tokenizer


def library_files(vocab: list[str], spacing: str) -> dict[str, bytes]:
    """File name -> content, for AutoTokenizer.from_pretrained."""
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **{name: piece for name, piece in zip(names, SPECIAL_PIECES, strict=True) if piece in vocab},
    }
    return {
        "tokenizer.json": library_tokenizer(vocab, spacing).to_str().encode(),
        "tokenizer_config.json": (json.dumps(config, indent=1) + "\n").encode(),
    }


def _decoder() -> decoders.Decoder:
    def replace(pattern: str, content: str) -> decoders.Decoder:
        return decoders.Replace(Regex(pattern), content)

    return decoders.Sequence(
        [
            replace(r"\A(?!##.|\[LF\]\z|\[SP\]\z|<0x[0-9A-F]{2}>\z)", _SPACE),
            replace(r"\A##(?=.)", ""),
            replace(r"\A\[LF\]\z", "\n" + _JOIN),
            replace(r"\A\[SP\]\z", " " + _JOIN),
            decoders.ByteFallback(),
            decoders.Fuse(),
            replace(f"(?:\\A|{_JOIN}){_SPACE}", ""),
            replace(_JOIN, ""),
            replace(_SPACE, " "),
        ]
    )

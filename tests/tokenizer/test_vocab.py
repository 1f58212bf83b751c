"""Vocabularies as users have them: tokenizer.json alone, a byte order mark, decomposed Hangul."""

import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers

from kogpt.common.errors import UserError
from kogpt.tokenizer.vocab import base_vocabulary

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "학교", "##에", "가", "a"]


def vocab_txt(folder: Path, text: str) -> str:
    (folder / "vocab.txt").write_text(text, encoding="utf-8", newline="")
    return str(folder)


def test_a_folder_as_transformers_saves_it(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, BertTokenizerFast

    vocab_txt(tmp_path, "\n".join(TOKENS) + "\n")
    BertTokenizerFast.from_pretrained(tmp_path, do_lower_case=False).save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").convert_ids_to_tokens(4) == "학교"
    (tmp_path / "saved" / "vocab.txt").unlink(missing_ok=True)
    vocab, source = base_vocabulary(str(tmp_path / "saved"))
    assert vocab[: len(TOKENS)] == TOKENS
    assert set(vocab[len(TOKENS) :]) <= {"[MASK]"}
    assert source == "saved"


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (Tokenizer(models.BPE()), "not a WordPiece tokenizer"),
        (Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")), r"lacks \[PAD\]"),
        (None, "is damaged"),
    ],
)
def test_another_tokenizer_json_is_a_sentence(tmp_path: Path, tokenizer: Tokenizer | None, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps([1]) if tokenizer is None else tokenizer.to_str())
    with pytest.raises(UserError, match=message):
        base_vocabulary(str(tmp_path))


def test_an_uncased_tokenizer_json_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    with pytest.raises(UserError, match="uncased"):
        base_vocabulary(str(tmp_path))


def test_a_byte_order_mark_is_no_part_of_the_first_token(tmp_path: Path) -> None:
    assert base_vocabulary(vocab_txt(tmp_path, "\ufeff" + "\n".join(TOKENS) + "\n"))[0] == TOKENS


def test_decomposed_hangul_is_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"decomposed \(NFD\).*NFC"):
        base_vocabulary(vocab_txt(tmp_path, unicodedata.normalize("NFD", "\n".join(TOKENS))))
    jamo = "\n".join([*TOKENS, "\u1100\u1161", "##\u1161", "\u1112\u119e"])
    assert len(base_vocabulary(vocab_txt(tmp_path, jamo))[0]) == len(TOKENS) + 3

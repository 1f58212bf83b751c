"""tokenizer.json without us: raw text in, the tokens of an uncut text out, and the same text back."""

import re
from pathlib import Path

import pytest
from builders import SHARED, articles_of, constitution, make_tokenizer, needs_shared
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.hf import CUT, library_names, library_pieces
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.pieces import ROLE_PIECES, SPECIAL_PIECES
from kogpt.tokenizer.vocab import base_vocabulary
from kogpt.tokenizer.wordpiece import Tokenizer, load_tokenizer

LITERAL = re.compile("|".join(map(re.escape, (*SPECIAL_PIECES, *ROLE_PIECES))))
# Plain tokens without a continuation, continuations without a plain token, beginnings of several characters, and what
# no text may match.
ODD = """[PAD] [UNK] [CLS] [SEP] [MASK] ## ##가 [unused1] \u3000 <0x41> [LF [S 가 나 학교 ##교 한 ##글 ##. ##, ##x ab
##a ##[CLS] ##漢 ### # ##é Ġ ā ##Ā"""


def odd(folder: Path) -> Tokenizer:
    (folder / "vocab.txt").write_text("\n".join(re.split("[ \n]", ODD)) + "\n", encoding="utf-8")
    return load_tokenizer(str(folder), spacing="original", analyzer={"name": "none"})


@pytest.fixture(scope="module", params=["odd", "trained"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return odd(tmp_path_factory.mktemp("odd")) if request.param == "odd" else make_tokenizer(constitution(), 500)


@pytest.fixture(scope="module")
def library(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("library")
    tokenizer.save(folder)
    return AutoTokenizer.from_pretrained(folder)


def uncut(tokenizer: Tokenizer, text: str) -> list[int]:
    """What preprocessing with the analyzer `none` writes."""
    text = normalize(text)[0]
    return tokenizer.encode(text, load_analyzer("none").analyze(text))


TEXTS = st.lists(
    st.one_of(
        st.text(
            st.one_of(
                st.characters(exclude_categories=["Cs"]),
                st.sampled_from(
                    "가나학교한글 \n\t\r\x00\u3000\xa0.,#[]ab<0x>é漢뷁👍\u1100\u1161\u11a8\u0301\u200dĠāĂ\ufdd0"
                ),
            ),
            max_size=5,
        ),
        st.sampled_from(
            [
                "  ",
                "\n\n",
                "\r\n",
                "학교에",
                "##가",
                "[LF]",
                "[SP]",
                "<0x0A>",
                "[CLS]",
                "[END]",
                "👨\u200d👩",
                "가" * 129,
            ]
        ),
    ),
    max_size=12,
).map("".join)


@given(TEXTS)
@settings(max_examples=400)
@example(". .가 漢 漢가 x\n.")
@example("[CLS] 가[SEP]나 [END]\n가")
def test_raw_text_gives_our_tokens_and_comes_back(
    tokenizer: Tokenizer, library: PreTrainedTokenizerFast, text: str
) -> None:
    text = text.replace(CUT, "")
    ids = library.encode(text)
    # For the library these are special, wherever they are.
    texts, marks = LITERAL.split(text), [*LITERAL.findall(text), ""]
    if re.search("[^ \n]{128}", text) is None:
        own = [[tokenizer.vocab.index(mark)] if mark else [] for mark in marks]
        parts = zip((uncut(tokenizer, part) for part in texts), own, strict=True)
        assert ids == [i for part, mark in parts for i in (*part, *mark)]
    assert library.decode(ids) == "".join(normalize(part)[0] + mark for part, mark in zip(texts, marks, strict=True))


def test_decodes_what_no_encoder_wrote(tokenizer: Tokenizer, library: PreTrainedTokenizerFast) -> None:
    pieces = [
        "[CLS]",
        "##.",
        "가",
        "<0xEB>",
        "[PAD]",
        "<0xB7>",
        "나",
        "<0xFF>",
        "[SP]",
        "나",
        "<0x20>",
        "나",
        "[LF]",
        "나",
    ]
    ids = [tokenizer.vocab.index(piece) for piece in pieces if piece in tokenizer.vocab]
    assert library.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    for i in range(tokenizer.vocab_size):
        if tokenizer.vocab[i] not in (*SPECIAL_PIECES, *ROLE_PIECES, "<0x00>", "<0x01>", "<0x02>"):
            word = tokenizer.vocab.index("가")
            assert library.decode([word, i, word]) == tokenizer.decode([word, i, word])


def test_names_lead_back_to_the_vocabulary(
    tokenizer: Tokenizer, library: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    names = library_names(tokenizer.vocab)
    assert len(set(names)) == tokenizer.vocab_size == len(library)
    assert library_pieces(names) == tokenizer.vocab
    library.save_pretrained(tmp_path)  # as TRL does, without vocab.txt
    (tmp_path / "vocab.txt").unlink(missing_ok=True)
    assert base_vocabulary(str(tmp_path))[0] == tokenizer.vocab
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.encode("가  나\n한글 뷁.") == library.encode("가  나\n한글 뷁.")


@needs_shared
@pytest.mark.parametrize("name", ["kr-medium", "trained"])
def test_1000_articles(name: str, tmp_path: Path) -> None:
    texts = articles_of(SHARED / "articles.jsonl.gz", 1000, every=10)
    if name == "trained":
        tokenizer = make_tokenizer(texts[:200], 4000)
    else:
        tokenizer = load_tokenizer(str(SHARED / "tokenizer" / name), spacing="original", analyzer={"name": "none"})
    tokenizer.save(tmp_path)
    library = AutoTokenizer.from_pretrained(tmp_path)
    for text in texts:
        ids = library.encode(text)
        assert library.decode(ids) == text
        assert ids == uncut(tokenizer, text)

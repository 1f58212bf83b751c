"""No text becomes a control token, whatever the analyzer and spacing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.pieces import ROLE_PIECES, SPECIAL_PIECES
from kogpt.tokenizer.wordpiece import SPACINGS, Tokenizer, load_tokenizer

CONTROLS = (*SPECIAL_PIECES, *ROLE_PIECES)
PIECES = [
    *SPECIAL_PIECES,
    "[USER]",
    "[",
    "]",
    "SEP",
    "PAD",
    "CLS",
    "S",
    "##E",
    "##P",
    "[SEP",
    "가",
    "##가",
    "##]",
    "#",
    "<",
    "0x0A",
    "LF",
]
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [*CONTROLS, "[LF]", "[SP]", "<0x0A>", "##[SEP]", "[[SEP]]", "[SEP", "[END", "가", " ", "\n", "\u200b"]
        ),
        st.text(st.one_of(st.characters(), st.sampled_from("[]SEPCLADMK#<>0x가")), max_size=6),
    ),
    max_size=12,
).map("".join)


@pytest.fixture(scope="module", params=SPACINGS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("vocabulary")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return load_tokenizer(str(folder), spacing=request.param, analyzer={"name": "none"})


def controls(tokenizer: Tokenizer, text: str, analyzer: str) -> set[str]:
    """The control tokens in the encoded text. [UNK] counts only for the spacing that never needs it."""
    text = normalize(text)[0]
    ids = tokenizer.encode(text, load_analyzer(analyzer).analyze(text))
    forbidden = {*CONTROLS} - ({"[UNK]"} if tokenizer.spacing == "morphemes" else set())
    if tokenizer.spacing == "morphemes":
        assert not {"[LF]", "[SP]"} & set(tokenizer.tokens(ids))
    return forbidden & set(tokenizer.tokens(ids))


@given(TEXTS)
@settings(max_examples=400)
def test_text_is_never_a_control_token(tokenizer: Tokenizer, text: str) -> None:
    assert not controls(tokenizer, text, "none")


@pytest.mark.parametrize("analyzer", ["none", "kkma"])
def test_the_controls_by_name(tokenizer: Tokenizer, analyzer: str) -> None:
    text = "가 [SEP][CLS] [PAD]가[MASK] [UNK] ##[SEP] [[SEP]] [sep] [ASSISTANT]가[END] [RESERVED_1]"
    assert not controls(tokenizer, text, analyzer)
    if tokenizer.spacing == "morphemes" and analyzer == "none":
        text = normalize("[SEP] [UNK]")[0]
        ids = tokenizer.encode(text, load_analyzer("none").analyze(text))
        assert tokenizer.tokens(ids) == ["[", "SEP", "]", "[", "[UNK]", "]"]

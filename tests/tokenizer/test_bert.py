"""BERT's words and WordPiece, compared with the `tokenizers` library."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from kogpt.tokenizer.bert import BertWords, bert_normalizer, bert_words

VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "가",
    "##나",
    "가나",
    "나",
    "[",
    "]",
    "SEP",
    "a",
    "##a",
    "漢",
    ".",
    "#",
    "P",
]
IDS = {piece: i for i, piece in enumerate(VOCAB)}
TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from("가나[]SEPa漢.# \u200b\u0301\ufffd\t\x85\xa0\u3000\u2028\xad$+")),
    max_size=40,
)


def library():
    tokenizer = Tokenizer(models.WordPiece(IDS, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer, tokenizer.pre_tokenizer = bert_normalizer(), pre_tokenizers.BertPreTokenizer()
    return tokenizer


@given(TEXTS)
@settings(max_examples=500)
def test_words_and_tokens_are_the_librarys(text):
    text = text.encode("utf-8", "ignore").decode()
    normal = bert_normalizer().normalize_str(text)
    assert bert_words(text) == [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal)]
    words = BertWords(IDS, 1)
    assert [token for word in bert_words(text) for token in words[word]] == library().encode(text).ids


def test_every_block_of_unicode_is_classified_as_the_library_does_it():
    codes = [code for code in range(0, 0x110000, 7) if not 0xD800 <= code < 0xE000 and chr(code).isprintable()]
    text = " ".join(f"a{chr(code)}b" for code in codes[:20_000])
    normal = bert_normalizer().normalize_str(text)
    assert bert_words(text) == [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal)]


def test_the_limit_of_a_word():
    words = BertWords(IDS, 1)
    assert words["a" * 100] == (IDS["a"], *[IDS["##a"]] * 99)
    assert words["a" * 101] == words["a뷁"] == (1,)

"""WordPiece: lossless for every text, equal to the libraries that read its files, and deterministic."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from builders import SHARED, articles_of, bills, constitution, needs_shared
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kogpt.common.errors import UserError
from kogpt.tokenizer import wordpiece
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.analyzers.load import load_analyzer
from kogpt.tokenizer.normalize import normalize
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import StreamDecoder, Tokenizer, load_tokenizer, open_tokenizer
from preprocess import stages
from preprocess.stages import ids_key

NONE = {"name": "none"}
BASE = """[PAD] [UNK] [CLS] [SEP] [MASK] ## ##가 [unused1] \u3000 <0x41> [LF 가 나 다 갔 었 한 글 하 학 교 는 은 을
. , # [ ] L F S P < 0 x > a b 학교 ##에 ##다 한글 ##었다 ##었 ##LF] ##] ### 하다 갔다 ##\u1100""".replace(
    "\n", " "
).split(" ")
TRICKY = [
    "", " ", "\n", " \n ", "  가", "가  ", "가 \n 나", "가\n\n\n나", "[LF]", "가 [SEP] [SP] [PAD]", "##가 ## #",
    "<0x0A> <0x41>", "👨‍👩‍👧 이모지👍🏽", "漢字 한자", unicodedata.normalize("NFD", "각 낳다"), "\u1112\u119e\u11ab글",
    "\t탭\t", "가\u3000나\xa0다", "e\u0301 가\u0301", "ㅋㅋㅋ ㄷㄷ", "뷁 뷁가 가뷁나", "가" * 300,
]  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return load_folder(BASE)


def load_folder(pieces, spacing="original"):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8", newline="")
        return load_tokenizer(folder, spacing=spacing, analyzer=NONE)


@pytest.fixture(scope="module")
def own_bert(tmp_path_factory):
    """A BERT vocabulary of our own, trained on our texts by the library that defines WordPiece."""
    from tokenizers import BertWordPieceTokenizer

    library = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    library.train_from_iterator([*constitution(), *bills()], vocab_size=2000, show_progress=False)
    folder = tmp_path_factory.mktemp("bert")
    library.save_model(str(folder))
    return folder


VOCABULARIES = pytest.mark.parametrize(
    "name", ["own", *(pytest.param(name, marks=needs_shared) for name in ("kr-medium", "kr-bert-char16424"))]
)


def articles(count):
    """Real ones where there are any, else the law and the bills."""
    path = SHARED / "articles.jsonl.gz"
    return articles_of(path, count) if path.exists() else [*constitution(), *bills()][:count]


def random_cuts(text, seed):
    places = random.Random(seed).sample(range(1, len(text)), len(text) // 3) if len(text) > 1 else []
    return Analysis(sorted(places), [], None)


@st.composite
def cut_texts(draw):
    alphabet = st.one_of(
        st.characters(), st.sampled_from("가나다갔었한글 \n\t#[]LFSP<0x>뷁👍漢\u1100\u1161\u11a8\u0301\u200d")
    )
    words = st.sampled_from(["[LF]", "[SP]", "[SEP]", "##가", "<0x0A>", "  ", "\n\n", "학교에"])
    text = "".join(draw(st.lists(st.one_of(st.text(alphabet, max_size=4), words), max_size=12)))
    text, _ = normalize(text)
    cuts = draw(st.sets(st.integers(1, len(text) - 1))) if len(text) > 1 else set()
    return text, Analysis(sorted(cuts), [], None)


def check_lossless(tokenizer, text, analysis):
    ids = tokenizer.encode(text, analysis)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id} & set(ids)
    decoder = StreamDecoder(tokenizer)
    assert "".join([decoder.push(i) for i in ids]) + decoder.flush() == text
    return ids


@given(cut_texts())
@settings(max_examples=400)
@example(("##가", Analysis([], [], None)))
def test_lossless_for_every_text_and_cuts_and_equal_to_the_library(small, cut_text):
    text, analysis = cut_text
    ids = check_lossless(small, text, analysis)
    library = small._library
    assert library.encode(small.presegment(text, analysis), add_special_tokens=False).ids == ids
    assert library.decode(ids) == text


@given(cut_texts())
@example(("가 뷁", Analysis([], [], None)))
def test_two_halves_are_the_whole(small, cut_text):
    text, whole = cut_text[0], Analysis([], [], None)
    for k in range(1, len(text)):
        if text[k] == " " and text[k - 1] not in " \n":
            halves = small.encode(text[:k], whole) + small.after_others(small.encode(text[k:], whole))
            assert halves == small.encode(text, whole)


@pytest.mark.parametrize("text", TRICKY)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_lossless_tricky(small, text, seed):
    text, _ = normalize(text)
    check_lossless(small, text, Analysis([], [], None) if seed is None else random_cuts(text, seed))


def pieces(tokenizer, text, cuts=()):
    return tokenizer.tokens(tokenizer.encode(text, Analysis(list(cuts), [], None)))


def test_pieces_by_rule(small):
    assert pieces(small, "학교에 갔었다", [2, 4, 5]) == ["학교", "##에", "갔", "##었다"]
    assert pieces(small, "갔었다", [1, 2]) == ["갔", "##었", "##다"]
    assert pieces(small, "가  나\n다 ") == ["가", "[SP]", "[SP]", "나", "[LF]", "다", "[SP]"]
    # a character without a token becomes bytes; at the start of an eojeol its space is explicit
    assert pieces(small, "가 뷁다 나") == ["가", "[SP]", "<0xEB>", "<0xB7>", "<0x81>", "##다", "나"]
    assert pieces(small, "[LF]") == ["[LF", "##]"]
    assert pieces(small, "##가") == ["#", "###", "##가"]
    assert pieces(small, "\u3000") == ["<0xE3>", "<0x80>", "<0x80>"]
    assert pieces(small, "A") == ["<0x41>"]


def test_vocabulary_is_the_base_one_with_its_ids(small):
    assert small.vocab[: small.base_size] == BASE
    added = small.vocab[small.base_size :]
    assert added[:2] == ["[LF]", "[SP]"]
    assert "<0x41>" not in added
    assert {"##나", "##a"} <= set(added)
    assert tuple(added[-len(ROLE_PIECES) :]) == ROLE_PIECES
    assert "##다" not in added
    assert small.pad_id == 0
    assert small.vocab_size == len(small.vocab) == len(set(small.vocab))


def test_vocab_txt_is_read_by_lines_whatever_they_hold(tmp_path):
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "가", "\u2028", "\x85", "나"]
    for end, last in (("\n", "\n"), ("\r\n", "\r\n"), ("\n", "")):
        (tmp_path / "vocab.txt").write_bytes((end.join(pieces) + last).encode())
        tokenizer = load_tokenizer(str(tmp_path), spacing="morphemes", analyzer=NONE)
        assert tokenizer.vocab == [*pieces, *ROLE_PIECES]


def test_long_words_are_split_in_linear_time(small):
    text = "학교" * 50_000
    ids = small.encode(text, Analysis([], [], None))
    assert small.decode(ids) == text
    assert small.count_unknown(ids) == 0


def test_decode_of_what_no_encoder_wrote(small):
    ids = {piece: i for i, piece in enumerate(small.vocab)}
    sequence = ["[CLS]", "##다", "가", "<0xEB>", "[PAD]", "<0xB7>", "나", "[SEP]", "<0xFF>", "[MASK]", "##다", "[UNK]"]
    assert small.decode([ids[piece] for piece in sequence]) == "다 가\ufffd 나\ufffd다 [UNK]"
    decoder = StreamDecoder(small)
    pushed = [decoder.push(ids[f"<0x{byte:02X}>"]) for byte in "👍".encode()]
    assert pushed == ["", "", "", "👍"]
    assert decoder.push(ids["<0xF0>"]) == ""
    assert decoder.flush() == "\ufffd"


def test_count_unknown(small):
    ids = small.encode("가 뷁", Analysis([], [], None))
    assert small.count_unknown(ids) == 3
    assert small.count_unknown([small.unk_id, small.pad_id]) == 1


def test_save_and_open(small, tmp_path):
    small.save(tmp_path / "a")
    again = open_tokenizer(tmp_path / "a")
    assert (again.vocab, again.sha256, again.spacing, again.analyzer, again.source, again.base_size) == (
        small.vocab, small.sha256, small.spacing, small.analyzer, small.source, small.base_size,
    )  # fmt: skip
    again.save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    vocab = tmp_path / "a" / "vocab.txt"
    vocab.write_bytes(vocab.read_bytes().replace("학교".encode(), "학꾜".encode()))
    with pytest.raises(UserError, match="is not the vocabulary"):
        open_tokenizer(tmp_path / "a")
    (tmp_path / "b" / "kogpt.json").unlink()
    with pytest.raises(UserError, match="not a saved tokenizer"):
        open_tokenizer(tmp_path / "b")


def test_refusals(tmp_path, monkeypatch):
    def load(name, spacing="original"):
        return load_tokenizer(str(name), spacing=spacing, analyzer=NONE)

    with pytest.raises(UserError, match=r"neither vocab\.txt nor tokenizer\.json"):
        load(tmp_path)
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\nhello\n")
    with pytest.raises(UserError, match=r"lacks \[PAD\], \[SEP\]"):
        load(tmp_path)
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    with pytest.raises(UserError, match="uncased"):
        load(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match="no such folder"):
        load(tmp_path / "absent")
    (tmp_path / "vocab.txt").write_text("\n".join(BASE) + "\n")
    with pytest.raises(UserError, match="--spacing"):
        load(tmp_path, spacing="wide")


def test_unreachable_hub_is_one_sentence_at_once(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be reached; .*FOLDER.*--vocab-size SIZE"):
        load_tokenizer("kogpt-tests/not-there", spacing="original", analyzer=NONE)


def test_a_name_on_the_hub_goes_through_transformers_and_its_cache(tmp_path):
    """The cache looks like after a download. In a separate process, because the libraries read HF_HOME once."""
    cache = tmp_path / "hub" / "models--someone--some-bert"
    snapshot = cache / "snapshots" / "0123456789012345678901234567890123456789"
    snapshot.mkdir(parents=True)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(snapshot.name)
    (snapshot / "config.json").write_text('{"model_type": "bert"}')
    (snapshot / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    pieces = [piece for piece in BASE if not piece.isspace()]  # transformers strips the lines
    (snapshot / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    code = (
        "import json; from kogpt.tokenizer.wordpiece import load_tokenizer;"
        "t = load_tokenizer('someone/some-bert', spacing='morphemes', analyzer={});"
        "print(json.dumps([t.vocab[:t.base_size], t.source]))"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [pieces, "someone/some-bert"]


def load(name, own_bert, spacing):
    """(a tokenizer of ours, transformers' BERT) on the same vocabulary."""
    from transformers import BertTokenizerFast

    folder = str(own_bert if name == "own" else SHARED / "tokenizer" / name)
    ours = load_tokenizer(folder, spacing=spacing, analyzer=NONE)
    return ours, BertTokenizerFast.from_pretrained(folder, do_lower_case=False)


@VOCABULARIES
def test_morphemes_equal_bert(name, own_bert):
    ours, theirs = load(name, own_bert, "morphemes")
    assert ours.vocab_size == ours.base_size + len(ROLE_PIECES) == theirs.vocab_size + len(ROLE_PIECES)
    for text in [*articles(60), *TRICKY, "É ǅ naïve 東京 " + "x" * 150]:
        morphemes = normalize(text)[0].split()
        expected = theirs(" ".join(morphemes), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        ids = ours.encode(text, Analysis([], morphemes, None))
        assert ids == expected
        assert ours.count_unknown(ids) == expected.count(ours.unk_id)


@VOCABULARIES
def test_articles_lossless_and_equal_to_transformers(name, own_bert, tmp_path):
    from transformers import AutoTokenizer

    ours, _ = load(name, own_bert, "original")
    ours.save(tmp_path)
    library = AutoTokenizer.from_pretrained(tmp_path)
    assert len(library) == ours.vocab_size
    for seed, text in enumerate(articles(60)):
        for analysis in (Analysis([], text.split(), None), random_cuts(text, seed)):
            ids = check_lossless(ours, text, analysis)
            assert library(ours.presegment(text, analysis), add_special_tokens=False)["input_ids"] == ids
            assert library.decode(ids) == text


@VOCABULARIES
def test_costs_little_against_plain_wordpiece_on_the_same_cuts(name, own_bert):
    """Plain: every token is a word of its own, unknown ones become [UNK], line ends are lost."""
    ours, plain = load(name, own_bert, "original")
    analyzer = load_analyzer("kiwi")
    tokens = plain_tokens = 0
    for text in constitution() if name == "own" else articles(40):
        analysis = analyzer.analyze(text)
        bounds = [0, *analysis.cuts, len(text)]
        surface = " ".join(text[a:b] for a, b in pairwise(bounds))
        tokens += len(ours.encode(text, analysis))
        plain_tokens += len(plain(surface, add_special_tokens=False)["input_ids"])
    assert tokens <= 1.1 * plain_tokens


@pytest.mark.parametrize("name", ["wordpiece.py", "pieces.py", "bert.py", "chat.py", "hf.py"])
def test_tokens_are_kept_under_a_key_that_follows_the_code(name, small, tmp_path, monkeypatch):
    """hf.py writes tokenizer.json, on which no token of ours depends."""
    before = ids_key(["unit"], small)
    assert ids_key(["unit"], small) == before
    room = shutil.copytree(Path(wordpiece.__file__).parent, tmp_path / "tokenizer")
    with (room / name).open("ab") as file:
        file.write(b"#")
    monkeypatch.setattr(wordpiece, "__file__", str(room / "wordpiece.py"))
    monkeypatch.setattr(stages, "encoder_digest", wordpiece.encoder_digest.__wrapped__)
    assert (ids_key(["unit"], small) == before) == (name == "hf.py")


def test_a_tokenizer_needs_a_known_spacing():
    with pytest.raises(UserError, match="original, morphemes"):
        Tokenizer(BASE, spacing="", analyzer=NONE, source="x", base_size=len(BASE))

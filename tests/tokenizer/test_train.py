"""Training a vocabulary: deterministic, cased, with continuations, compared with the library's own trainer."""

import random

import pytest

from kogpt.common.errors import UserError
from kogpt.tokenizer.analyzers.analysis import Analysis
from kogpt.tokenizer.pieces import ROLE_PIECES
from kogpt.tokenizer.wordpiece import train_tokenizer

NONE = {"name": "none"}


def random_cuts(text, seed):
    places = random.Random(seed).sample(range(1, len(text)), len(text) // 3)
    return Analysis(sorted(places), [], None)


def test_training_is_deterministic_cased_and_knows_continuations():
    texts = ["학교에 갔었다 Seoul 학교는 갔다", "학교에서 Seoul 갔었다 한글은 학교"] * 20
    documents = [(text, random_cuts(text, 7)) for text in texts]
    one = train_tokenizer(documents, 300, spacing="original", analyzer=NONE)
    two = train_tokenizer(reversed(documents), 300, spacing="original", analyzer=NONE)
    assert one.vocab == two.vocab
    assert one.vocab[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert one.source == "trained-300"
    assert len(set(one.vocab)) == len(one.vocab)
    cut = [("학교에갔다", Analysis([2, 3], [], None))] * 5
    vocab = train_tokenizer(cut, 300, spacing="original", analyzer=NONE).vocab
    assert {"학교", "##갔다", "##에"} <= set(vocab)
    assert not any("교에" in piece for piece in vocab)
    for text, analysis in documents:
        assert one.decode(one.encode(text, analysis)) == text


def test_training_agrees_with_the_librarys_trainer():
    """Without morpheme boundaries it equals the library's WordPiece training, up to the order of ties."""
    from tokenizers import Tokenizer as LibraryTokenizer
    from tokenizers import models, pre_tokenizers, trainers

    generator = random.Random(0)
    syllables = "가나다라마바사아자차카타파하"
    words = ["".join(generator.choices(syllables, k=generator.randint(2, 5))) for _ in range(300)]
    text = " ".join(words[int(generator.paretovariate(0.6)) % 300] for _ in range(20_000))
    ours = train_tokenizer([(text, Analysis([], [], None))], 400, spacing="original", analyzer=NONE)
    theirs = LibraryTokenizer(models.WordPiece(unk_token="[UNK]"))
    theirs.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    theirs.train_from_iterator(
        [text],
        trainers.WordPieceTrainer(vocab_size=400, special_tokens=ours.vocab[:5], show_progress=False),
    )
    base = set(ours.vocab[: ours.base_size])
    assert len(base) == 400
    assert len(base & set(theirs.get_vocab())) >= 390


def test_training_for_morphemes_and_refusals():
    documents = [("학교에 갔다.", Analysis([], ["학교", "에", "가", "었", "다", "."], None))] * 4
    tokenizer = train_tokenizer(documents, 300, spacing="morphemes", analyzer=NONE)
    assert tokenizer.vocab_size == tokenizer.base_size + len(ROLE_PIECES)
    ids = tokenizer.encode(*documents[0])
    assert tokenizer.tokens(ids) == ["학교", "에", "가", "었", "다", "."]
    assert tokenizer.decode(ids) == "학교 에 가 었 다 ."
    with pytest.raises(UserError, match="at least 300 tokens"):
        train_tokenizer(documents, 100, spacing="original", analyzer=NONE)
    with pytest.raises(UserError, match="no word"):
        train_tokenizer([("", Analysis([], [], None))], 300, spacing="original", analyzer=NONE)


def test_no_token_has_white_space_which_no_text_would_match():
    text = "대한\t민국\u00a0국민은\u3000법률의\t대한\t민국\n" * 50
    tokenizer = train_tokenizer([(text, Analysis([], [], None))], 300, spacing="original", analyzer=NONE)
    assert [token for token in tokenizer.vocab if any(character.isspace() for character in token)] == []
    assert {"대한", "##민국", "##국민은", "##법률의", "##대한"} <= set(tokenizer.vocab)
    assert tokenizer.decode(tokenizer.encode(text, Analysis([], [], None))) == text


def test_rare_characters_become_bytes_in_a_trained_vocabulary():
    text = "가나다라 " * 4000 + "뷁가"
    tokenizer = train_tokenizer([(text, Analysis([], [], None))], 300, spacing="original", analyzer=NONE)
    assert "뷁" not in tokenizer.vocab
    ids = tokenizer.encode("뷁가 \U0002a6d6", Analysis([], [], None))
    assert tokenizer.decode(ids) == "뷁가 \U0002a6d6"
    assert tokenizer.count_unknown(ids) == 7

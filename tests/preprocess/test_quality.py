"""Quality rules: what each measures, which rule a text breaks first, and the files of thresholds."""

import random
import re
from pathlib import Path

import pytest

from kogpt.common.errors import UserError
from preprocess.quality import RULES, WEB, Limits, Measured, broken_rule, load_thresholds

PROSE = (
    "가을 하늘은 높고 푸르다. 우리는 산에 올라 바람을 맞았다. 멀리 강이 보였고, 배 두 척이 천천히 지나갔다.\n\n"
    "“정말 시원하네!” 하고 친구가 말했다. 나는 대답 대신 물을 건넸다.\n"
)


@pytest.mark.parametrize(
    ("rule", "text", "value"),
    [
        ("length", "  가나다\n", 3),
        ("mean_word_length", "가 나다 라마바", 2),
        ("symbols", "가... 나… #다 라", 0.75),
        ("bullets", "- 가\n· 나\n\n다\n  • 라", 0.75),
        ("ellipsis", "가...\n나…\n다.\n라", 0.5),
        ("korean", "가나 ab ㅋㅋ", 4 / 6),
        ("korean", "漢字와 かな", 1 / 5),
        ("duplicate_lines", "가\n나\n가\n\n가\n", 0.5),
        ("punctuated_lines", "가.\n나\n다!\n“라”\n", 0.75),
        ("new_lines", "가 나\n다 라\n", 0.5),
        ("words_with_letters", "가 12 a1 -- __", 0.4),
        ("stop_words", "나는 학교에, 갔다. 음 예 (꿈을)", 4),
        ("top_2_gram", "가 나 가 나 다", 6 / 9),
        ("top_2_gram", "가 나 다", 0),
        ("top_3_gram", "가 나", 0),
        ("duplicate_5_grams", "가 나 다 라 마 가 나 다 라 마", 9 / 19),
        ("duplicate_6_grams", "가 나 다 라 마 가 나 다 라 마", 0),
    ],
)
def test_what_a_rule_measures(rule: str, text: str, value: float) -> None:
    assert RULES[rule](Measured(text)) == pytest.approx(value)


def test_every_rule_names_its_source_and_bears_any_text() -> None:
    rng = random.Random(0)
    texts = ["", " ", "\n", "가", *("".join(rng.choices("가나 \n.1a#-…", k=60)) for _ in range(50))]
    for name, rule in RULES.items():
        assert re.search("dps|datatrove", rule.__doc__ or ""), name
        for text in texts:
            assert RULES[name](Measured(text)) >= 0


def test_shares_of_repeated_n_grams_against_a_count_by_hand() -> None:
    """Words that an n-gram covers a second time: no word counts twice, and all of a text that is twice the same do."""
    rng = random.Random(1)
    words = [f"낱말{i}" for i in rng.sample(range(10**6), 40)]
    once, twice = Measured(" ".join(words)), Measured(" ".join([*words, *words]))
    for n in (5, 6, 7, 8, 9, 10):
        assert RULES[f"duplicate_{n}_grams"](once) == 0
        assert 0.43 < RULES[f"duplicate_{n}_grams"](twice) <= 0.5


def test_the_first_broken_rule_is_named_with_value_and_excerpt() -> None:
    thresholds = {"length": Limits(5, 100), "korean": Limits(min=0.5)}
    assert broken_rule("가나다라마바", thresholds) is None
    assert broken_rule("a b", thresholds) == ("length", "3 is below 5: a b")
    assert broken_rule("abc def\nghi", thresholds) == ("korean", "0 is below 0.5: abc def ghi")
    assert broken_rule("가" * 101, thresholds) == ("length", f"101 is above 100: {'가' * 60}")


def test_web_keeps_prose_and_drops_junk() -> None:
    web = load_thresholds(WEB)
    assert broken_rule(PROSE, web) is None
    junk = ["ㅋㅋㅋ", "buy cheap pills now and here " * 5, "1 2 3 4 5 6 7 8 9 " * 20]
    junk += ["지금 바로 클릭하고 무료로 받으세요 여러분 " * 30]
    for text in junk:
        assert broken_rule(text, web) is not None, text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("length = {min = 5", "cannot be read"),
        ("lenght = { min = 5 }", "there is no rule lenght; choose from length, "),
        ("length = 5", "length needs min or max or both"),
        ("length = { least = 5 }", "length needs min or max or both"),
        ("length = { min = true }", "length is compared with True; give a number"),
        ('length = { max = "5" }', "length is compared with '5'; give a number"),
    ],
)
def test_mistakes_in_a_file_are_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(content)
    with pytest.raises(UserError, match=f"--quality .*own.toml.*{message}"):
        load_thresholds(tmp_path / "own.toml")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--quality .*/no.toml cannot be read .*; give web, none, or a TOML file"):
        load_thresholds(tmp_path / "no.toml")

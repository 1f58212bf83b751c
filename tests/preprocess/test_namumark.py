"""Namumark to plain text: visible words are kept, in linear time."""

import time

import pytest

from preprocess.namumark import page, plain


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ("[[세종|세종대왕]]은 [[조선]]의 [[왕#s-2]]이다.", "세종대왕은 조선의 왕이다."),
        ("[[파일:a.jpg|width=300]][[분류:왕]]글[* 각주의 [[글]]]이다[각주].", "글이다."),
        ("== 개요 ==\n[목차]\n본문[br]둘째 줄\n===# 접힌 것 #===", "개요\n\n본문\n둘째 줄\n접힌 것"),
        ("'''굵게''' ''기울여'' ~~지움~~ --또-- __밑줄__ 안녕~~", "굵게 기울여 지움 또 밑줄 안녕~~"),
        ("{{{+1 크게}}} {{{#red 붉게}}} {{{#!wiki style=\"x\"\n글}}} {{{그대로}}}", "크게 붉게 글 그대로"),
        (" * 하나\n  * 둘\n 1. 셋\n> 인용\n----\n## 주석\n1. 안 들여 쓴 것", "하나\n둘\n셋\n인용\n1. 안 들여 쓴 것"),
        ("||<tablewidth=100%><|2> 가 || 나 ||\n|| 다 ||", "가   나\n다"),
        ("[include(틀:글, a=[[b]])][[:분류:보임]]", "분류:보임"),
        ("열린 [[ 것과 ]] 닫힌 ] 것, 배열 a[0], {{{ 열림", "열린  것과  닫힌 ] 것, 배열 a[0],  열림"),
        ("#redirect 느낌표\n", ""),
        ("#넘겨주기 느낌표", ""),
    ],
)  # fmt: skip
def test_marks(mark: str, text: str) -> None:
    assert plain(mark) == text


def test_only_articles_are_pages_with_text() -> None:
    assert page({"namespace": "0", "title": "가", "text": "'''가'''"}) == "가"
    assert page({"namespace": 0, "title": "가", "text": "가"}) == "가"
    assert page({"namespace": "1", "title": "틀", "text": "가"}) == ""
    assert page({"text": "가"}) is None
    assert page("가") is None


@pytest.mark.parametrize(
    "hostile", ["[", "{{{", "[[", "[*", "]]", "= ", " * ", "||<", "'''", ">", "~~a", "{{{#a,", "\n", "== x =="]
)
def test_time_grows_as_the_text(hostile: str) -> None:
    texts = [hostile * 60_000, hostile * 20_000 + "가" * 100_000 + {"[": "]", "{": "}}}"}.get(hostile[0], "") * 20_000]
    began = time.process_time()
    for text in texts:
        plain(text)
    assert time.process_time() - began < 3

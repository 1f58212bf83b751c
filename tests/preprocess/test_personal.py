"""Personal data: a planted set with look-alikes, and properties of masks on any text."""

import random
import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from doubling import more_than_linear
from hypothesis import given
from hypothesis import strategies as st

from preprocess.personal import MASKS, corporate_check_digit, find, mask, resident_check_digit

ENOUGH = 60
"""Sentences of each form."""


def number(rng: random.Random, form: str) -> str:
    """The form with a digit for each #."""
    return "".join(str(rng.randint(0, 9)) if c == "#" else c for c in form)


def resident(rng: random.Random, centuries: str, checked: bool) -> str:
    year, month, day, century = rng.randint(0, 99), rng.randint(1, 12), rng.randint(1, 28), rng.choice(centuries)
    digits = f"{year:02}{month:02}{day:02}{century}" + number(rng, "#####")
    last = resident_check_digit([int(c) for c in digits], foreigner=century in "5678") if checked else rng.randint(0, 9)
    return f"{digits[:6]}-{digits[6:]}{last}"


def card(rng: random.Random, form: str) -> str:
    digits = number(rng, form[:-1])
    for last in "0123456789":
        doubled = [int(c) for c in reversed(digits + last) if c.isdigit()]
        if sum(d if i % 2 == 0 else sum(map(int, str(2 * d))) for i, d in enumerate(doubled)) % 10 == 0:
            return digits + last
    raise AssertionError


def isbn(rng: random.Random) -> str:
    digits = "979" + number(rng, "11#######")[:9]
    return digits + str(-sum(int(d) * (1 + 2 * (i % 2)) for i, d in enumerate(digits)) % 10)


def corporate(rng: random.Random) -> str:
    digits = number(rng, "110111######")
    return f"{digits[:6]}-{digits[6:]}{corporate_check_digit([int(c) for c in digits])}"


Maker = Callable[[random.Random], str]


def form(form: str) -> Maker:
    return lambda rng: number(rng, form)


PLANTED: list[tuple[str, str, Maker]] = [
    ("resident_number", "주민등록번호는 {}입니다.", lambda rng: resident(rng, "1234", True)),
    ("resident_number", "신청인 김철수({}), 서울 거주", lambda rng: resident(rng, "1234", False)),
    ("resident_number", "성명: 이영희 {} 여", lambda rng: resident(rng, "12", True).replace("-", " ")),
    ("resident_number", "주민번호 {}", lambda rng: resident(rng, "34", False).replace("-", "")),
    ("foreigner_number", "외국인등록번호 {}을 적으세요.", lambda rng: resident(rng, "5678", True)),
    ("foreigner_number", "체류자 응우옌 {}", lambda rng: resident(rng, "5678", False)),
    ("passport", "여권번호 {}로 예약했다.", form("M########")),
    ("passport", "Passport No. {}", form("M###A####")),
    ("driving_license", "면허증 {} 소지자", form("13-##-######-##")),
    ("driving_license", "운전면허번호: {}", form("26##########")),
    ("driving_license", "{} 1종 보통", form("경기 ##-######-##")),
    ("mobile_phone", "제 번호는 {}이에요.", form("010-9###-####")),
    ("mobile_phone", "문자 주세요 {}", form("0109#######")),
    ("mobile_phone", "연락처: {}", form("010 9### ####")),
    ("mobile_phone", "Mobile {}", form("+82-10-9###-####")),
    ("mobile_phone", "옛날 폰 {} 입니다", form("011-9##-####")),
    ("phone", "사무실은 {}이고", form("02-9##-####")),
    ("phone", "전화 {}번으로", form("(031) 9##-####")),
    ("phone", "T. {} 내선 2", form("051.9##.####")),
    ("phone", "연락처 {}", form("0629######")),
    ("phone", "인터넷전화 {}", form("070-9###-####")),
    ("card", "카드번호 {} 유효기간 08/27", lambda rng: card(rng, "4###-####-####-####")),
    ("card", "결제: {}", lambda rng: card(rng, "9###############")),
    ("card", "아멕스 {}", lambda rng: card(rng, "37## ###### #####")),
    ("bank_account", "국민은행 {} 홍길동", form("######-##-######")),
    ("bank_account", "계좌번호: {}", form("110-###-######")),
    ("bank_account", "{} 카카오뱅크로 보내 주세요", form("3333-##-#######")),
    ("bank_account", "입금은 농협 {}", form("3############")),
    ("email", "{}로 보내라.", lambda rng: number(rng, "hong.gil##@naver.com")),
    ("email", "메일주소<{}>", lambda rng: number(rng, "a##_b-c@mail.korea.ac.kr")),
    ("ip", "접속 IP는 {}였다.", lambda rng: ".".join(str(rng.randint(101, 125)) for _ in range(4))),
    ("ip", "({}에서 편집함)", lambda rng: f"211.{rng.randint(1, 255)}.{rng.randint(1, 255)}.{rng.randint(1, 255)}"),
    ("ip", "서버 {} 응답 없음", lambda rng: f"2406:da12:{rng.randint(1, 9999)}::{rng.randint(1, 99)}"),
]
"""kind, sentence, number"""

LOOK_ALIKES: list[tuple[str, Maker]] = [
    ("ISBN {} (양장)", isbn),
    ("ISBN {}", form("978-89-9##-####-#")),
    ("ISBN {}", form("89-9##-####-#")),
    ("{}부터 시행한다.", form("20##-11-23")),
    ("기간은 {}", form("2021. 11. 23.~2022. 12. 2#.")),
    ("{} 접수", form("202311231#2#3#")),
    ("사업자등록번호 {}", form("9##-##-#####")),
    ("상호 가나다, 사업자번호: {}", form("9##-##-#####")),
    ("법인등록번호 {}", corporate),
    ("주식회사 가나다({})", corporate),
    ("가격은 {}원이다.", form("9,###,###,###")),
    ("은행의 자산은 {}원", form("9############")),
    ("대법원 {} 판결", form("201#다2#####")),
    ("법률 제{}호, 2020. 10. 20.", form("1####")),
    ("헌재 {} 결정", form("2019헌바1##, 2020헌마2## (병합)")),
    ("버전 {} 출시", form("9.#.1#.2#")),
    ("Chrome {}", form("96.0.4664.1##")),
    ("v{}에서 고쳤다", form("12.9.1##.2##")),
    ("Firefox {}", form("115.0.2#.1#")),
    ("효소 EC {}", form("3.4.21.1#")),
    ("제{}조의2", form("1.2.3.4")),
    ("상품코드 {}", form("8809#########")),
    ("주문번호 {}", form("201128-19#####")),
    ("송장번호 {}", form("9###-####-####")),
    ("특허 {}호", form("10-2019-00#####")),
    ("우편번호 {}", form("0####")),
    ("좌표 {}", form("37.5####, 126.9####")),
    ("대표번호 {}", form("1588-####")),
    ("원주율 {}", form("3.14159265358979#####")),
    ("모델 {}", form("M########")),
    ("{} 저장소", lambda rng: "git@github.com"),
    ("예: {}", lambda rng: "user@example.com"),
    ("사설 주소 {}", form("192.168.0.1##")),
    ("경기 결과 {}", form("21-19, 18-21, 15-1#")),
    ("UUID {}", form("550e8400-e29b-41d4-a716-44665544####")),
]


def test_planted_numbers_are_found_and_look_alikes_are_not() -> None:
    rng = random.Random(0)
    right = wrong = missed = 0
    faults = set()
    for kind, sentence, make in PLANTED * ENOUGH:
        secret = make(rng)
        text = f"오늘은 2020년 11월 28일이다. {sentence.format(secret)} 그렇게 말했다."
        found = [(one.kind, text[one.start : one.end].strip("(")) for one in find(text)]
        hit = (kind, secret.strip("(")) in found
        right, missed, wrong = right + hit, missed + (not hit), wrong + len(found) - hit
        faults |= {(kind, text)} if not hit or len(found) > 1 else set()
    for sentence, make in LOOK_ALIKES * ENOUGH:
        text = f"오늘은 2020년 11월 28일이다. {sentence.format(make(rng))} 그렇게 말했다."
        found = [(one.kind, text[one.start : one.end]) for one in find(text)]
        wrong += len(found)
        faults |= {(str(found), text)} if found else set()
    assert right / (right + missed) >= 0.99, "\n".join(map(str, sorted(faults)[:40]))
    assert right / (right + wrong) >= 0.98, "\n".join(map(str, sorted(faults)[:40]))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("전화 02-123-4567, 010-1234-5678로", "전화 [전화번호], [휴대전화번호]로"),
        ("계좌 110-123-456789, 220-123-456789", "계좌 [계좌번호], [계좌번호]"),
        ("a@b.co.kr와 example@example.com", "[이메일]와 example@example.com"),
        ("901301-1234567 901231-1234567", "901301-1234567 [주민등록번호]"),
        ("여권 M12345678", "여권 [여권번호]"),
        ("모델 M12345678", "모델 M12345678"),
        ("\x1d번호는 010-1234-5678\x1e010-8765-4321이군요", "\x1d번호는 [휴대전화번호]\x1e[휴대전화번호]이군요"),
    ],
)
def test_masks_name_the_kind(text: str, masked: str) -> None:
    assert mask(text)[0] == masked


_PIECES = [
    "010-1234-5678",
    "02-123-4567",
    "계좌 ",
    "여권 M12345678",
    "M123A4567",
    " 110-123-456789",
    "0212345678",
    "-",
    ".",
]
_PIECES += [
    "1.2.3.4",
    "211.1.2.3",
    "a@b.com",
    "은행",
    "전화",
    "[",
    " ",
    ",",
    "원",
    "1",
    "900101-1234567",
    "4000",
    "::",
    "2406:",
]


@given(
    st.one_of(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join), st.text("0123456789-.: @Ma원", max_size=60))
)
def test_a_masked_text_has_no_finding_and_the_rest_is_untouched(text: str) -> None:
    masked, counts = mask(text)
    assert find(masked) == []
    assert mask(masked)[0] == masked
    found = find(text)
    assert all(a.end <= b.start for a, b in pairwise(found))
    assert {one.kind for one in found} <= MASKS.keys() & counts.keys()
    if not found:
        assert masked == text
    for kind, count in counts.items():
        assert masked.count(MASKS[kind]) >= count


@pytest.mark.parametrize("piece", ["1-", "a@", "계좌 1111111111, ", "2000:", "0212345678 "])
def test_no_text_takes_more_than_its_length(piece: str) -> None:
    def seconds(length: int) -> dict[str, float]:
        text = "전화 " + piece * (length // len(piece))
        began = time.process_time()
        mask(text)
        return {"mask": time.process_time() - began}

    assert not more_than_linear(seconds, 100_000)

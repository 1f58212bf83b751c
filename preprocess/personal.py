"""Personal data in Korean text: finds what identifies somebody and replaces it by a mask that names its kind.

In: a normalized text. Out: `find` gives the findings, `mask` the masked text and the number of findings of each kind.
Pure functions. A finding is decided by three things, as a person would: the form, what the form must obey (a date, a
checksum), and, where the form alone says little, the words around it.

- Resident and foreigner numbers: a valid date for the century digit. Numbers issued since October 2020 have no check
  digit, so it is only a score: it decides for 13 digits without a hyphen, and against corporate numbers.
- Cards: Luhn. Driving licenses: the region's code. IPv4: global addresses only, and no version or section numbers.
- Passports and bank accounts look like many other numbers, so they need a word near them, such as "여권" or "계좌".
- E-mail: not the reserved domains (example.com), nor `git@`, the user of every git server.

Sources: 주민등록법 시행규칙 for resident numbers; ISO/IEC 7812 for cards; scores after python-stdnum and presidio.
A conversation is a text with marks between its messages (preprocess.conversations), which no finding spans.
Cost: 0.06 ms for an article of 1,400 characters. Linear in the length of any text.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import NamedTuple

MASKS = {
    "resident_number": "[주민등록번호]",
    "foreigner_number": "[외국인등록번호]",
    "passport": "[여권번호]",
    "driving_license": "[운전면허번호]",
    "mobile_phone": "[휴대전화번호]",
    "phone": "[전화번호]",
    "card": "[카드번호]",
    "bank_account": "[계좌번호]",
    "email": "[이메일]",
    "ip": "[IP주소]",
}
"""kind -> mask"""


class Found(NamedTuple):
    """A finding: text[start:end] is personal data of a kind of `MASKS`."""

    kind: str
    start: int
    end: int


class _Candidate(NamedTuple):
    """A text of the right form, and the words around it."""

    match: re.Match[str]
    before: str
    after: str

    @property
    def digits(self) -> list[int]:
        return [int(c) for c in self.match[0] if c in "0123456789"]


_BEFORE, _AFTER = 28, 12
_UP_TO_A_NUMBER = re.compile(r"[^0-9\[]*")
_L, _R = r"(?<![0-9A-Za-z])(?<![0-9][-.])", r"(?![0-9])(?![-.][0-9])"
_SEP = r" ?[-–—−.)] ?"
_GAP = rf"(?:{_SEP}| )"
_HYPHEN = r" ?[-–—−] ?"
_OTHER_NUMBER = re.compile(
    r"(?:법인|사업자|주문|송장|접수|문서|관리|제품|상품|모델|특허|출원|사건|바코드|ISBN|ISSN|EAN)(?:등록)?"
    r" ?(?:번호|코드|No\.?)?[은는이가]? ?[:：(]? ?$",
    re.IGNORECASE,
)
_PHONE_WORD = re.compile(r"전화|연락|휴대|핸드폰|문의|팩스|☎|\b(?:tel|fax|phone|mobile|hp)\b", re.IGNORECASE)
_RESIDENT_WORD = re.compile(r"주민|외국인|등록번호|거소|생년")
_COMPANY_WORD = re.compile(r"법인|주식회사|\(주\)|㈜")
_PASSPORT_WORD = re.compile(r"여권|passport", re.IGNORECASE)
_LICENSE_WORD = re.compile(r"면허")
_BANK = r"은행|뱅크|농협|수협|신협|새마을금고|우체국|저축"
_ACCOUNT_WORD = re.compile(rf"(?:계좌|입금|송금|이체|예금주|{_BANK})[^0-9\n]{{0,16}}$")
_BANK_AFTER = re.compile(rf"^[ (]{{0,2}}(?:[가-힣]{{2,4}}(?:은행|뱅크)|예금주|{_BANK})")
_BUSINESS_WORD = re.compile(r"사업자")
_AMOUNT = re.compile(r"^ ?(?:[십백천만억조]|원|명|개|건|달러|엔|주|톤)")
_IP_WORD = re.compile(
    r"\bips?\b|아이피|접속|차단|서버|주소|호스트|\b(?:host|server|dns|ping|ssh|from)\b", re.IGNORECASE
)
_VERSION_WORD = re.compile(
    r"(?:버전|version|ver\.?|v|릴리스|release|빌드|build|판|항목|제|절|장|§|EC|[A-Za-z]) ?$", re.IGNORECASE
)

_NUMBER = re.compile(r"[0-9][-–—−.() 0-9A-Za-z:]{5}")
_PERHAPS = re.compile(
    r"@|(?:[0-9][-–—−.() ]{0,3}){8}[0-9]|(?:[0-9]{1,3}\.){3}[0-9]|[MSRODG][0-9]{3}[A-Z0-9][0-9]{4}|[23][0-9a-fA-F]{3}:"
)
"""Every finding has a place of the first form or an @, and one of the second; most texts have neither."""


def find(text: str) -> list[Found]:
    """All personal data in a text, in order, without overlaps."""
    if not ("@" in text or _NUMBER.search(text)) or not _PERHAPS.search(text):
        return []
    places = [
        (match.start(), rank, match, judge)
        for rank, (pattern, judge) in enumerate(_RECOGNIZERS)
        for match in pattern.finditer(text)
    ]
    found: list[Found] = []
    end, said = 0, ""
    for start, _, match, judge in sorted(places, key=lambda place: place[:2]):
        if start < end:
            continue
        # The words before, as the masked text has them, so that masking it again finds nothing new.
        before = (said + text[max(end, start - _BEFORE) : start])[-_BEFORE:]
        after = _UP_TO_A_NUMBER.match(text, match.end(), match.end() + _AFTER)
        kind = judge(_Candidate(match, before, after[0] if after else ""))
        if kind is not None:
            end = match.end()
            found.append(Found(kind, start, end))
            said = before + MASKS[kind]
    return found


def mask(text: str) -> tuple[str, Counter[str]]:
    """The text with masks, and how many there are of each kind. A masked text has no finding."""
    counts: Counter[str] = Counter()
    while findings := find(text):  # again, because a form may span a finding and what stands beside it
        parts, end = [], 0
        for kind, start, stop in findings:
            parts += [text[end:start], MASKS[kind]]
            end = stop
            counts[kind] += 1
        text = "".join([*parts, text[end:]])
    return text, counts


# ---- what decides: candidate -> kind, or None if it is something else


def _resident(candidate: _Candidate) -> str | None:
    digits, match, before = candidate.digits, candidate.match, candidate.before
    century = digits[6]
    if not _is_date((18 if century in (0, 9) else 19 if century in (1, 2, 5, 6) else 20), match["birth"]):
        return None
    foreigner = century in (5, 6, 7, 8)
    company = bool(_COMPANY_WORD.search(before))
    if company or not _RESIDENT_WORD.search(before):
        checks = digits[12] == resident_check_digit(digits, foreigner)
        corporate = digits[12] == corporate_check_digit(digits) and match["birth"][4:] in _COMPANY_TYPES
        if company or _OTHER_NUMBER.search(before) or (corporate and (not checks or match["birth"] in _SEOUL)):
            return None
        if not checks and not match["hyphen"].strip():
            return None
    return "foreigner_number" if foreigner else "resident_number"


_COMPANY_TYPES = {"11", "12", "13", "14", "15", "21", "22", "31"}
"""The last two of the first six digits of a corporate number, after the four of the registry."""
_SEOUL = {"110111", "110114"}


def resident_check_digit(digits: list[int], foreigner: bool = False) -> int:
    """The 13th digit of a resident number (until October 2020), by its first 12."""
    weights = [*range(2, 10), *range(2, 6)]
    total = sum(w * d for w, d in zip(weights, digits, strict=False))
    return ((13 if foreigner else 11) - total % 11) % 10


def corporate_check_digit(digits: list[int]) -> int:
    """The 13th digit of a corporate registration number, by its first 12."""
    return -sum(d * (1 + i % 2) for i, d in enumerate(digits[:12])) % 10


def business_check_digit(digits: list[int]) -> int:
    """The 10th digit of a business registration number (3-2-5), by its first 9."""
    total = sum(w * d for w, d in zip((1, 3, 7, 1, 3, 7, 1, 3, 5), digits, strict=False)) + digits[8] * 5 // 10
    return -total % 10


def luhn(digits: list[int]) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812)."""
    doubled = [d if i % 2 == 0 else d * 2 - 9 * (d > 4) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _is_date(century: int, birth: str) -> bool:
    try:
        date(century * 100 + int(birth[:2]), int(birth[2:4]), int(birth[4:]))
    except ValueError:
        return False
    return True


def _card(candidate: _Candidate) -> str | None:
    return "card" if luhn(candidate.digits) and not _OTHER_NUMBER.search(candidate.before) else None


def _near(word: re.Pattern[str], kind: str) -> Callable[[_Candidate], str | None]:
    """The kind if a word stands near the number."""
    return lambda candidate: kind if word.search(candidate.before) or word.search(candidate.after) else None


def _account(candidate: _Candidate) -> str | None:
    digits, before = candidate.digits, candidate.before
    if not 10 <= len(digits) <= 14 or _OTHER_NUMBER.search(before) or _AMOUNT.search(candidate.after):
        return None
    if re.fullmatch("[0-9]{3}-[0-9]{2}-[0-9]{5}", candidate.match[0]) and (
        _BUSINESS_WORD.search(before) or digits[9] == business_check_digit(digits)
    ):
        return None
    return "bank_account" if _ACCOUNT_WORD.search(before) or _BANK_AFTER.search(candidate.after) else None


def _ip(candidate: _Candidate) -> str | None:
    try:
        address = ipaddress.ip_address(candidate.match[0])
    except ValueError:
        return None
    if not address.is_global or address.is_multicast:
        return None
    if address.version == 4 and not _IP_WORD.search(candidate.before):
        octets = address.packed
        version = _VERSION_WORD.search(candidate.before)
        years = sorted(set(octets)) == list(octets) and octets[0] >= 10 and octets[3] < 100
        if (
            max(octets) < 32
            or years
            or (version and (0 in octets[1:3] or not version[0][0].isascii() or len(version[0]) > 2))
        ):
            return None
    return "ip"


def _is(kind: str) -> Callable[[_Candidate], str | None]:
    """The form alone decides."""
    return lambda candidate: kind


_AREA = r"(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[2-8]?)"
_MOBILE = r"1[016789]"
_LOCAL_LABEL = "(?:서울|부산|경기|강원|충북|충남|전북|전남|경북|경남|제주|대구|인천|광주|대전|울산)"
_RECOGNIZERS: list[tuple[re.Pattern[str], Callable[[_Candidate], str | None]]] = [
    (
        re.compile(
            r"(?<![A-Za-z0-9._%+\-/@])(?!git@)[A-Za-z0-9._%+\-]{1,64}@"
            r"(?!(?:[A-Za-z0-9-]{1,63}\.)?example\.)(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}(?![A-Za-z0-9])"
        ),
        _is("email"),
    ),
    (re.compile(rf"{_L}(?P<birth>[0-9]{{6}})(?P<hyphen>{_HYPHEN}| ?)[0-9]{{7}}{_R}"), _resident),
    (
        re.compile(
            rf"{_L}(?:(?:[34569][0-9]|2[2-7])[0-9]{{2}}([- ]?)[0-9]{{4}}\1[0-9]{{4}}\1[0-9]{{4}}"
            rf"|3[47][0-9]{{2}}([- ]?)[0-9]{{6}}\2[0-9]{{5}}){_R}"
        ),
        _card,
    ),
    (
        re.compile(
            rf"{_L}(?:1[1-9]|2[0-8])-[0-9]{{2}}-[0-9]{{6}}-[0-9]{{2}}{_R}"
            rf"|{_LOCAL_LABEL} ?[0-9]{{2}}-[0-9]{{6}}-[0-9]{{2}}{_R}"
        ),
        _is("driving_license"),
    ),
    (
        re.compile(rf"{_L}(?:1[1-9]|2[0-8])[ -]?[0-9]{{2}}[ -]?[0-9]{{6}}[ -]?[0-9]{{2}}{_R}"),
        _near(_LICENSE_WORD, "driving_license"),
    ),
    (
        re.compile(rf"{_L}(?:[MSRODG][0-9]{{8}}|[MSROG][0-9]{{3}}[A-Z][0-9]{{4}})(?![0-9A-Za-z])(?![-.][0-9])"),
        _near(_PASSPORT_WORD, "passport"),
    ),
    (
        re.compile(
            rf"{_L}010[0-9]{{8}}{_R}|{_L}\(?0{_MOBILE}{_GAP}[0-9]{{3,4}}{_GAP}[0-9]{{4}}{_R}"
            rf"|(?<![0-9A-Za-z+])\+?82{_GAP}?(?:\(?0\)?)?{_MOBILE}{_GAP}?[0-9]{{3,4}}{_GAP}?[0-9]{{4}}{_R}"
        ),
        _is("mobile_phone"),
    ),
    (re.compile(rf"{_L}0{_MOBILE}[0-9]{{7,8}}{_R}"), _near(_PHONE_WORD, "mobile_phone")),
    (
        re.compile(
            rf"{_L}\(?0{_AREA}{_SEP}[0-9]{{3,4}}{_SEP}[0-9]{{4}}{_R}"
            rf"|(?<![0-9A-Za-z+])\+82{_GAP}{_AREA}{_GAP}[0-9]{{3,4}}{_GAP}[0-9]{{4}}{_R}"
        ),
        _is("phone"),
    ),
    (re.compile(rf"{_L}0{_AREA}{_GAP}?[0-9]{{3,4}}{_GAP}?[0-9]{{4}}{_R}"), _near(_PHONE_WORD, "phone")),
    (re.compile(rf"{_L}(?:[0-9]{{2,6}}(?:-[0-9]{{1,7}}){{1,3}}|[0-9]{{10,14}}){_R}"), _account),
    (re.compile(r"(?<![0-9A-Za-z.\-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z])(?![-.][0-9])"), _ip),
    (
        re.compile(
            r"(?<![0-9A-Za-z:])[23][0-9a-fA-F]{3}(?::{1,2}[0-9a-fA-F]{1,4}){2,7}(?::{2})?(?![0-9A-Za-z:])(?![-.][0-9])"
        ),
        _ip,
    ),
]
"""Form and judge of each kind. What an earlier one finds, a later one does not look at."""

"""Convert a page of namuwiki's dump to plain text.

The dump is a list of {"namespace", "title", "text", "contributors"}; articles are in namespace 0. Markup that shows
words keeps them (headings, emphasis, links, lists, quotes, table cells, folded parts). Other markup is removed (macros,
footnotes, files, categories, comments, styles). Redirections become "". This is not a full parser: it applies the rules
of namuwiki's page "나무위키:문법 도움말" that occur in articles, in one pass over brackets and one per line.
O(characters).
"""

import re
from typing import Any

_REDIRECTION = re.compile(r"\s*#(?:redirect|넘겨주기)\s", re.IGNORECASE)
_BRACKETS = re.compile(r"\{\{\{|\}\}\}|\[\[|\]\]|\[\*|\[|\]")
_HIDDEN_LINKS = ("파일:", "분류:", "file:", "category:")
_STYLE = re.compile(r"(?:#!wiki[^\n]*|#!syntax \S*|#!html|#!folding|#!\w+|[+-][1-5](?=\s)|#[\w,#]+(?=\s)|@[\w,@]+@)\s?")
_MACRO = re.compile(
    r"(?:include|목차|tableofcontents|각주|footnote|br|date|datetime|age|dday|anchor|youtube|kakaotv|nicovideo|vimeo|"
    r"navertv|ruby|math|pagecount|clearfix)(?:\(.*)?",
    re.IGNORECASE | re.DOTALL,
)
_HEADING = re.compile(r"(={1,6})#? (.*?) #?\1\s*")
_LEAD = re.compile(r"(?:[ \t]*>[ \t>]*|[ \t]+(?:(?:\*|[1aAiI]\.(?:#[0-9]+)?)[ \t]*)?)?")
_CELL = re.compile(r"(?:\|\|)+(?:<[^<>]*>)*")
_EMPHASIS = ("'''", "''", "~~", "--", "__", "^^", ",,")
_DEEPEST = 50  # nested brackets; every level copies the text once


def page(value: Any) -> str | None:
    """The text of one element of the dump; None if it is not one."""
    if not isinstance(value, dict) or "namespace" not in value or not isinstance(value.get("text"), str):
        return None
    return plain(value["text"]) if str(value["namespace"]) == "0" else ""


def plain(text: str) -> str:
    """Namumark -> plain text."""
    if _REDIRECTION.match(text):
        return ""
    lines = (_line(line) for line in _without_brackets(text).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line for line in lines if line is not None)).strip()


def _without_brackets(text: str) -> str:
    """Resolve links, footnotes, macros, and {{{ }}}, innermost first, with a stack of open brackets."""
    open_: list[tuple[str, list[str]]] = [("", [])]
    at = 0
    for match in _BRACKETS.finditer(text):
        open_[-1][1].append(text[at : match.start()])
        at = match.end()
        mark = match[0]
        if mark in _CLOSES:
            # A closing bracket without an opening one is text, and so is one that would close another kind.
            if open_[-1][0] in _CLOSES[mark]:
                opened, inside = open_.pop()
                open_[-1][1].append(_resolved(opened, "".join(inside)))
            elif mark == "]]" and open_[-1][0] in _CLOSES["]"]:
                opened, inside = open_.pop()  # the end of a footnote, after a bracket that is part of its text
                open_[-1][1].append(_resolved(opened, "".join(inside)))
                at -= 1
            else:
                open_[-1][1].append("" if mark == "}}}" else mark)
        elif len(open_) < _DEEPEST:
            open_.append((mark, []))
        else:
            open_[-1][1].append(mark)
    open_[-1][1].append(text[at:])
    while len(open_) > 1:  # never closed, so it is text
        opened, inside = open_.pop()
        open_[-1][1].extend([opened if opened != "{{{" else "", *inside])
    return "".join(open_[0][1])


_CLOSES = {"}}}": ("{{{",), "]]": ("[[",), "]": ("[", "[*")}


def _resolved(opened: str, inside: str) -> str:
    if opened == "[[":
        target, bar, shown = inside.partition("|")
        if target.lower().startswith(_HIDDEN_LINKS):
            return ""
        return shown if bar else target.removeprefix(":").partition("#s-")[0]
    if opened == "[*":
        return ""
    if opened == "[":
        if _MACRO.fullmatch(inside):
            return "\n" if inside.lower() == "br" else ""
        return f"[{inside}]"
    style = _STYLE.match(inside)
    return inside[style.end() :] if style else inside


def _line(line: str) -> str | None:
    """The text of one line; None if it shows nothing."""
    if line.startswith("##") or (len(line) >= 4 and not line.strip("-")):
        return None
    heading = _HEADING.fullmatch(line)
    line = heading[2] if heading else _LEAD.sub("", line, count=1)
    if line.startswith("||"):
        line = _CELL.sub(" ", line).strip()
    for mark in _EMPHASIS:
        if mark in line:
            *pairs, last = line.split(mark)
            line = "".join(pairs) + (last if len(pairs) % 2 == 0 else mark + last)
    return line.rstrip()

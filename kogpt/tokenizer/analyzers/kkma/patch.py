"""Change the class files of the installed konlpy in memory, so that Kkma becomes fast and has a budget.

In: konlpy's kkma-2.0.jar, identified by its checksum. Out: the bytes of the changed classes. Patched.java defines them
before the JVM loads those of the jar. Nothing of Kkma ships with this project, and the morphemes stay the same.
There are three kinds of changes, none of which moves an instruction:

- A call becomes an `invokestatic` of one of our methods (kogpt/tokenizer/analyzers/kkma/java), which takes the receiver
  as its first argument. The new references are appended to the constant pool.
- A statement that only builds a debug string, or repeats a computation, becomes no-ops.
- A private member becomes package-private, so that our classes in Kkma's package can use it.

The class files have version 50, which is verified without stack maps. Format: the Java Virtual Machine Specification,
chapter 4. Cost: about 30 ms. A jar with another checksum is not changed.
"""

import struct
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from kogpt.common.errors import UserError
from kogpt.common.files import sha256_of

KNOWN_JAR = "f628c5fa20086f95f8a70147c0cdb715688844db63aa4693aa87ff526e3776a6"

_MA = "org/snu/ids/ha/ma/"
_DIC = "org/snu/ids/ha/dic/"
_UTIL = "org/snu/ids/ha/util/"
_EXPRESSION = f"L{_MA}MExpression;"

# class -> (owner.name descriptor of a called method, our class.method that replaces it)
_REDIRECTED = {
    "MCandidate": [
        (f"{_DIC}PDDictionary.getLnprPosGMorpInter (JLjava/lang/String;J)F", "Tables.afterSpace"),
        (f"{_DIC}PDDictionary.getLnprPosGMorpIntra (JLjava/lang/String;J)F", "Tables.within"),
        (f"{_DIC}PDDictionary.getLnprPosGExp (Ljava/lang/String;J)F", "Tables.tagging"),
        (f"{_DIC}SpacingPDDictionary.getProb (CCZ)F", "Tables.spacing"),
        (f"{_DIC}SpacingPDDictionary.getProb (Ljava/lang/String;)F", "Tables.spacing"),
        (f"{_DIC}UNPDDictionary.getProb (Ljava/lang/String;)F", "Tables.noun"),
        (f"{_DIC}Dictionary.getInstance ()L{_DIC}Dictionary;", "Lexicon.dictionary"),
        (f"{_DIC}Dictionary.containNoun (Ljava/lang/String;)Z", "Lexicon.containNoun"),
        (f"{_UTIL}Hangul.split (C)L{_UTIL}Hangul;", "Syllables.split"),
        (f"{_UTIL}StringSet.contains (C)Z", "Syllables.contains"),
        (f"{_MA}MCandidate.calcHashCode ()V", "Hashes.calcHashCode"),
    ],
    "MorphemeAnalyzer": [
        (f"{_DIC}Dictionary.getInstance ()L{_DIC}Dictionary;", "Lexicon.dictionary"),
        (f"{_DIC}Dictionary.getMExpression (Ljava/lang/String;){_EXPRESSION}", "Lexicon.find"),
        (f"{_MA}MExpression.derive ({_EXPRESSION}){_EXPRESSION}", "Derivation.derive"),
        (f"{_MA}MExpression.pruneWithPrev ({_EXPRESSION})V", "Context.pruneWithPrev"),
        (f"{_MA}MExpression.setBestPrevMC ({_EXPRESSION})V", "BestPath.setBestPrevMC"),
        (f"{_MA}MExpression.split ()Ljava/util/List;", "BestPath.split"),
        (f"{_MA}MorphemeAnalyzer.analyze ({_EXPRESSION}L{_MA}Token;)Ljava/util/List;", "Budget.analyze"),
    ],
    "Tokenizer": [
        (f"{_MA}Tokenizer.find (Ljava/lang/StringBuffer;L{_MA}TokenPattern;)Ljava/util/List;", "Patterns.find"),
    ],
}
_SILENCED = {"MorphemeAnalyzer": f"{_MA}MorphemeAnalyzer.writeLog (Ljava/lang/Object;)V"}
_TWICE = {"MCandidate": f"{_MA}MCandidate.calcLnprOfTagging ()V"}
_OPENED = {"MCandidate": {"expList", "<init>"}, "MorphemeAnalyzer": {"analyze"}}

_ALOAD_0, _NOP = 0x2A, 0x00
_CALLS = {0xB6, 0xB7, 0xB8}
_INVOKESTATIC = 0xB8
_SWITCHES = {0xAA, 0xAB}
_WIDE, _IINC = 0xC4, 0x84
_LENGTHS = {
    **dict.fromkeys([16, 18, *range(21, 26), *range(54, 59), 169, 188], 2),
    **dict.fromkeys([17, 19, 20, 132, *range(153, 169), *range(178, 185), 187, 189, 192, 193, 198, 199], 3),
    197: 4,
    **dict.fromkeys([185, 186, 200, 201], 5),
}


def konlpy_java() -> Path:
    """The folder of konlpy's jars. konlpy itself is not imported, because it would import JPype."""
    spec = find_spec("konlpy")
    if spec is None or spec.origin is None:
        raise UserError("The analyzer kkma needs konlpy, which is not installed: run pip install konlpy==0.6.0.")
    return Path(spec.origin).parent / "java"


def patched_classes(jar: Path) -> dict[str, bytes] | None:
    """The changed class files, by their path within the jar; None for an unknown jar."""
    if sha256_of(jar) != KNOWN_JAR:
        return None
    with zipfile.ZipFile(jar) as archive:
        return {path: _patched(name, archive.read(path)) for name in _REDIRECTED for path in [f"{_MA}{name}.class"]}


def _patched(name: str, original: bytes) -> bytes:
    """The class file with the changes of this module. A change that finds nothing to change raises `ValueError`."""
    file = _ClassFile(original)
    for callee, own in _REDIRECTED[name]:
        file.redirect(callee, own)
    if name in _SILENCED:
        file.silence(_SILENCED[name])
    if name in _TWICE:
        file.once(_TWICE[name])
    file.open(_OPENED.get(name, set()))
    return file.content()


class _ClassFile:
    """A class file whose calls, statements and access flags can be changed in place."""

    def __init__(self, content: bytes) -> None:
        self._data = bytearray(content)
        self._constants: list[tuple[int, bytes]] = [(0, b"")]
        self._added = bytearray()
        at = 10
        while len(self._constants) < self._u2(8):
            at = self._read_constant(at)
        self._pool_end = at
        at += 6
        at += 2 + 2 * self._u2(at)
        self._members: list[tuple[int, str]] = []  # (offset of the access flags, name)
        self._codes: list[tuple[int, int]] = []  # (first byte, one after the last) of each method's code
        for _ in ("fields", "methods"):
            count, at = self._u2(at), at + 2
            for _ in range(count):
                at = self._read_member(at)

    def content(self) -> bytes:
        """The changed class file, with the added constants."""
        struct.pack_into(">H", self._data, 8, len(self._constants))
        return bytes(self._data[: self._pool_end] + self._added + self._data[self._pool_end :])

    def redirect(self, callee: str, own: str) -> None:
        """Replace every call of `callee` by a static call of our method `own`."""
        calls = [at for at in self._instructions() if self._callee(at) == callee]
        if not calls:
            raise ValueError(f"no call of {callee}")
        owner, _, descriptor = callee.replace(".", " ").split(" ")
        if self._data[calls[0]] != _INVOKESTATIC:
            descriptor = f"(L{owner};{descriptor[1:]}"
        reference = self._add_method(_MA + own.split(".")[0], own.split(".")[1], descriptor)
        for at in calls:
            self._data[at : at + 3] = struct.pack(">BH", _INVOKESTATIC, reference)

    def silence(self, callee: str) -> None:
        """Replace every statement `this.callee(...)` by no-ops. Its arguments must not use `this`."""
        start, found = -1, False
        for at in self._instructions():
            if self._data[at] == _ALOAD_0:
                start = at
            elif self._callee(at) == callee:
                self._data[start : at + 3] = bytes([_NOP]) * (at + 3 - start)
                found = True
        if not found:
            raise ValueError(f"no call of {callee}")

    def once(self, callee: str) -> None:
        """Replace the second of two consecutive calls, on the same variable and without arguments, by no-ops."""
        calls = [at for at in self._instructions() if self._callee(at) == callee]
        found = False
        for first, second in pairwise(calls):
            load = self._data[first + 3 : second]
            if len(load) <= 2 and self._data[first - len(load) : first] == load:
                self._data[first + 3 : second + 3] = bytes([_NOP]) * (second - first)
                found = True
        if not found:
            raise ValueError(f"no double call of {callee}")

    def open(self, names: set[str]) -> None:
        """Make the private members with these names package-private."""
        if missing := names - {name for _, name in self._members}:
            raise ValueError(f"no member {missing}")
        for at, name in self._members:
            if name in names:
                struct.pack_into(">H", self._data, at, self._u2(at) & ~0x0002)

    def _u2(self, at: int) -> int:
        return int.from_bytes(self._data[at : at + 2], "big")

    def _u4(self, at: int) -> int:
        return int.from_bytes(self._data[at : at + 4], "big", signed=True)

    def _read_constant(self, at: int) -> int:
        tag = self._data[at]
        size = 2 + self._u2(at + 1) if tag == 1 else {7: 2, 8: 2, 16: 2, 15: 3, 5: 8, 6: 8}.get(tag, 4)
        self._constants.append((tag, bytes(self._data[at + 1 : at + 1 + size])))
        if tag in (5, 6):  # a long or a double takes two places
            self._constants.append((0, b""))
        return at + 1 + size

    def _read_member(self, at: int) -> int:
        self._members.append((at, self._text(self._u2(at + 2))))
        count, at_attribute = self._u2(at + 6), at + 8
        for _ in range(count):
            if self._text(self._u2(at_attribute)) == "Code":
                first = at_attribute + 14
                self._codes.append((first, first + self._u4(at_attribute + 10)))
            at_attribute += 6 + self._u4(at_attribute + 2)
        return at_attribute

    def _text(self, index: int) -> str:
        return self._constants[index][1][2:].decode("utf-8", "surrogatepass")

    def _pair(self, index: int) -> tuple[int, int]:
        return struct.unpack(">HH", self._constants[index][1])

    def _callee(self, at: int) -> str | None:
        """The method that the instruction at `at` calls, as 'owner.name descriptor'; None if it calls none."""
        if self._data[at] not in _CALLS:
            return None
        owner, signature = self._pair(self._u2(at + 1))
        name, descriptor = self._pair(signature)
        (owner_name,) = struct.unpack(">H", self._constants[owner][1])
        return f"{self._text(owner_name)}.{self._text(name)} {self._text(descriptor)}"

    def _add(self, tag: int, content: bytes) -> int:
        self._added += bytes([tag]) + content
        self._constants.append((tag, content))
        return len(self._constants) - 1

    def _add_method(self, owner: str, name: str, descriptor: str) -> int:
        texts = [self._add(1, struct.pack(">H", len(text)) + text.encode()) for text in (owner, name, descriptor)]
        owner_class = self._add(7, struct.pack(">H", texts[0]))
        signature = self._add(12, struct.pack(">HH", texts[1], texts[2]))
        return self._add(10, struct.pack(">HH", owner_class, signature))

    def _instructions(self) -> Iterator[int]:
        """The offsets of all instructions of all methods."""
        for first, end in self._codes:
            at = first
            while at < end:
                yield at
                at += self._length(at, first)

    def _length(self, at: int, first: int) -> int:
        code = self._data[at]
        if code in _SWITCHES:
            table = at + 4 - (at - first) % 4
            if code == 0xAA:
                return table + 12 + 4 * (self._u4(table + 8) - self._u4(table + 4) + 1) - at
            return table + 8 + 8 * self._u4(table + 4) - at
        if code == _WIDE:
            return 6 if self._data[at + 1] == _IINC else 4
        return _LENGTHS.get(code, 1)

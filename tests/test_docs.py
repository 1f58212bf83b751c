"""The documentation names every file, its links work, and its commands exist."""

import inspect
import re
import runpy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from kogpt.cli import COMMANDS
from kogpt.train.options import ModelOptions, RunOptions, ScheduleOptions
from preprocess.options import Options

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


def flags(options: Any) -> set[str]:
    """The flags of a dataclass, or of the function of a command."""
    if is_dataclass(options):
        return {f"--{field.name}".replace("_", "-") for field in fields(options)}
    parameters = inspect.signature(options).parameters.values()
    shared = [flags(one.default) for one in parameters if is_dataclass(one.default)]
    return {f"--{one.name}".replace("_", "-") for one in parameters}.union(*shared)


COMMAND_LINES = {
    r"preprocess(?:/run\.py|\.sbatch)": flags(Options),
    r"launch/train\.(?:py|sbatch)": flags(ModelOptions) | flags(ScheduleOptions) | flags(RunOptions),
    **{rf"kogpt {name}\b": flags(function) for name, function in COMMANDS.items()},
}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in ("CHANGELOG.md", "LOG.md")], ids=lambda page: page.name
)
def test_every_flag_of_a_command_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for command, known in COMMAND_LINES.items():
        shown = {
            flag for line in re.findall(rf"{command}([^`\n#]*)", text) for flag in re.findall(r" (--[a-z-]+)", line)
        }
        assert shown <= known | {"--help"}, command


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

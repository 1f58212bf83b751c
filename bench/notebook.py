"""Executes notebooks/korean_gpt.ipynb, and stores its outputs in it. In: the notebook. Out: the same file, or another.

    python bench/notebook.py                  # after its code was changed
    python bench/notebook.py --out try.ipynb --set FOLDER=/tmp/try MINUTES=0.05        # a short try, elsewhere

The digest of the executed code is stored as well, by which tests/test_notebook.py knows outputs of other code. Needs
kogpt[ecosystem].
"""

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import tyro
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "notebooks/korean_gpt.ipynb"


@dataclass(frozen=True)
class Execution:
    """Execute the notebook."""

    out: Path = NOTEBOOK
    """The file to write."""
    set: tuple[str, ...] = ()
    """NAME=VALUE of variables of the notebook, during this execution; the code that is stored is not changed."""


def with_value(code: list[str], name: str, value: str) -> list[str]:
    """The cells with the one assignment to `name`, at the start of a line, replaced."""
    shown = value if re.fullmatch(r"[\d.]+", value) else repr(value)
    changed = [re.sub(rf"^{name} = .*$", lambda _: f"{name} = {shown}", cell, count=1, flags=re.M) for cell in code]
    assert sum(a != b for a, b in zip(code, changed, strict=True)) == 1, f"not one cell assigns {name}"
    return changed


def main() -> None:
    wanted = tyro.cli(Execution)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code = executed = [cell.source for cell in cells]
    for name, _, value in (one.partition("=") for one in wanted.set):
        executed = with_value(executed, name, value)
    for cell, source in zip(cells, executed, strict=True):
        cell.source = source
    os.environ |= {"COLUMNS": "100", "WANDB_MODE": "offline"}
    client = NotebookClient(
        notebook,
        timeout=None,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": NOTEBOOK.parent}},
    )
    client.execute()
    for cell, source in zip(cells, code, strict=True):
        cell.source = source
        for output in cell.outputs:
            if "text" in output:  # what programs print about files of the project
                output.text = output.text.replace(f"{ROOT}/", "")
    notebook.metadata["kogpt"] = {"executed": hashlib.sha256("\0".join(code).encode()).hexdigest()}
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, wanted.out)


if __name__ == "__main__":
    main()

"""torch.compile, one block at a time. In: a GPT, its ZeRO stage and device. Out: compiled blocks, or why not.

Every block runs the same code, so that one graph serves all: compile time does not grow with depth. The backward
pass stays one autograd node per block, so that gradients of the last blocks are summed over the ranks while the
first ones are still being computed. DeepSpeed's hooks sit on the whole model and are never traced.
"""

import os
import shutil
import sysconfig
from pathlib import Path

from kogpt.model.gpt2 import GPT


def obstacle(stage: int, device_type: str) -> str | None:
    """Why torch.compile cannot work here, as one clause; None where it can."""
    if stage == 3:
        return "ZeRO stage 3 brings weights together in hooks, which break the graph"
    if device_type == "cpu":
        names, given = ("g++", "clang++"), os.environ.get("CXX")
        return None if given or any(map(shutil.which, names)) else "there is no C++ compiler (apt install g++)"
    # What Triton builds its launchers with: triton/runtime/build.py.
    if not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang")))):
        return "there is no C compiler (apt install gcc)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.exists() else f"{header} is missing (apt install python3-dev)"


def compile_blocks(model: GPT) -> None:
    """Compile each block in place; the names of its parameters stay. The work is done in the first step."""
    for block in model.blocks:
        block.compile()

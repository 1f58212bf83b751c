"""torch.compile, one block at a time. In: a model, its ZeRO stage and device. Out: compiled blocks, or why not.

All blocks run the same code and share one graph, so compile time does not grow with depth. The backward pass keeps one
autograd node per block, so gradients of the last blocks are summed over the ranks while the first ones are still being
computed. DeepSpeed's hooks are on the whole model and are never traced.
"""

import logging
import os
import shutil
import sysconfig
from pathlib import Path

from torch.utils import _triton

from kogpt.model.decoder import Decoder
from kogpt.train.distributed import broadcast_object

log = logging.getLogger(__name__)


def obstacle(stage: int, device_type: str) -> str | None:
    """Why torch.compile cannot work here, as one clause, or None."""
    if stage == 3:
        return "ZeRO stage 3 gathers weights in hooks, which break the graph"
    if device_type == "cpu":
        names, given = ("g++", "clang++"), os.environ.get("CXX")
        return None if given or any(map(shutil.which, names)) else "there is no C++ compiler (apt install g++)"
    if not _triton.has_triton_package():
        return "Triton is not installed (pip install triton, where it has a package)"
    if not _triton.has_triton():
        return "Triton needs a GPU of compute capability 7 or later"
    # Triton needs these to build its launchers: triton/runtime/build.py.
    if not (os.environ.get("CC") or any(map(shutil.which, ("gcc", "clang")))):
        return "there is no C compiler (apt install gcc)"
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    return None if header.exists() else f"{header} is missing (apt install python3-dev)"


def compile_blocks(model: Decoder) -> None:
    """Compile each block in place. Parameter names do not change. The compilation happens in the first step."""
    for block in model.blocks:
        block.compile()


def compile_as_wished(model: Decoder, wish: str, stage: int, device_type: str) -> None:
    """Compile as --compile says; `auto` compiles on GPUs, if possible. All ranks must call it."""
    if wish == "off" or (wish == "auto" and device_type != "cuda"):
        return
    if reason := broadcast_object(obstacle(stage, device_type)):
        log.info(f"Training without torch.compile: {reason}.")
        return
    log.info("Compiling the blocks; the first step takes a minute.")
    compile_blocks(model)

"""Check training on this machine's GPUs with one command: does every path run and learn, how fast, in how much memory?

    python bench/gpu_check.py --json check.json     # at most 20 minutes on one GPU, 25 on several
    python bench/gpu_check.py --wheels wheels/      # missing packages, for machines without a network
    python bench/gpu_check.py --toy                 # every part in seconds, also on a CPU

Needs Python 3.11, torch 2.11 or later, and DeepSpeed, but no network, Ray, Java, or W&B. It trains on random tokens.
Each part (bench/gpu_parts.py) runs in its own process with a time limit, so a part that hangs or crashes does not
affect the others; the limits add up to the minutes above. The most important parts run first. The exit status is 0 if
nothing failed. `make gpu-check` runs it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

LIMITS = {"paths": 240, "recipe": 180, "profile": 90, "speed": 240, "memory": 90}
LIMITS |= {"resume": 75, "kernels": 90, "checkpoint": 180}
"""Seconds for each part on a GPU, in the order in which they run."""
PAIR_LIMITS = {"pair": 300}
"""Seconds for the part that needs two GPUs (with --toy: two CPU ranks)."""
TOY_LIMIT = 400
"""Seconds for each part with --toy. It is generous, because small CPUs differ and may be busy."""


@dataclass(frozen=True)
class Options:
    """What to check, and where to write the results."""

    toy: bool = False
    """Use the smallest shapes, also on a CPU. This shows that the check itself works."""
    parts: tuple[str, ...] = ()
    """Only these parts: paths, recipe, profile, speed, memory, resume, kernels, checkpoint, pair."""
    wheels: Path | None = None
    """A folder of wheels to use for this check; nothing is installed."""
    json: Path | None = None
    """Also write the numbers to this file."""


def main() -> int:
    """Run the parts, and print a line for each check. Returns 1 if one failed."""
    wheels = _argument("--wheels")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if wheels is not None:
            _unpack(Path(wheels), folder / "wheels")
        import tyro  # may be among the wheels

        options = tyro.cli(Options, description=__doc__)
        found = _run_parts(options, folder)
    failed = [check for part in found for check in part["checks"] if check["passed"] is False]
    total = sum(len(part["checks"]) for part in found)
    print(f"{total - len(failed)} of {total} checks passed" + (", these did not:" if failed else ""), flush=True)
    for check in failed:
        print(f"    {check['name']}: {check['figure']}")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": _machine(), "parts": found}, indent=1) + "\n")
    return bool(failed)


def _argument(flag: str) -> str | None:
    """The value of a flag, read before the flags are parsed."""
    for word, following in zip(sys.argv, [*sys.argv[1:], None], strict=True):
        if word == flag:
            return following
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _unpack(wheels: Path, target: Path) -> None:
    """Make the wheels importable, here and in the parts' processes. Installed packages come first."""
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)
    sys.path.append(str(target))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(target)]))


def _run_parts(options: Options, scratch: Path) -> list[dict[str, Any]]:
    machine = _machine()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    limits = LIMITS | (PAIR_LIMITS if options.toy or machine["gpus"] > 1 else {})
    unknown = set(options.parts) - {*LIMITS, *PAIR_LIMITS}
    if unknown:
        sys.exit(f"--parts {' '.join(sorted(unknown))}: there is no such part; choose from {', '.join(limits)}")
    found = []
    for name in [name for name in limits if name in (options.parts or limits)]:
        started = time.monotonic()
        result = _in_a_process(name, TOY_LIMIT if options.toy else limits[name], options.toy, scratch)
        print(f"{name} ({time.monotonic() - started:.0f} s)", flush=True)
        for check in result["checks"]:
            word = {True: "PASS", False: "FAIL", None: "skip"}[check["passed"]]
            print(f"    {word}  {check['name']}: {check['figure']}", flush=True)
        found.append(result)
    return found


def _in_a_process(name: str, seconds: int, toy: bool, scratch: Path) -> dict[str, Any]:
    """The checks of a part, from its file. If it ended early, the reason is one more failed check."""
    answer, log = scratch / f"{name}.json", scratch / f"{name}.log"
    command = [sys.executable, str(HERE / "gpu_parts.py"), name, str(scratch / name), str(answer), str(int(toy))]
    with open(log, "wb") as file:
        try:
            code = subprocess.run(command, stdout=file, stderr=file, timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            code = None
    result: dict[str, Any] = json.loads(answer.read_text()) if answer.exists() else {"part": name, "checks": []}
    if code != 0:
        reason = f"no end within {seconds} s" if code is None else f"exit status {code}"
        tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
        result["checks"].append({"name": f"{name} runs to its end", "passed": False, "figure": f"{reason}: {tail}"})
    return result


def _machine() -> dict[str, Any]:
    import torch

    gpus = torch.cuda.device_count()
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "torch": torch.__version__,
        "gpus": gpus,
        "device": torch.cuda.get_device_name(0) if gpus else "cpu",
    }


if __name__ == "__main__":
    sys.exit(main())

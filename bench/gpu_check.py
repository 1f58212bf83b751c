"""Check training on this machine's GPUs with one command: does every path run and learn, how fast, in how much memory?

    python bench/gpu_check.py --json check.json     # at most 28 minutes on one GPU, 43 on several
    python bench/gpu_check.py --parts speed sizes   # two of the parts
    python bench/gpu_check.py --wheels wheels/      # missing packages, for machines without a network
    python bench/gpu_check.py --toy                 # every part in seconds, also on a CPU

Needs Python 3.11, torch 2.11 or later, and DeepSpeed, but no network, Ray, Java, or W&B. It trains on random tokens.
Each part (bench/gpu_parts.py) runs in its own process with a time limit, so a part that hangs or crashes does not
affect the others; the limits add up to the minutes above. What a fast GPU needs is computed, not measured: 8 minutes
for the parts up to `speed`, which are the most important, and 15 for all. Each result is printed and written to --json
at once, so one that is stopped early has told what it found. The exit status is 0 if nothing failed; a skipped check
(this machine cannot run it) is no failure. `make gpu-check` runs it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

LIMITS = {"paths": 180, "kernels": 90, "memory": 75, "profile": 90, "recipe": 180, "speed": 240}
LIMITS |= {"resume": 120, "checkpoint": 180, "sizes": 480}
"""Seconds for each part on a GPU, in the order in which they run."""
PAIR_LIMITS = {"pair": 900}
"""Seconds for the part that needs two GPUs (with --toy: two CPU ranks)."""
TOY_LIMIT = 400
"""Seconds for each part with --toy. It is generous, because small CPUs differ and may be busy."""
LOG_END = 20_000
"""The characters of a part's output that --json keeps, from its end, if a check failed."""

Check = dict[str, Any]
"""A result: its name; whether it passed, or None if it was skipped; its figure."""


@dataclass(frozen=True)
class Options:
    """What to check, and where to write the results."""

    toy: bool = False
    """Use the smallest shapes, also on a CPU. This shows that the check itself works."""
    parts: tuple[str, ...] = ()
    """Only these parts: paths, kernels, memory, profile, recipe, speed, resume, checkpoint, sizes, pair."""
    wheels: Path | None = None
    """A folder of wheels to use for this check; nothing is installed."""
    json: Path | None = None
    """Also write the numbers to this file."""


def main() -> int:
    """Run the parts, and print a line for each check. Returns 1 if one failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the part that runs is ended as well
    wheels = _argument("--wheels")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if wheels is not None:
            _unpack(Path(wheels), folder / "wheels")
        import tyro  # may be among the wheels

        options = tyro.cli(Options, description=__doc__)
        found = _run_parts(options, folder)
    checks = [check for part in found for check in part["checks"]]
    failed = [check for check in checks if check["passed"] is False]
    skipped = sum(check["passed"] is None for check in checks)
    print(
        f"{len(checks) - len(failed) - skipped} of {len(checks)} checks passed, {skipped} skipped"
        + (f", {len(failed)} failed:" if failed else ""),
        flush=True,
    )
    for check in failed:
        print(f"    {check['name']}: {check['figure']}")
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
    if unknown := set(options.parts) - {*limits}:
        sys.exit(f"--parts {' '.join(sorted(unknown))}: this machine has no such part; choose from {', '.join(limits)}")
    found: list[dict[str, Any]] = []

    def keep() -> None:
        if options.json is not None:
            options.json.write_text(json.dumps({"machine": machine, "parts": found}, indent=1) + "\n")

    for name in [name for name in limits if name in (options.parts or limits)]:
        started = time.monotonic()
        print(name, flush=True)
        checks: list[Check] = []
        found.append({"part": name, "checks": checks})
        with closing(_checks(name, TOY_LIMIT if options.toy else limits[name], options.toy, scratch)) as coming:
            for check in coming:
                word = {True: "PASS", False: "FAIL", None: "skip"}[check["passed"]]
                print(f"    {word}  {check['name']}: {check['figure']}", flush=True)
                checks.append(check)
                keep()
        found[-1]["seconds"] = time.monotonic() - started
        if any(check["passed"] is False for check in checks):
            found[-1]["log"] = (scratch / f"{name}.log").read_text(errors="replace")[-LOG_END:]
        keep()
        print(f"    {found[-1]['seconds']:.0f} s", flush=True)
    return found


def _checks(name: str, seconds: int, toy: bool, scratch: Path) -> Generator[Check, None, None]:
    """The checks of a part, as they come. If it ends early, the reason is one more failed check.

    At its end nothing is left of the part: what it has started is in its process group, and is killed with it.
    Otherwise it would keep memory of the GPU, and time. A new session would outlive what kills this one's.
    """
    answer, log = scratch / f"{name}.jsonl", scratch / f"{name}.log"
    command = [sys.executable, str(HERE / "gpu_parts.py"), name, str(scratch / name), str(answer), str(int(toy))]
    with open(log, "wb") as file:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, process_group=0)
    told, end, runs = 0, time.monotonic() + seconds, True
    try:
        while runs:
            time.sleep(0.2)
            runs = process.poll() is None and time.monotonic() < end
            lines = answer.read_text().split("\n")[:-1] if answer.exists() else []
            for line in lines[told:]:
                yield json.loads(line)
            told = len(lines)
        code = process.poll()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code != 0:
        reason = f"no end within {seconds} s" if code is None else f"exit status {code}"
        tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-3:])
        yield {"name": f"{name} runs to its end", "passed": False, "figure": f"{reason}: {tail}"}


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

"""What differs between Linux, macOS, and Windows, in one place: locks, folders, ports, memory, signals, DeepSpeed.

Windows has no `fcntl`: it locks no folder, syncs no folder, and renames no file that is open. There, killed writers'
temporary files stay until they are removed by hand. It has no process groups either: Ctrl-C reaches every process of
the console by itself. macOS has no CPU affinity, and other numbers for some signals.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

RUNS_RAY = sys.platform != "win32"
"""Whether preprocessing runs on this system."""
OPENS_FOLDERS = fcntl is not None
"""Whether a folder can be opened, as on every system but Windows."""
SHARES_PORTS = sys.platform == "win32"
"""Whether SO_REUSEADDR lets two programs listen at one port. Elsewhere it only takes over one that a program left."""

STOP_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
"""The exit status for each signal that asks a training to stop, the same on every system."""
if hasattr(signal, "SIGUSR1"):
    STOP_STATUS[signal.SIGUSR1] = 138


@contextmanager
def kept_handlers(*signals: int) -> Iterator[None]:
    """Keep this process's handlers of these signals, whatever native code does meanwhile. Does nothing on Windows.

    Python's `signal` module does not see the handlers of native code.
    """
    if fcntl is None:
        yield
        return
    libc = ctypes.CDLL(None)
    handlers = {number: ctypes.create_string_buffer(1024) for number in signals}  # larger than any `struct sigaction`
    for number, handler in handlers.items():
        libc.sigaction(number, None, handler)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            libc.sigaction(number, handler, None)


def has_deepspeed() -> bool:
    """Whether DeepSpeed is installed. It is not imported, which takes seconds."""
    return find_spec("deepspeed") is not None


def has_ray() -> bool:
    """Whether Ray is installed."""
    return find_spec("ray") is not None


def launcher() -> str:
    """The program that starts launch/train.py, for sentences that tell how to go on."""
    return "deepspeed" if has_deepspeed() else "python"


def install_command() -> str:
    """What installs kogpt on this system (docs/windows.md), for sentences that tell how to go on."""
    if sys.platform == "linux":
        return "make install"
    python = r".venv\Scripts\python" if sys.platform == "win32" else ".venv/bin/python"
    return f"{python} -m pip install -c constraints.txt -e ."


def lock(descriptor: int, *, wait: bool) -> bool | None:
    """Lock an open file or folder for its descriptor. False if another process has the lock.

    None where the system or the file system has no locks: then nothing is known about other processes.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def fsync(path: Path) -> None:
    """Wait until a closed file, or the names in a folder, are on disk. Windows writes the names of a folder at once."""
    if path.is_dir() and not OPENS_FOLDERS:
        return
    descriptor = os.open(path, os.O_RDONLY if OPENS_FOLDERS else os.O_RDWR)  # Windows syncs for writers only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def before_rename(file: BinaryIO, sync: bool) -> None:
    """Complete a file that is about to be renamed, on disk if asked to. It stays open, and so locked, where it can."""
    file.flush()
    if sync:
        os.fsync(file.fileno())
    if not OPENS_FOLDERS:
        file.close()


def affinity() -> int:
    """The CPU cores that the scheduler gives to this process; all cores where it cannot say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def return_memory() -> None:
    """Return to the system what this process has freed, between pieces in use too. glibc keeps it; the others do not.

    Does nothing without glibc.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def signal_group(leader: int, number: int) -> bool:
    """Send a signal to all processes of the session that `leader` began; 0 only looks. Returns whether any was there.

    False on Windows, which has no such groups; its console has sent Ctrl-C to every process already.
    """
    if not hasattr(os, "killpg"):
        return False
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True


def end_group(leader: int) -> None:
    """Kill what is left of the session that `leader` began."""
    if hasattr(signal, "SIGKILL"):
        signal_group(leader, signal.SIGKILL)

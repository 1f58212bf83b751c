"""The JVM as a guest of a Python program: signals are Python's, and the program ends whichever thread started it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[4]

PROGRAM = """
import os, signal, threading
signal.signal(signal.SIGTERM, lambda *_: print("SIGTERM"))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a program in the background may have been told to ignore it
from kogpt.tokenizer.analyzers.load import load_analyzer
starting = threading.Thread(target=lambda: print(len(load_analyzer("kkma").analyze("나는 학교에 갔다.").morphemes)))
starting.start()
starting.join()
os.kill(os.getpid(), signal.SIGTERM)
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("Ctrl-C")
print(len(load_analyzer("kkma").analyze("나는 학교에 갔다.").morphemes))
"""


def test_signals_are_python_s_and_the_program_ends() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=200)
    assert done.stdout.split() == ["8", "SIGTERM", "Ctrl-C", "8"], done.stderr
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the JVM reads the locale on Linux")
def test_the_jvm_finds_the_project_in_a_folder_with_hangul_in_any_locale(tmp_path: Path) -> None:
    """It reads class paths in the locale's encoding, and where that is ASCII it used to end the process."""
    clone = tmp_path / "연구 자료"
    clone.symlink_to(PROJECT)
    program = (
        "from kogpt.tokenizer.analyzers.load import load_analyzer as a; print(len(a('kkma').analyze('간다').cuts))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    environment |= {"LC_ALL": "C", "PYTHONPATH": str(clone)}
    done = subprocess.run(
        [sys.executable, "-c", program + "; import os, kogpt; print(kogpt.__file__, os.environ['LC_ALL'])"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.stdout == f"1\n{clone}/kogpt/__init__.py C\n", done.stderr

"""The JVM as a guest of a Python program: signals are Python's, and the program ends whichever thread started it."""

import subprocess
import sys

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

#!/bin/sh
# Install kogpt and everything it needs, at pinned versions, into .venv beside this project.
# `make install` runs it on this machine, `ray up` on every node of a cluster. It needs only Python with venv.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

stop() {
    echo "kogpt: $1" >&2
    exit 2
}

command -v "$PYTHON" >/dev/null || stop "$PYTHON was not found; install it (apt install python3)."
command -v make >/dev/null || echo "kogpt: make was not found; 'make demo' needs it (apt install make)." >&2
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$("$PYTHON" --version) is too old; kogpt needs Python 3.11 or later (choose another one with make PYTHON=python3.12 install)."
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "Python's venv module was not found; install it (apt install python3-venv)."

echo "kogpt: installing into $(pwd)/.venv (a few minutes the first time)"
"$PYTHON" -m venv .venv
PATH="$(pwd)/.venv/bin:$PATH"
export PIP_CONSTRAINT="$(pwd)/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1
pip install --quiet --upgrade pip setuptools wheel

# torch comes first, because its build depends on the machine. PyPI has the build for the newest CUDA: gigabytes that a
# machine without an NVIDIA GPU cannot use and that an older driver cannot run. Where pip would take that one, let uv
# find the build of the same version that fits: for the CPU, or for the CUDA version of the driver.
torch=$(grep '^torch==' constraints.txt)
if pip install --dry-run --no-deps --quiet --report - "$torch" | grep -q '^ *"nvidia-'; then
    pip install --quiet uv
    uv pip install --quiet --torch-backend=auto "$torch" ||
        echo "kogpt: the build of torch for this machine cannot be downloaded; installing the one for the newest CUDA." >&2
fi
pip install --quiet "$torch"
pip install --quiet --quiet --editable '.[dev]'
touch .venv/installed

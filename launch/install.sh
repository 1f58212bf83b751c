#!/bin/sh
# Install kogpt and everything it needs, at pinned versions, into .venv beside this project.
# `make install` runs it here, `ray up` on every node of a cluster. Nothing but Python and pip is asked for.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

stop() {
    echo "kogpt: $1" >&2
    exit 2
}

command -v "$PYTHON" >/dev/null || stop "there is no $PYTHON here: install the package python3 (apt install python3)."
command -v make >/dev/null || echo "kogpt: make is missing, 'make demo' needs it: apt install make." >&2
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$("$PYTHON" --version) is too old: kogpt needs Python 3.11 or later (name another one: make PYTHON=python3.12 install)."
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "Python's venv module is missing: install the package python3-venv (apt install python3-venv)."

echo "kogpt: installing into $(pwd)/.venv (a few minutes the first time)"
"$PYTHON" -m venv .venv
PATH="$(pwd)/.venv/bin:$PATH"
export PIP_CONSTRAINT="$(pwd)/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1
pip install --quiet --upgrade pip setuptools wheel

# torch comes first, because it is the one package whose build depends on the machine. On PyPI it is the newest CUDA's:
# gigabytes that a machine without an NVIDIA GPU cannot use, and that an older driver does not run. Where pip would
# take that one, uv finds the build of the same version that fits: the CPU's, or that of the driver's CUDA.
torch=$(grep '^torch==' constraints.txt)
if pip install --dry-run --no-deps --quiet --report - "$torch" | grep -q '^ *"nvidia-'; then
    pip install --quiet uv
    uv pip install --quiet --torch-backend=auto "$torch" ||
        echo "kogpt: the build of torch for this machine cannot be reached; taking PyPI's, for the newest CUDA." >&2
fi
pip install --quiet "$torch"
pip install --quiet --quiet --editable '.[dev]'
touch .venv/installed

#!/bin/sh
# Install kogpt and everything it needs, at pinned versions, into .venv beside this project: `make install`.
# `ray up` runs it on every node of a cluster, and a Dockerfile in its image. It needs only Python with venv.
# With the argument `dev` it adds what the tests and checks need.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}

stop() {
    echo "kogpt: $1" >&2
    exit 2
}

command -v "$PYTHON" >/dev/null || stop "$PYTHON was not found; install it (apt install python3)."
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$("$PYTHON" --version) is too old; kogpt needs Python 3.11 or later (choose another one with make PYTHON=python3.12 install)."
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "Python's venv module was not found; install it (apt install python3-venv)."
[ -w . ] || stop "$(pwd) is not yours to write; clone the project into a folder of your own."

echo "kogpt: installing into $(pwd)/.venv (a few minutes the first time)"
"$PYTHON" -m venv .venv
PATH="$(pwd)/.venv/bin:$PATH"
# Downloads go through a folder beside their destination, because /tmp may be small.
mkdir -p .venv/tmp
TMPDIR="$(pwd)/.venv/tmp"
# A relative path: pip and uv cut what these two name at spaces.
export TMPDIR PIP_CONSTRAINT=constraints.txt UV_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1
python -m pip install --quiet --no-compile --upgrade pip uv
with_uv() { uv pip install --python .venv/bin/python --quiet "$@"; }

# torch comes first, because its build depends on the machine. PyPI has the build for the newest CUDA: gigabytes that a
# machine without an NVIDIA GPU cannot use and that an older driver cannot run. Where pip would take that one, let uv
# find the build of the same version that fits: for the CPU, or for the CUDA version of the driver.
torch=$(grep '^torch==' constraints.txt)
# uv goes by the driver alone, but CUDA 13 has nothing for cards before compute capability 7.5 (V100, P100).
weakest=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | sort -n | head -n 1)
case $weakest in
[3-6].[0-9] | 7.[0-4]) fitting=cu126 ;;
*) fitting=auto ;;
esac
if python -m pip install --dry-run --no-deps --quiet --report - "$torch" | grep -q '^ *"nvidia-'; then
    with_uv --torch-backend="${UV_TORCH_BACKEND:-$fitting}" "$torch" ||
        echo "kogpt: the build of torch for this machine cannot be downloaded; installing the one for the newest CUDA." >&2
fi
unset UV_TORCH_BACKEND
python -m pip install --quiet --no-compile --no-deps "$torch"

# uv downloads and unpacks side by side, and leaves it to Python to compile what is used. Where it cannot reach the
# packages, because it does not read pip's settings, pip installs them.
project=.${1:+"[$1]"}
with_uv --editable "$project" || python -m pip install --quiet --quiet --editable "$project"
rm -rf .venv/tmp
touch .venv/installed ${1:+".venv/$1"}

# make demo: everything on this machine, end to end.  make test: the tests.  Both install what they need first.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-long test-slow gpu-check lint format java install dev lock clean

demo: .venv/installed
	@$(BIN)/python launch/demo.py $(DEMO)

# Two files of tests at a time: a training of two ranks uses two cores, and most other tests wait as long as they work.
test: .venv/dev
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not crash and not cluster and not ecosystem and not slow" $(TESTS)

test-long: .venv/ecosystem
	@$(BIN)/python -m pytest -m "(crash or cluster or ecosystem) and not slow" $(TESTS)

test-slow: .venv/dev
	@$(BIN)/python -m pytest -m slow $(TESTS)

gpu-check: .venv/installed
	@$(BIN)/python bench/gpu_check.py $(CHECK)

lint: .venv/dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python -m mypy

format: .venv/dev
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

java: .venv/installed
	@$(BIN)/python -m kogpt.tokenizer.analyzers.kkma.compile

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt launch/install.sh
	@PYTHON="$(PYTHON)" sh launch/install.sh

# What the tests and checks need besides.
dev: .venv/dev

.venv/dev: pyproject.toml constraints.txt launch/install.sh
	@PYTHON="$(PYTHON)" sh launch/install.sh dev

.venv/ecosystem: .venv/dev
	@PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --quiet --editable '.[ecosystem]'
	@touch $@

# One set of versions for Python 3.11, 3.12 and 3.13.
lock: .venv/installed
	@$(BIN)/uv pip compile pyproject.toml --extra dev --extra ecosystem --universal --python-version 3.11 \
		--no-annotate --custom-compile-command "make lock" --output-file constraints.txt >/dev/null

clean:
	rm -rf demo

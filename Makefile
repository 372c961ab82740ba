# `make test` and `make demo` set everything up on a bare machine with python3, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup lint types contracts tests docs test test-slow demo format

setup: $(VENV)/.ready

# uv inside the virtual environment installs 6 GB in half a minute; pip needs four times as long.
$(VENV)/.ready: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -x $(BIN)/uv || $(BIN)/pip install --quiet uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python \
		--requirement requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports --no-cache

tests: setup
	$(BIN)/pytest -m "not slow and not gpu" -n 2

test: lint types contracts tests

test-slow: setup
	$(BIN)/pytest -m "slow or gpu"

docs: setup
	COLUMNS=80 $(BIN)/python -m tests.write_docs

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: setup
	$(BIN)/curator demo run demo-out

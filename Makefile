# `make test` and `make demo` set everything up on a bare machine with python3, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A test process holds up to 2 GB (torch, models), so a small machine with many cores runs fewer.
JOBS ?= $(shell awk -v cores=$$(nproc) '/MemTotal/ {fit = int($$2 / 3000000); \
	print fit < 1 ? 1 : fit < cores ? fit : cores}' /proc/meminfo 2>/dev/null || echo auto)

.PHONY: setup lint types contracts tests site docs test quick test-slow demo format

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
	$(BIN)/pytest -m "not slow and not gpu" -n $(JOBS)

# The documentation as pages in site/; dead links and anchors fail. (Not --quiet: it also drops the
# warnings that --strict counts.)
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: lint types contracts site tests

# While working: no checks of code, no test that takes more than two or three seconds.
quick: setup
	$(BIN)/pytest -m "not slow and not gpu and not long" -n $(JOBS)

test-slow: setup
	$(BIN)/pytest -m "slow or gpu"

# Pages of docs/reference that are made from code.
docs: setup
	COLUMNS=80 $(BIN)/python -m tests.write_docs

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: setup
	$(BIN)/curator demo run demo-out

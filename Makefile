# make install sets up .venv with what the commands need
# make train   sets up .venv, trains CLCAE on the embedded portraits, prints the table
# make test    sets up .venv, runs the tests on two cores
# make lint    sets up .venv, checks format, lint, types and the direction of imports
# PYTHON=python3.12 make train   chooses the interpreter (3.11 to 3.13)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train test lint format clean

help:
	@sed -n 's/^# //p' Makefile | sed -n '1,5p'

# The stamps make every target do its installation once, and again only when the needs change.
$(VENV)/core.stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] < (3, 14) else f"python 3.11 to 3.13 is needed, {sys.executable} is {v.major}.{v.minor}: PYTHON=python3.12 make ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/core.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/core.stamp

train: $(VENV)/core.stamp
	$(BIN)/python train.py $(ARGS)

test: $(VENV)/dev.stamp
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(ARGS)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

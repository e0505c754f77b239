# Every target works in a fresh clone: it makes the environment when that is missing or out of date.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(BIN)/python -m venue_analytics.demo

.PHONY: help install lock run up down clean psql test lint format

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv from the lock (the other targets do it when needed)

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0])'
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip --quiet --disable-pip-version-check install uv==0.13.9; }
	@echo "Installing the locked packages into $(VENV) …"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock --link-mode=copy
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . 'uv==0.13.9'
	@touch $@

lock: ## resolve requirements*.txt into requirements.lock
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip --quiet --disable-pip-version-check install uv==0.13.9; }
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header requirements-dev.txt --output-file requirements.lock

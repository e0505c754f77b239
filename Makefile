# Every target works in a fresh clone: it makes the environment when that is missing or out of date.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(BIN)/python -m venue_analytics.demo

.PHONY: bench chaos help install lock run up down clean psql test test-deep lint format docs

# Where bytecode is not kept (as in many images), each Airflow process compiles 6 s of imports anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv from the lock (the other targets do it when needed)

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 …")'
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip --quiet --disable-pip-version-check install uv==0.13.9; }
	@echo "Installing the locked packages into $(VENV) …"
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock --link-mode=copy
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable . 'uv==0.13.9'
	@touch $@

# Each process has servers of its own; tests/conftest.py shares the tests out.
TEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --no-loadscope-reorder

test: $(VENV)/.installed ## run the tests, on real PostgreSQL and Valkey
	@$(TEST)

test-deep: $(VENV)/.installed ## run all tests, on PostgreSQL 16 and 18, with many more examples
	@$(TEST) --deep

chaos: $(VENV)/.installed ## provoke every fault of docs/faults.md, and print that table with results
	@$(BIN)/python -m pytest --deep -m fault -p tests.chaos

bench: $(VENV)/.installed ## measure RFM scoring beside other ways, against its goals; S and M, or SIZE=S, M, L
	@$(BIN)/python -m bench.rfm_scoring $(if $(SIZE),--size '$(SIZE)')

lint: $(VENV)/.installed ## check style, types, import walls and SQL
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy include $(wildcard plugins/*.py)
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/sqlfluff lint include

format: $(VENV)/.installed ## put Python and SQL into shape
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/sqlfluff fix include

docs: $(VENV)/.installed ## write docs/settings.md anew, from the models of the settings
	@$(BIN)/python -m venue_analytics.settings_reference

lock: ## resolve requirements*.txt into requirements.lock
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip --quiet --disable-pip-version-check install uv==0.13.9; }
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header requirements-dev.txt --output-file requirements.lock

# DATA=orders.csv runs the jobs on your own purchases (as of AS_OF=2026-03-01; ARGS='--venue-column Hall' and
# the other options of load-orders); SCALE=10 makes a bigger demo; UI=0 ends when the run has.
DATASET = $(if $(DATA),--data '$(DATA)')
SCALED = $(if $(SCALE),--scale '$(SCALE)')

run: $(VENV)/.installed ## run every job on the demo, or on DATA=orders.csv [AS_OF= ARGS=]; serve the UI (UI=0: do not) [SCALE=]
	@$(DEMO) run $(DATASET) $(SCALED) $(if $(AS_OF),--as-of '$(AS_OF)') $(if $(filter 0,$(UI)),--no-ui) $(ARGS)

up: $(VENV)/.installed ## serve the Airflow UI without making a run
	@$(DEMO) up $(DATASET) $(SCALED) $(ARGS)

down: $(VENV)/.installed ## stop whatever run or up has started
	@$(DEMO) down

clean: $(VENV)/.installed ## stop everything and remove .local, the demo's data
	@$(DEMO) clean

psql: $(VENV)/.installed ## open psql on the demo's database, or on that of DATA=orders.csv
	@$(DEMO) psql $(DATASET) $(ARGS)

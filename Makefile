# Everything runs in one virtual environment, made once and made anew when the pinned versions change.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
READY := $(VENV)/ready
# Modules are compiled when they are first imported: to compile all that is installed takes longer than to install it.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# Empty is as if not set: a process that finds no bytecode compiles all that it imports, which takes it ten seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test tests test-long lint docs format clean

help:
	@echo "make demo       set up, run the demonstration studies (digits, number words), show tables, decisions and reports"
	@echo "make test       set up, run all tests and checks"
	@echo "make test-long  set up, run the tests that take long"
	@echo "make docs       set up, build the site of docs/ into build/site"
	@echo "make format     let ruff format and fix the code"
	@echo "make clean      remove the virtual environment"

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "== setting up the virtual environment in $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "leanformer needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== installing the pinned versions"
	@$(INSTALL) torch
	@$(INSTALL) -e '.[dev,docs]'
	@touch $@

demo: $(READY)
	@echo "== running examples/digits.yaml: a vision transformer and its minimal forms on handwritten digits"
	@$(BIN)/leanformer run examples/digits.yaml --out runs/digits --jobs 2
	@echo "== running examples/number-words.yaml: a translator, and students taught by it that attend less"
	@$(BIN)/leanformer run examples/number-words.yaml --out runs/number-words --jobs 2

# Both at once: mypy alone would leave all cores but one idle for most of a minute.
test: $(READY)
	@$(MAKE) --no-print-directory --jobs 2 lint tests

tests: $(READY)
	@echo "== tests"
	@$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test-long: $(READY)
	@echo "== tests that take long"
	@$(BIN)/python -m pytest -m long --numprocesses logical --maxprocesses 4 --dist worksteal

lint: $(READY)
	@echo "== ruff, contracts of imports and mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/mypy

docs: $(READY)
	@echo "== the site of docs/"
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo "site: build/site/index.html"

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV)

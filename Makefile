# kdaug. Every target first installs what it needs into .venv; nothing has to be activated.
#
# PYTHON  the Python that creates .venv (default: the first of CANDIDATES that runs and is 3.11 or newer)

PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.14 python3.13 python3.12 python3.11 python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-all check bench docs
.NOTPARALLEL:

help: ## print this list
	@echo "usage: make TARGET [PYTHON=/path/to/python]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-9s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.installed ## train a network plain, augmented and with a teacher on bundled images; write runs/demo
	$(BIN)/kdaug demo --out runs/demo

test: $(VENV)/.installed-dev ## run the tests without the slow ones, on up to eight cores
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test-all: $(VENV)/.installed-dev ## run all tests
	$(BIN)/python -m pytest -m "" --timeout 3600

check: $(VENV)/.installed-dev ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed-bench ## run every benchmark: benchmarks/NAME.py --json benchmarks/results/NAME.json
	@set -e; mkdir -p benchmarks/results; \
	for script in benchmarks/*.py; do \
	    result="benchmarks/results/$$(basename "$$script" .py).json"; \
	    echo "$$script -> $$result"; \
	    $(BIN)/python "$$script" --json "$$result"; \
	done

docs: $(VENV)/.installed-docs ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -b html -W --keep-going -d docs/_build/doctrees docs docs/_build/html

# A candidate must run (a pyenv shim may not) and be able to create an environment with pip.
$(VENV)/.created:
	@for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        echo "kdaug: creating $(VENV) with $$candidate ($$("$$candidate" --version))"; \
	        "$$candidate" -m venv $(VENV) && touch $@; exit; \
	    fi; \
	done; \
	echo "kdaug: found no Python 3.11 or newer that runs and has its venv module (tried: $(CANDIDATES))." >&2; \
	echo "Install one (on Debian and Ubuntu also python3-venv), or set its path: make PYTHON=/path/to/python3.12 demo" >&2; \
	exit 1

# The stamps depend on pyproject.toml, so packages are installed again only when it changes.
$(VENV)/.installed: pyproject.toml $(VENV)/.created
	@echo "kdaug: installing into $(VENV) (the first time this downloads torch, which takes minutes)"
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.created
	@echo "kdaug: installing into $(VENV) (the first time this downloads torch, which takes minutes)"
	$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml $(VENV)/.created
	@echo "kdaug: installing into $(VENV) (the first time this downloads torch, which takes minutes)"
	$(PIP) install --editable '.[bench]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.created
	@echo "kdaug: installing into $(VENV) (the first time this downloads torch, which takes minutes)"
	$(PIP) install --editable '.[docs]'
	@touch $(VENV)/.installed $@

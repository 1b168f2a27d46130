# `make demo` and `make test` need Python 3.11 or newer, git and make, and nothing else: all the rest is installed into .venv.
PYTHON ?= python3
SIZE ?= standard
OUT ?= earmark_data/demo
BIN := .venv/bin

.PHONY: demo test gpu check slow matrix install clean

# A .venv whose python is gone, or that was made in another folder, is made anew.
ifeq ($(findstring from $(CURDIR)/.venv/,$(shell $(BIN)/pip --version 2>/dev/null)),)
.PHONY: .venv/core .venv/installed
endif
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

install: .venv/installed

.venv/core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Earmark needs Python 3.11 or newer; name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "$(PYTHON) has no venv module (Debian, Ubuntu: install python3-venv)" >&2; exit 1; }
	$(BIN)/pip --version 2>/dev/null | grep -qF 'from $(CURDIR)/.venv/' || $(PYTHON) -m venv --clear .venv
	$(PIP) .
	@touch $@

.venv/installed: .venv/core
	$(PIP) '.[dev]'
	@touch $@

demo: .venv/core  ## A kitchen is made, prepared, learned from and judged, in under 5 minutes on 2 cores
	$(BIN)/earmark demo --size $(SIZE) --out $(OUT)

test: install  ## The default tests, under 10 minutes on 2 cores; then those of a GPU, where there is one
	$(BIN)/pytest
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then $(MAKE) --no-print-directory gpu; \
	else echo "No GPU: the tests marked gpu were left out."; fi

gpu: install  ## The tests that need a GPU; all others hide it
	$(BIN)/pytest -m gpu --run-slow

slow: install  ## All tests
	$(BIN)/pytest --run-slow

check: install  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

matrix:  ## Media, moments, preparing and commands under each Python found, with the newest and the oldest libraries
	$(PYTHON) .ci/matrix.py

clean:
	rm -rf .venv

# Needs Python 3.11 or newer and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/pytest -q -n 2 --dist loadgroup

.PHONY: dev test check format bench chaos compat lock wheel clean

dev: .venv/runtime
	@exec $(BIN)/clew dev

test: .venv/dev
	$(PYTEST)

check: .venv/dev .types/clew
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	PYTHONPATH=.types $(BIN)/lint-imports

# Where pyright and import-linter find the packages under the names that they are installed by.
.types/clew:
	@mkdir -p $@
	@ln -s ../../api ../../runtime ../../checkpointing $@

format: .venv/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Long runs, each with its own figures; their short versions are part of `make test`.
bench: .venv/dev
	$(BIN)/python -m tests.bench

chaos: .venv/dev
	CLEW_LONG=1 $(BIN)/pytest -q tests/chaos tests/fuzz --timeout 3600

# The same script of requests to the official in-memory server, in an environment of its own, and
# to Clew: what differs is documented in tests/compat/divergences.py, or a fault.
compat: .venv/dev .venv-compat/installed
	$(BIN)/python -m tests.compat

wheel: .venv/runtime
	$(BIN)/pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist .

# The exact versions and their hashes. Needs uv, which nothing else here does.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--extra embedded --extra redis --group build pyproject.toml
lock:
	$(LOCK) -o requirements.lock
	$(LOCK) --group dev -c requirements.lock -o requirements-dev.lock

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Clew needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/runtime: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing into .venv: about half a minute, once."
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev: requirements-dev.lock | .venv/runtime
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

.venv-compat/installed: tests/compat/requirements.txt
	$(PYTHON) -m venv .venv-compat
	@.venv-compat/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

clean:
	rm -rf .venv .venv-compat .types build dist *.egg-info

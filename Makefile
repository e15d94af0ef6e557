# The same few words for a person and for CI. `make help` lists them.

uv := scripts/uv
ROUNDS ?= 20
SEEDS ?= 200

# Each recipe may install uv or sync .venv: one at a time.
.NOTPARALLEL:
.DEFAULT_GOAL := help

.PHONY: help
help: ## List these words
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## See it run: a control plane, workers and tasks on this machine
	$(uv) run fastworker demo

.PHONY: test
test: ## Run the tests: all that can run side by side, then those that measure time
	$(uv) run pytest -n 2 --dist loadfile --ignore tests/chaos
	$(uv) run pytest tests/chaos

.PHONY: check
check: lint types layers test ## All that a change must pass: lint, types, layers, test

.PHONY: lint
lint: ## Find mistakes and wrong formatting (ruff)
	$(uv) run ruff check
	$(uv) run ruff format --check

.PHONY: format
format: ## Put right what ruff can put right by itself
	$(uv) run ruff check --fix
	$(uv) run ruff format

.PHONY: types
types: ## Check the types (mypy, strict)
	$(uv) run mypy $(wildcard packages/*/src tests examples benchmarks)

.PHONY: layers
layers: ## Check that imports point only downward (import-linter)
	$(uv) run lint-imports

.PHONY: newest
newest: ## Run the fast tests on the newest Python that is supported
	WANTED_PYTHON=3.13 UV_PROJECT_ENVIRONMENT=.venv-newest $(uv) run pytest tests/core tests/worker tests/server

.PHONY: bench
bench: ## Measure speed, beside the other task queues
	$(uv) run python -m benchmarks

.PHONY: chaos
chaos: ## Kill and stall real processes: make chaos ROUNDS=1000
	$(uv) run pytest tests/chaos --full --rounds=$(ROUNDS)

.PHONY: simulate
simulate: ## Run the seeded simulator: make simulate SEEDS=10000
	$(uv) run python -m tests.simulation --seeds $(SEEDS)

.PHONY: packaging
packaging: ## Build the wheels and try them in clean environments
	$(uv) run pytest tests/packaging -m packaging

.PHONY: wheels
wheels: ## Build every wheel into dist/
	rm -rf dist
	$(uv) build --all-packages --out-dir dist

.PHONY: clean
clean: ## Remove what was built, cached and installed here
	rm -rf .venv .tools dist build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

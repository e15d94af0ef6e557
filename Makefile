# The same few words for a person and for CI. `make help` lists them.

uv := scripts/uv
ROUNDS ?= 20
MUTANTS ?= 1000000
SECONDS ?= 120
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
test: ## Run the tests: all that can run side by side, those in a browser, and those that need the machine for themselves
	$(uv) run pytest -n 3 --dist loadfile -m "not wheels and not netns and not systemd and not calm" --ignore tests/browser
	$(uv) run pytest -n 2 --dist loadfile tests/browser
	$(uv) run pytest -m calm tests/chaos tests/integration

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
	WANTED_PYTHON=3.13 UV_PROJECT_ENVIRONMENT=.venv-newest $(uv) run pytest -n 2 --dist loadfile tests/core tests/worker tests/server \
		--ignore tests/server/test_ten_years_of_cron.py

.PHONY: bench
bench: ## Measure speed, beside the other task queues
	$(uv) run python -m benchmarks

.PHONY: chaos
chaos: ## Kill and stall real processes: make chaos ROUNDS=1000
	$(uv) run pytest tests/chaos --full --rounds=$(ROUNDS)

.PHONY: simulate
simulate: ## Run the seeded simulator: make simulate SEEDS=10000, or GRAPHS=1000
	$(uv) run python -m tests.simulation $(if $(GRAPHS),--graphs $(GRAPHS),--seeds $(SEEDS))

.PHONY: mutants
mutants: ## Send mutated frames to each kind of listener: make mutants MUTANTS=50000000
	$(uv) run pytest tests/security/test_mutated_frames.py --full --mutants=$(MUTANTS) -s

.PHONY: fuzz
fuzz: ## Fuzz all that reads what others wrote (atheris): make fuzz SECONDS=3600
	$(uv) run --group fuzz python -m tests.fuzz $(SECONDS)

.PHONY: dashboard
dashboard: ## Try the dashboard in full size: a million tasks, a minute of load, in a real browser
	$(uv) run pytest tests/dashboard tests/browser --full

.PHONY: shots
shots: ## Keep a picture of every page of the dashboard in docs/images
	$(uv) run python -m tests.browser.pictures

.PHONY: hosts
hosts: ## Try what takes root on Linux: hosts on a network (iproute2), units (systemd)
	$(uv) run pytest -n 2 tests/network tests/deploy -m "netns or systemd"

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

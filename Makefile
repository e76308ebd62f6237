# Two commands: `make demo` and `make test`. Both make the environment first, and may be run again.
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
READY := $(VENV)/.ready

NEWEST := .venv-newest
TESTS ?= tests/unit/providers/test_contract.py

# empty, whatever the shell says: pytest compiles the tests once, not in each process that runs them
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test slow nights newest lint check docs wheel release bench clean

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(READY): pyproject.toml constraints.txt
	@echo "Making the environment in $(VENV) (once; a minute or two) ..."
	@sh scripts/install $(VENV) $(PYTHON)
	@touch $@

demo: $(READY) ## enrich 400 package summaries with two providers' models, for free
	@$(BIN)/batchata demo

test: $(READY) ## the test suite, but for `slow`
	@$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder -m "not slow"

slow: $(READY) ## the README block by block, a schedule that fires, servers and programs as people start them (3 minutes)
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile -m "slow and not nights"

nights: $(READY) ## workers that are lost, and what `test` leaves to nights (20 minutes)
	@$(BIN)/python -m pytest -q -m nights
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --every-case -m "in_turn or ((sampled or hypothesis) and not nights)"

newest: ## a schedule, and TESTS, with the newest packages that pyproject.toml admits
	@sh scripts/install $(NEWEST) $(PYTHON) newest
	@$(NEWEST)/bin/python -m pytest -q -n 3 --dist loadfile $(TESTS) -m "not slow"
	@$(NEWEST)/bin/python -m pytest -q -n 2 --dist loadfile -m "slow and not nights"

lint: $(READY) ## ruff, the layers (import-linter) and pyright
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pyright --pythonpath $(BIN)/python

check: lint test slow ## what CI runs

docs: $(READY) ## the API documentation and the JSON Schema of specs, in docs/api
	@$(BIN)/pdoc --output-directory docs/api batchata_tasks batchata_tasks.providers
	@$(BIN)/batchata schema >docs/api/spec.schema.json

wheel: $(READY) ## build the wheel and try it in an environment of its own
	@sh scripts/try_wheel $(PYTHON)

# by the environment, and as it was written: neither make nor the shell runs what it says
release: override export VERSION := $(value VERSION)
release: ## VERSION=x.y.z: set the version, date the changelog, commit and tag
	@sh scripts/release "$$VERSION"

bench: $(READY) ## throughput and memory for 100,000 rows a provider, beside a floor
	@$(BIN)/python benchmarks/throughput.py

clean: ## remove the environment and what runs left
	@rm -rf $(VENV) $(NEWEST) data/out

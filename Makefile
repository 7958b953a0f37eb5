# Everything a newcomer needs. `make` alone lists the targets.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
HOST   ?= $(or $(CITEWELL_HOST),127.0.0.1)
PORT   ?= $(or $(CITEWELL_PORT),8000)
# Processes that run tests side by side: many tests wait for a server. 0 runs them in one, for a debugger.
WORKERS ?= 3
UV_VERSION := 0.13.9
TORCH_VERSION := 2.13.0

.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; v = sys.version_info; v < (3, 11) and sys.exit("Citewell needs Python 3.11 or later, and $(PYTHON) is %d.%d: name another, as PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

# The lock files are complete, so nothing is resolved here (--no-deps) and every file is checked (hashes).
$(VENV)/.run: $(BIN)/uv requirements/run.txt pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/run.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.run requirements/image.txt requirements/test.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/test.txt
	@touch $@

$(VENV)/.ui: $(VENV)/.run requirements/test.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraints requirements/test.txt --editable '.[ui]'
	@touch $@

$(VENV)/.bench: $(VENV)/.test requirements/bench.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements/bench.txt
	@touch $@

setup: $(VENV)/.run  ## build .venv with the locked dependencies

lock: $(BIN)/uv  ## resolve the dependencies anew (add ARGS=--upgrade for newer ones)
	UV=$(BIN)/uv sh requirements/lock.sh $(ARGS)

run: $(VENV)/.run  ## set up, ingest the sample documents and start the service
	$(BIN)/python ingest.py examples docs
	CITEWELL_HOST=$(HOST) CITEWELL_PORT=$(PORT) $(BIN)/citewell-server

test: $(VENV)/.test  ## set up, then run every test that needs no key (ARGS="-k name" for some)
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(ARGS)

soak: $(VENV)/.test  ## the tests that kill workers again and again, for minutes
	$(BIN)/python -m pytest -m slow $(ARGS)

check: $(VENV)/.test  ## format, lint, types, imports, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

docs: $(VENV)/.test  ## write the generated pages, the picture of the graph and .env.example
	$(BIN)/python -m docs.generate

site: $(VENV)/.test  ## write the documentation as a site, site/index.html; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

eval: $(VENV)/.test  ## measure quality on the evaluation packs: a table and plots
	$(BIN)/python -m evals.all $(ARGS)

bench: $(VENV)/.bench  ## measure speed: turns under load, threads, retrieval, embedding
	$(BIN)/python -m benchmarks.load $(ARGS)
	$(BIN)/python -m benchmarks.threads
	$(BIN)/python -m benchmarks.ingestion
	$(BIN)/python -m benchmarks.retrieval
	$(BIN)/python -m benchmarks.embedding

ui: $(VENV)/.ui  ## the chat page, over a service that `make run` started
	$(BIN)/python -m citewell.ui $(ARGS)

studio: $(VENV)/.test  ## the same graph, step by step, in langgraph dev
	$(BIN)/langgraph dev --no-browser

clean:  ## remove the index, the threads and the environment
	rm -rf .citewell .langgraph_api site $(VENV)

.PHONY: help setup lock run test soak check docs site eval bench ui studio clean

# Every target installs what it needs; only Python >= 3.11, pip and make have to be there before.
PYTHON ?= python3
MODEL ?= demo
PRETRAINED ?=
IMAGES ?= clip_retrieval/sample
PORT ?= 3000
HOST ?=
BENCH ?=
SCALE ?=
EMBED ?=
LIVE ?=
START ?=
LOAD ?=
CHAOS ?=
ARTIFACT ?=
BACKEND ?=
ROWS ?=

VENV := .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.installed-build
DEV := $(VENV)/.installed-dev
# Tests that start real servers run one after the other: they look at the clock, and they need the cores themselves.
PARALLEL_TESTS := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8
export BENTOML_DO_NOT_TRACK := True

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all test-slow test-e2e test-long browser store bench bench-embedding bench-embed-scale bench-threads bench-scale bench-live bench-start bench-engines bench-isa bench-split bench-overload fidelity load chaos \
  bento image image-test some-artifact lint format constraints clean

help:  ## Show this list
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

env: $(ENV)  ## Make the environment in .venv

$(ENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar on -c constraints.txt -e '.[build]'
	@touch $@

# A test compares our recalls with clip-benchmark's. It is installed without its dependencies: the recalls need only
# torch and tqdm.
$(DEV): $(ENV)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps clip-benchmark
	@touch $@

demo: $(ENV)  ## Build and serve the bundled photographs, or IMAGES=, with MODEL= and PRETRAINED=, on PORT=
	@tag=$$($(BIN)/bento-clip build "$(IMAGES)" --model "$(MODEL)" $(if $(PRETRAINED),--pretrained "$(PRETRAINED)")) \
	  && exec $(BIN)/bento-clip serve "$$tag" --port $(PORT)

test: $(DEV)  ## Run the default tests
	$(PARALLEL_TESTS)

test-all: $(DEV) browser store  ## Run every test, also the slow and the end-to-end tests
	$(BIN)/python -m pytest -m ''

test-slow: $(DEV)  ## Run the tests that need torch or time
	$(PARALLEL_TESTS) -m 'slow and not e2e'

test-e2e: $(DEV) browser store  ## Run the tests that start real servers and a browser
	$(BIN)/python -m pytest -m 'e2e and not slow'

test-long: $(DEV)  ## Run the long forms of the tests that start real servers: hundreds of swaps and kills
	$(BIN)/python -m pytest -m 'e2e and slow'

browser:  ## Install Debian's Chromium for the tests of the search page, if it is missing
	@if test -x /usr/bin/chromium; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
	else echo "no /usr/bin/chromium: the tests of the search page are skipped; install it with: sudo apt-get install chromium"; fi

store:  ## Install Debian's Redis for the tests of limits that several services share, if it is missing
	@if test -x /usr/bin/redis-server; then :; \
	elif test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server; \
	else echo "no /usr/bin/redis-server: the tests that need it are skipped; install it with: sudo apt-get install redis-server"; fi

bench: $(DEV)  ## Measure the service beside a baseline (BENCH= for options)
	$(BIN)/python -m scripts.bench_serving $(BENCH)

bench-embedding: $(DEV)  ## Measure bulk embedding beside the bare encoder (BENCH= for options)
	$(BIN)/python -m scripts.bench_embedding $(BENCH)

bench-embed-scale: $(DEV)  ## Measure embedding with workers on Ray, and compute it for large collections (EMBED=--short)
	$(BIN)/python -m scripts.bench_embed_scale $(EMBED)

bench-threads: $(DEV)  ## Compare numbers of workers and of encoder threads (BENCH= for options)
	$(BIN)/python -m scripts.bench_threads $(BENCH)

bench-scale: $(DEV)  ## Measure every index family up to a million images (SCALE= for options)
	$(BIN)/python -m scripts.bench_scale $(SCALE)

bench-engines: $(DEV)  ## Measure the same collection behind FAISS and Milvus Lite (ENGINES= for options)
	$(BIN)/python -m scripts.bench_engines $(ENGINES)

bench-isa: $(DEV)  ## Measure the encoder alone in every way, with the instructions of lesser CPUs too (ISA= for options)
	$(BIN)/python -m scripts.bench_isa $(ISA)

bench-split: $(DEV)  ## Measure the one service beside the two, an encoder and a search (SPLIT= for options)
	$(BIN)/python -m scripts.bench_split $(SPLIT)

bench-overload: $(DEV)  ## Measure what a crowd and slow clients cost the answers of others (OVERLOAD= for options)
	$(BIN)/python -m scripts.bench_overload $(OVERLOAD)

bench-live: $(DEV)  ## Measure a collection that changes while it is served (LIVE= for options)
	$(BIN)/python -m scripts.bench_live $(LIVE)

bench-start: $(DEV)  ## Measure a start from nothing to the first answer, by stage (START= for options)
	$(BIN)/python -m scripts.bench_start $(START)

fidelity: $(DEV)  ## Measure how much recall each numeric precision costs
	$(BIN)/python -m scripts.fidelity

load: $(DEV)  ## Load the newest artifact, ROWS= synthetic images or HOST= to saturation and back (LOAD= for options)
	$(BIN)/python -m loadtests.run $(if $(HOST),--host $(HOST)) $(if $(ROWS),--rows $(ROWS)) $(LOAD)

chaos: $(DEV)  ## Kill builds and servers, fill a disk, send too many and too slow clients, watch memory (CHAOS=--short)
	$(BIN)/python -m scripts.chaos $(CHAOS)

some-artifact: $(ENV)
	@$(if $(ARTIFACT),true,$(BIN)/bento-clip info >/dev/null 2>&1 \
	  || $(BIN)/bento-clip build clip_retrieval/sample --model demo >&2)

bento: some-artifact  ## Make the Bento of the newest artifact (of the demo if there is none), or of ARTIFACT=
	@$(BIN)/python -m scripts.bento $(if $(ARTIFACT),--artifact "$(ARTIFACT)") $(if $(BASIC_FORMATS),--basic-formats) $(if $(BUCKETS),--buckets)

image: some-artifact  ## Make the container image of that Bento with the first engine that works, or BACKEND=; list its contents by size
	@$(BIN)/python -m scripts.image $(if $(ARTIFACT),--artifact "$(ARTIFACT)") $(if $(BACKEND),--backend "$(BACKEND)") \
	  $(if $(BASIC_FORMATS),--basic-formats) $(if $(BUCKETS),--buckets)

image-test: $(DEV)  ## Build the image of the demo, or of ARTIFACT=, run it as in production and check it
	tag=$(or $(ARTIFACT),$$($(BIN)/bento-clip build clip_retrieval/sample --model demo)) \
	  && $(BIN)/python -m scripts.image_test --artifact "$$tag" $(if $(BACKEND),--backend "$(BACKEND)")

lint: $(DEV)  ## Lint, check the format, check the types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)  ## Format the code
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

constraints: $(DEV)  ## Pin every package at its installed version
	{ echo "# Every package of the environment at the version that was tested. Made by: make constraints"; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | sed 's/+cpu$$//'; } > constraints.txt
	$(BIN)/python -m scripts.oci.pins

clean:  ## Remove the environment and every generated file
	rm -rf $(VENV) build dist reports .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

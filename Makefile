# Needs make and any python3; everything else lands in .venv, .venv-lava, .tools. `make help` lists targets.
.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs fuzz crash bench clean

SHELL  := /bin/sh
PYTHON := .venv/bin/python
STAMP  := .venv/.stamp
# Tests run side by side, each on one thread: threads of several would only fight for the cores.
JOBS   ?= 2
export OMP_NUM_THREADS ?= 1
LINT   := $(PYTHON) -m ruff check . && $(PYTHON) -m ruff format --check . && $(PYTHON) -m mypy

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

setup: $(STAMP)  ## build .venv, and .venv-lava for Lava (the others do it when needed)

$(STAMP): pyproject.toml constraints.txt constraints-lava.txt tools/setup.sh
	@sh tools/setup.sh

demo: $(STAMP)  ## the main job on real digits: train, compile, run on Lava, compare, learn; runs/demo/report.html
	$(PYTHON) -m ep_neuro demo --out runs/demo

test: $(STAMP)  ## lint, types and all tests but the slow ones
	@# Lint works beside the tests and speaks after them; either failing is a failure.
	@log=$$(mktemp); ($(LINT)) >"$$log" 2>&1 & lint=$$!; \
	$(PYTHON) -m pytest -m "not slow" -n $(JOBS) --dist loadgroup --no-loadscope-reorder; \
	tests=$$?; wait $$lint; lint=$$?; cat "$$log"; rm -f "$$log"; exit $$((tests + lint))

lint: $(STAMP)  ## ruff and mypy
	@$(LINT)

format: $(STAMP)  ## let ruff rewrite what it can
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

docs: $(STAMP)  ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

fuzz: $(STAMP)  ## 10,000 inputs of each class, good and bad; faults are kept in runs/fuzz
	$(PYTHON) -m tests.fuzz

crash: $(STAMP)  ## 1,000 kills and failing disks; nothing may be lost, left or wrong
	$(PYTHON) -m tests.crash

bench: $(STAMP)  ## measure settling, training and checks on this machine; benchmarks.json
	$(PYTHON) -m tests.benchmarks.bench_settle
	$(PYTHON) -m tests.benchmarks.bench_reference
	$(PYTHON) -m tests.benchmarks.bench_checks
	$(PYTHON) -m tests.benchmarks.bench_training --out benchmarks.json

clean:  ## remove the environment, caches and runs
	rm -rf .venv .venv-lava .tools .pytest_cache .mypy_cache .ruff_cache .hypothesis dist runs site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

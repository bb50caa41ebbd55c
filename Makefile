# `make` alone lists the verbs.
.DEFAULT_GOAL := help
.PHONY: help setup demo up test check bench bench-gpu
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `setup` installs: dev (all), or server (to run the studio). A stamp in the environment says what was installed.
EXTRA ?= dev

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-10s%s\n", $$1, $$2}'

setup: $(VENV)/.$(EXTRA) ## create .venv and install the studio (EXTRA=server: without the tools for development)

demo: $(VENV)/.server ## fine-tune a small model end to end (MODEL=... DATASET=... for your own)
	$(BIN)/python -m demo $(if $(MODEL),--model '$(MODEL)') $(if $(DATASET),--dataset '$(DATASET)')

up: $(VENV)/.server ## start the studio (ARGS='--port 8001 ...')
	$(BIN)/peft-studio up $(ARGS)

test: $(VENV)/.dev ## run all tests (ARGS='tests/unit -k name ...')
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@# A file at a time on each core, in the order of the tree: contracts first, whose one long test has nobody beside it
	@# at the end. Acceptance tests start whole studios: two at a time are enough for any machine.
	@failed=0; \
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder --ignore tests/acceptance || failed=1; \
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/acceptance || failed=1; \
	exit $$failed
endif

check: $(VENV)/.dev ## lint, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.server ## measure start-up, first step and API latency beside their limits
	$(BIN)/python -m benchmarks $(ARGS)

bench-gpu: $(VENV)/.server ## on an NVIDIA GPU: the trainer beside Unsloth and TRL (docs/benchmarks.md)
	@if command -v nvidia-smi >/dev/null; then $(MAKE) $(VENV)/.gpu; fi
	$(BIN)/python -m benchmarks gpu_training

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The pinned torch keeps pip from fetching a build with several GB of CUDA packages where one without is at hand.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

$(VENV)/.server: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[server]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.server $@

# The kernels that the trainer takes on a GPU. FlashAttention is compiled; where that fails, training goes without.
$(VENV)/.gpu: pyproject.toml constraints.txt | $(VENV)/.server
	$(INSTALL) -e '.[server,gpu]' ninja packaging setuptools wheel
	-$(INSTALL) --no-build-isolation flash-attn
	@touch $@

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help .venv figures paper record notebooks test sync bench cost kill clean

VENV ?= .venv
PRESETS ?= organism-llama organism-gemma2
MODEL ?=
PROFILE ?= profiles/local-gpu
KILLS ?= 10
PYTHON := $(abspath $(VENV))/bin/python

# The same in every run: hash order, threads (the workflow gives large models more), the plots' backend. The kernel is
# this environment's own, whatever kernels the user has registered elsewhere.
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export OMP_NUM_THREADS := 1
export MPLBACKEND := module://matplotlib_inline.backend_inline
export JUPYTER_PATH := $(abspath $(VENV))/share/jupyter
export JUPYTER_PREFER_ENV_PATH := 1
export PATH := $(abspath $(VENV))/bin:$(PATH)

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo 'PRESETS="organism-llama tiny" picks presets of `figures` and `record`; VENV="$$CONDA_PREFIX" takes an'
	@echo 'environment of yours.'
	@echo 'MODEL=gemma-2-2b-it is the preset of `paper`, PROFILE=profiles/slurm sends it to a cluster.'

.venv: $(VENV)/.installed ## set up the environment

figures: $(VENV)/.installed ## compute everything for PRESETS, and compare it with what is on record
	$(call workflow,$(HERE),$(PRESETS))
	@$(PYTHON) -m steerpaper.reproduction compare "$(PRESETS)"

paper: $(VENV)/.installed ## the same for one large model: MODEL=gemma-2-2b-it, one notebook at a time on a GPU
	$(call workflow,--profile $(PROFILE),$(MODEL))
	@$(PYTHON) -m steerpaper.reproduction compare "$(MODEL)"

record: $(VENV)/.installed ## the same, and put it on record: tables, figures, RESULTS.md, executed notebooks
	$(call workflow,$(HERE),$(PRESETS) organism-llama tiny)
	@$(PYTHON) -m steerpaper.reproduction record "$(PRESETS)"
	@$(PYTHON) -m steerpaper.results
	@$(PYTHON) -m steerpaper.recording

notebooks: $(VENV)/.installed ## execute the notebooks that are committed, and those that the tests compare with
	$(call workflow,$(HERE),organism-llama tiny)
	@$(PYTHON) -m steerpaper.recording

test: export TQDM_DISABLE := 1
test: $(VENV)/.installed ## the whole test suite, with the recorded notebooks executed again
	$(PYTHON) -m pytest --nbval --nbval-current-env

sync: $(VENV)/.installed ## bring both files of every notebook pair to the newer one's content
	$(PYTHON) -m jupytext --sync notebooks/*.py

bench: export TQDM_DISABLE := 1
bench: $(VENV)/.installed ## measure the cost of attribution and circuit runs, and write it into the README
	$(PYTHON) benchmarks/attribution.py
	$(PYTHON) benchmarks/generation.py

cost: $(VENV)/.installed ## measure time and memory at the paper's sizes on a GPU, and write them into the README
	$(PYTHON) benchmarks/cost.py

kill: export TQDM_DISABLE := 1
kill: $(VENV)/.installed ## kill the workflow at KILLS random moments: every rerun must end with the same bytes (hours)
	$(PYTHON) benchmarks/kill.py $(KILLS) $(PRESETS)

clean: ## remove what was computed and is not committed (keeps the environment)
	rm -rf build .snakemake .pytest_cache data/results/tiny figures/tiny

$(VENV)/.installed: requirements.txt pyproject.toml
	@if [ ! -x $(PYTHON) ]; then \
	  for python in python3.11 python3 none; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	  done; \
	  if [ $$python = none ]; then \
	    echo "steerpaper needs Python 3.11 or newer as python3.11 or python3 on PATH;" \
	      "python3 is $$(python3 --version 2>&1 || true)" >&2; \
	    exit 1; \
	  fi; \
	  $$python -m venv $(VENV); \
	fi
	$(PYTHON) -m pip install --disable-pip-version-check -r requirements.txt -e .
	@touch $@

# $(call workflow,options,presets)
HERE := --cores 2 --quiet host --rerun-incomplete --show-failed-logs
define workflow
	@$(PYTHON) -c "$$WORKFLOW" $(1) --config presets="$(2)"
endef

# Snakemake under a lock that dies with it: its own is left behind by a kill and would stop the next run.
define WORKFLOW
import fcntl, os, pathlib, sys
pathlib.Path("build").mkdir(exist_ok=True)
lock = os.open("build/.lock", os.O_CREAT | os.O_RDWR)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit("the workflow is already running in this folder: wait for it, or stop it")
os.set_inheritable(lock, True)
os.execv(sys.executable, [sys.executable, "-m", "snakemake", "--nolock", *sys.argv[1:]])
endef
export WORKFLOW

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help .venv weights figures paper record restore seeds notebooks test processors mutations sync site bench cost kill clean

# Recipes read these from the environment, as "$$PRESETS": paths have spaces, and what is mistyped has quotes.
export VENV ?= .venv
export PRESETS ?= organism-llama organism-gemma2 organism-llama-taught
export MODEL ?=
export PROFILE ?= profiles/local-gpu
export KILLS ?= 10
export SEEDS ?= 1 2 3 4

# A variable that the target does not read would leave the defaults to run.
reading = $(if $(filter $(2),$(or $(MAKECMDGOALS),$(2))),$(1))
READ := $(call reading,PRESETS,figures record restore kill) $(call reading,MODEL,weights paper) \
  $(call reading,PROFILE,paper seeds) $(call reading,KILLS,kill) $(call reading,SEEDS,seeds) VENV
UNKNOWN := import sys; sys.path.insert(0, "steerpaper"); from choices import unknown; \
  print(unknown("variable of make $(MAKECMDGOALS)", sys.argv[1], sys.argv[2:], \
  "; what is for a library goes before the command, NAME=value make figures"))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
WRONG := $(firstword $(filter-out $(READ),$(GIVEN)))
$(if $(WRONG),$(error $(or $(shell python3 -c '$(UNKNOWN)' '$(WRONG)' $(READ)),unknown variable $(WRONG))))
# A make that this one calls gets them from the environment: of its own targets it would ask the same again.
MAKEOVERRIDES :=

space := $() $()
absolute = $(if $(filter /%,$(firstword $(1))),$(1),$(CURDIR)/$(1))
BIN := $(call absolute,$(VENV))/bin
INSTALLED := $(subst $(space),\ ,$(VENV))/.installed
ifneq ($(STEERPAPER_BUILD),)
export STEERPAPER_BUILD := $(call absolute,$(STEERPAPER_BUILD))
endif
BUILD := $(or $(STEERPAPER_BUILD),$(CURDIR)/build)

# The same in every run: hash order, threads (the workflow gives large models more), the plots' backend. The kernel is
# this environment's own, whatever kernels the user has registered elsewhere.
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export OMP_NUM_THREADS := 1
export MPLBACKEND := module://matplotlib_inline.backend_inline
export JUPYTER_PATH := $(call absolute,$(VENV))/share/jupyter
export JUPYTER_PREFER_ENV_PATH := 1
export PATH := $(BIN):$(PATH)

# Where the user's folders for caches and sockets cannot be written to (containers, clusters), others are in the build
# folder; a Hugging Face cache that is there stays in use.
writable = $(shell for folder in $(1); do \
  mkdir -p "$$folder" && probe=$$(mktemp -d "$$folder/.steerpaper.XXXXXX") && rmdir "$$probe" || exit; \
  done 2>&1 && echo yes)
ifneq ($(call writable,~ "$${XDG_CACHE_HOME:-$$(echo ~)/.cache}" "$${XDG_DATA_HOME:-$$(echo ~)/.local/share}"),yes)
HF_HOME ?= $(shell cd "$${XDG_CACHE_HOME:-$$(echo ~)/.cache}/huggingface" 2>&- && pwd)
export HF_HOME := $(or $(HF_HOME),$(BUILD)/home/.cache/huggingface)
export HOME := $(BUILD)/home
export XDG_CACHE_HOME := $(HOME)/.cache
export XDG_CONFIG_HOME := $(HOME)/.config
export XDG_DATA_HOME := $(HOME)/.local/share
endif
ifneq ($(call writable,"$${TMPDIR:-/tmp}"),yes)
export TMPDIR := $(BUILD)/tmp
$(shell mkdir -p "$(TMPDIR)")
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[.a-z]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile
	@echo 'PRESETS="organism-llama tiny" picks presets of `figures` and `record`; VENV="$$CONDA_PREFIX" takes an'
	@echo 'environment of yours.'
	@echo 'MODEL=gemma-2-2b-it is the preset of `weights` and `paper`, PROFILE=profiles/slurm sends `paper` and `seeds` to'
	@echo 'a cluster.'

.venv: $(INSTALLED) ## set up the environment

weights: $(INSTALLED) ## fetch the weights of MODEL and dequantise them, if they are not here; all others do so, too
	@python -m steerpaper.models "$$MODEL"

HERE := --cores 2 --quiet host reason --scheduler greedy --rerun-incomplete

figures: $(INSTALLED) ## compute everything for PRESETS, and compare it with what is on record
	@python profiles/workflow.py start $(HERE) --presets "$$PRESETS"
	@python -m steerpaper.reproduction compare "$$PRESETS"

paper: $(INSTALLED) ## the same for one large model: MODEL=gemma-2-2b-it, one notebook at a time on a GPU
	@python profiles/workflow.py start --profile "$$PROFILE" --presets "$$MODEL"
	@python -m steerpaper.reproduction compare "$$MODEL"

record: $(INSTALLED) ## the same, and put it on record: tables, figures, generated pages, executed notebooks
	@python profiles/workflow.py start $(HERE) --presets "$$PRESETS" tiny
	@python -m steerpaper.reproduction record "$$PRESETS"
	@python -m steerpaper.recording "$$PRESETS"
	@python -m steerpaper.paper.page

restore: $(INSTALLED) ## take what is on record of PRESETS for computed here, to go on from there
	@python -m steerpaper.reproduction restore "$$PRESETS"

seeds: WHERE = $(if $(filter file,$(origin PROFILE)),$(HERE),--profile "$$PROFILE")
seeds: $(INSTALLED) ## train both organisms with SEEDS (0 ships), run notebooks 01 to 06 on each, count the verdicts
	@presets=$$(for seed in $$SEEDS; do [ "$$seed" = 0 ] || \
	  printf 'organism-llama-seed%s organism-gemma2-seed%s ' "$$seed" "$$seed"; done); \
	[ -z "$$presets" ] || python profiles/workflow.py start $(WHERE) --keep-going --presets "$$presets"
	@python -m steerpaper.organisms.seeds "$$SEEDS"

notebooks: export PRESETS := organism-llama organism-llama-taught
notebooks: record ## record the notebooks that are committed, with all that they show, and those that tests compare with

# Two processes, one thread each; tests/conftest.py says which tests stay together.
test: export TQDM_DISABLE := 1
test: $(INSTALLED) ## the whole test suite, with the recorded notebooks executed again
	python -m pytest --nbval --nbval-current-env --numprocesses 2

processors: $(INSTALLED) ## execute the recorded notebooks as older processors than this one would, side by side
	@$(MAKE) --no-print-directory --keep-going --jobs 2 processor-sse4 $$(python -c \
	  'import torch; print("processor-avx2" * (torch.backends.cpu.get_cpu_capability() == "AVX512"))')

processor-sse4: export ATEN_CPU_CAPABILITY := default
processor-sse4: export MKL_ENABLE_INSTRUCTIONS := SSE4_2
processor-sse4: export ONEDNN_MAX_CPU_ISA := SSE41
processor-sse4: export NPY_DISABLE_CPU_FEATURES := X86_V3 X86_V4 AVX512_ICL
processor-avx2: export ATEN_CPU_CAPABILITY := avx2
processor-avx2: export MKL_ENABLE_INSTRUCTIONS := AVX2
processor-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
processor-avx2: export NPY_DISABLE_CPU_FEATURES := X86_V4 AVX512_ICL
processor-%: export TQDM_DISABLE := 1
processor-%: $(INSTALLED)
	@STEERPAPER_BUILD="$(BUILD)/processors/$*" python -m pytest --nbval --nbval-current-env -p no:cacheprovider \
	  tests/reference 2>&1 | awk '{print "$*: " $$0; fflush()}'

mutations: export TQDM_DISABLE := 1
mutations: $(INSTALLED) ## break the package in a copy, one line at a time: the recorded notebooks must notice
	@python tests/mutations.py

sync: $(INSTALLED) ## bring both files of every notebook pair to the newer one's content
	python -m jupytext --sync notebooks/*.py

site: $(INSTALLED)-site ## make a site of what is committed: pages, notebooks, figures and docstrings, in build/site
	@rm -rf "$(BUILD)/site"
	python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --conf-dir docs \
	  --doctree-dir "$(BUILD)/doctrees" . "$(BUILD)/site"

bench: export TQDM_DISABLE := 1
bench: $(INSTALLED) ## measure the cost of attribution and circuit runs, and write it into docs/cost.md
	python benchmarks/attribution.py
	python benchmarks/generation.py
	python benchmarks/selection.py

cost: $(INSTALLED) ## measure time and memory at the paper's sizes on a GPU, and write them into docs/cost.md
	python benchmarks/cost.py

kill: export TQDM_DISABLE := 1
kill: $(INSTALLED) ## kill the workflow at KILLS random moments: every rerun must end with the same bytes (hours)
	python benchmarks/kill.py "$$KILLS" "$$PRESETS"

clean: ## remove what was computed and is not committed (keeps the environment)
	@if [ -n "$${STEERPAPER_BUILD:-}" ]; then \
	  echo "STEERPAPER_BUILD is $$STEERPAPER_BUILD: make clean removes build/ alone; remove that folder yourself" >&2; exit 1; \
	fi
	rm -rf build .snakemake .pytest_cache data/results/tiny figures/tiny

$(INSTALLED): requirements.txt pyproject.toml
	@if [ ! -x "$(BIN)/python" ]; then \
	  for python in python3.11 python3 none; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; \
	  done; \
	  if [ $$python = none ]; then \
	    echo "steerpaper needs Python 3.11 or newer as python3.11 or python3 on PATH;" \
	      "python3 is $$(python3 --version 2>&1 || true)" >&2; \
	    exit 1; \
	  fi; \
	  $$python -m venv "$$VENV"; \
	fi
	python -m pip install --disable-pip-version-check -r requirements.txt -e .
	@touch "$$VENV/.installed"

# What only the site needs; with the other pins, so that these stay.
$(INSTALLED)-site: requirements-site.txt $(INSTALLED)
	python -m pip install --disable-pip-version-check -r requirements.txt -r requirements-site.txt
	@touch "$$VENV/.installed-site"

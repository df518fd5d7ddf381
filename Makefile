# Settings for any target: make figures OVERRIDES="dataset=tiny_imagenet recipe=tiny_imagenet" TABLE=figures/tiny.csv
PYTHON ?= python3
VENV ?= .venv
OVERRIDES ?=
TABLE ?= figures/figures-procedural.csv
RUN = $(VENV)/bin/python -m
READY = $(VENV)/.ready

.PHONY: help setup demo test lint plan status figures bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment with the tested versions of everything

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: setup ## train the whole study on the embedded images (minutes on two cores) and draw its figures
	$(RUN) experiments.run $(OVERRIDES)
	@$(MAKE) --no-print-directory figures

test: setup ## run the tests
	$(RUN) pytest

lint: setup ## check the style of the code
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

plan: setup ## what the study would train, skip and resume, and how long it takes
	@$(RUN) experiments.run mode=plan $(OVERRIDES)

status: setup ## what the run store holds: finished, running, half-done
	@$(RUN) experiments.status $(OVERRIDES)

figures: setup ## collect the study's results into TABLE and draw the figures beside it
	@$(RUN) analysis.collect $(OVERRIDES) out=$(TABLE)
	@$(RUN) analysis.figures $(TABLE)

bench: setup ## lockstep against one network at a time and against a plain script, as ratios
	$(RUN) experiments.bench $(OVERRIDES)

clean: ## remove the virtual environment and caches; data, runs and figures stay
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info

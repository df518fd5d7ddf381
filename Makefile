# Settings for any target: make report OVERRIDES="dataset=tiny_imagenet recipe=tiny_imagenet" OUT=figures/tiny
PYTHON ?= python3
VENV ?= .venv
OVERRIDES ?=
OUT ?= figures/figures-procedural
RUN = $(VENV)/bin/python -m
READY = $(VENV)/.ready

.PHONY: help setup demo test lint plan status collect figures report paper-figures results bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment with the tested versions of everything

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; try make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

demo: setup ## train the whole study on the embedded images (minutes on two cores), draw its figures, write its report
	$(RUN) experiments.run $(OVERRIDES)
	@$(MAKE) --no-print-directory figures report

test: setup ## run the tests
	$(RUN) pytest

lint: setup ## check the style of the code
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

plan: setup ## what the study would train, skip and resume, and how long it takes
	@$(RUN) experiments.run mode=plan $(OVERRIDES)

status: setup ## what the run store holds: finished, running, half-done
	@$(RUN) experiments.status $(OVERRIDES)

collect: setup ## collect the study's results from the run store into tables in the folder OUT
	@$(RUN) analysis.collect $(OVERRIDES) out=$(OUT)

figures: collect ## collect, and draw every figure into OUT as PDF, SVG and PNG
	@$(RUN) analysis.figures $(OUT)

report: collect ## collect, and write OUT/report.html: figures, claims and numbers in one page
	@$(RUN) analysis.report $(OUT)

paper-figures: setup ## the original's figures, tables and report from its published numbers, without training
	@$(RUN) analysis.paper figures/paper
	@$(RUN) analysis.figures figures/paper
	@$(RUN) analysis.report figures/paper

results: setup ## draw the figures and write the reports in results/ again from their tables
	@for study in results/*/; do $(RUN) analysis.figures $$study && $(RUN) analysis.report $$study || exit 1; done

bench: setup ## lockstep against one network at a time and against a plain script, as ratios
	$(RUN) experiments.bench $(OVERRIDES)

clean: ## remove the virtual environment and caches; data, runs and figures stay
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info

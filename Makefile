# A study other than the demo: make report OVERRIDES="experiment=tiny_imagenet store=/shared/runs" OUT=figures/tiny
PYTHON ?= python3
VENV ?= .venv
OVERRIDES ?=
OUT ?= figures/demo
LAUNCHER ?= joblib
RUN = $(VENV)/bin/python -m
READY = $(VENV)/.ready
PIP = $(VENV)/bin/pip --quiet --disable-pip-version-check install --constraint constraints.txt
# make demo, plan, report ... are about this study; make status shows all that its store holds
STUDY = $(or $(OVERRIDES),experiment=demo)

.PHONY: help setup demo tour advice test test-slow test-all lint plan status sweep collect figures report watch question calibration
.PHONY: paper-figures results
.PHONY: bench bench-gpu bench-ingest clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment with the tested versions of everything

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; try make PYTHON=python3.11")'
	@echo "setup, 1 of 3: a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup, 2 of 3: torch with its CUDA libraries (3 GB to download, 5.5 GB on disk: minutes)"
	@$(PIP) torch torchvision
	@echo "setup, 3 of 3: everything else, in the versions of constraints.txt"
	@$(PIP) --editable '.[dev]'
	@touch $(READY)

demo: setup ## train the whole study on synthetic images (minutes on two cores), draw its figures, write its report
	$(RUN) experiments.run $(STUDY)
	@$(MAKE) --no-print-directory figures report OUT="$(OUT)"

tour: setup ## open the notebook docs/tour.ipynb in a browser: a look inside the networks of make demo
	@$(PIP) --editable '.[notebook]'
	$(VENV)/bin/jupyter lab --notebook-dir=. docs/tour.ipynb

MINUTES = 10
# a path as it was typed, whatever quotes and dollar signs are in it
quoted = '$(subst ','\'',$(value $(1)))'
ADVISED = $(if $(value SOURCE),source=$(call quoted,SOURCE)) $(if $(value WEIGHTS),weights=$(call quoted,WEIGHTS)) minutes=$(MINUTES) $(OVERRIDES)

# Ctrl-C ends it with the best answer so far, and is no error
advice: setup ## how to use a pretrained network (WEIGHTS=FILE) for your images (SOURCE=PATH) in MINUTES=10: a page that improves until the time is up
	@trap : INT; $(RUN) experiments.advise $(ADVISED) || test $$? -eq 130

# tests start dozens of processes; without bytecode each compiles the project anew
TESTS = env -u PYTHONDONTWRITEBYTECODE $(RUN) pytest -n 2 --dist worksteal

test: setup ## run the tests but those marked slow or browser
	$(TESTS) -m "not slow and not browser"

test-slow: setup ## run the tests that make test leaves out
	$(TESTS) -m "slow or browser"

test-all: setup ## run every test, with four times as many random examples
	$(TESTS) --hypothesis-profile ci

lint: setup ## check the style of code and prose, its types, and that its packages import one way
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-logo
	$(RUN) tests.words

plan: setup ## what the study would train, skip and resume, and how long it takes
	@$(RUN) experiments.run mode=plan $(STUDY)

status: setup ## what the run store holds: finished, running, interrupted
	@$(RUN) experiments.status $(STUDY)

sweep: setup ## train the study as jobs: LAUNCHER=joblib (processes, one GPU each), slurm, or your own (docs/cluster.md)
	@$(RUN) experiments.sweep hydra/launcher=$(LAUNCHER) $(STUDY)

collect: setup ## collect the study's results from the run store into tables in the folder OUT
	@$(RUN) analysis.collect $(STUDY) "out='$(OUT)'"

figures: collect ## collect, and draw every figure into OUT as PDF, SVG and PNG
	@$(RUN) analysis.figures "$(OUT)"

report: collect ## collect, and write OUT/report.html: figures, claims and numbers in one page
	@$(RUN) analysis.report "$(OUT)"

# Ctrl-C ends it, and is no error
watch: setup ## while the study trains: keep OUT/report.html up to date until nothing is missing (Ctrl-C ends it)
	@trap : INT; $(RUN) analysis.watch $(STUDY) "out='$(OUT)'" || test $$? -eq 130

question: collect ## collect an ablation (OVERRIDES=study=random-filters), and draw its figure into OUT
	@$(RUN) analysis.questions "$(OUT)"

CALIBRATION = experiment=calibration dataset.grammar.shared_levels=1,2,3 dataset.grammar.seed=0,1,2 $(OVERRIDES)

calibration: setup ## train and draw the calibration on synthetic images, where the truth is known: 270 networks, 1.4 hours on two cores
	@$(RUN) experiments.run -m $(CALIBRATION)
	@$(RUN) analysis.collect -m $(CALIBRATION) 'out=figures/calibration/$${dataset.name}'
	@$(RUN) analysis.calibration figures/calibration

paper-figures: setup ## the paper's figures, tables and report from its published numbers, without training
	@$(RUN) analysis.paper figures/paper
	@$(RUN) analysis.figures figures/paper
	@$(RUN) analysis.report figures/paper

STUDIES = $(patsubst %/about.json,%,$(wildcard results/*/about.json results/advice/*/about.json))
.PHONY: $(STUDIES) results/questions results/calibration results/advice/benchmark

results: setup ## draw the figures (PNG) and write the reports in results/ again from their tables, two folders at a time
	@$(MAKE) --no-print-directory -j 2 results/questions $(STUDIES) results/calibration results/advice/benchmark

$(STUDIES):
	@$(RUN) analysis.figures --format png $@
	@$(RUN) analysis.report $@

results/questions:
	@$(RUN) analysis.questions --format png $(dir $(wildcard results/questions/*/about.json))

results/calibration:
	@$(RUN) analysis.calibration --format png results/calibration

results/advice/benchmark:
	@$(RUN) analysis.tools --format png results/advice/benchmark

bench: setup ## lockstep against one network at a time and against plain scripts, as ratios
	$(RUN) experiments.benchmarks.lockstep $(OVERRIDES)
	$(RUN) experiments.benchmarks.library $(OVERRIDES)

bench-gpu: setup ## CaffeNet on a GPU: correctness, speed against its limits and a plain script, hours of the paper's study
	@$(RUN) experiments.benchmarks.gpu network=caffenet recipe=paper recipe.precision=bf16 $(OVERRIDES)

bench-ingest: setup ## packing and reading images of ImageNet's size, beside what a cohort consumes
	@$(RUN) experiments.benchmarks.ingest $(OVERRIDES)

clean: ## remove the virtual environment and caches; data, runs and figures stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info

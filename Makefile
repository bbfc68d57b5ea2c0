# Two commands do everything: `make demo` and `make test`. The rest is for those who work on ringtune.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(RINGTUNE_CACHE),$(HOME)/.cache/ringtune)
NP ?= 2

# Open MPI 5 refuses root and more ranks than cores unless told otherwise; one thread per rank leaves none idle.
RANKS_ENV := OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 \
	PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMP_NUM_THREADS=1
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" $(RANKS_ENV)

.PHONY: help setup demo test test-unit test-parallel test-system test-cluster lint type bench clean
help:
	@echo "make demo           set up, then fine-tune a real model on real reviews with two ranks"
	@echo "make test           set up, then run all tests (test-unit, test-parallel, test-system, test-cluster: a part)"
	@echo "make lint type      ruff, mypy"
	@echo "make bench          the demo at 1, 2 and 3 ranks and three seeds, prediction's speed (more than half an hour on two cores)"

setup: $(VENV)/.horovod $(VENV)/.demo

# torch first and by exact version: any other spelling may bring another build.
$(VENV)/.python: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt setuptools wheel
	touch $@

$(VENV)/.installed: $(VENV)/.python setup.py pyproject.toml
	$(BIN)/pip install --quiet --no-build-isolation -c constraints.txt -e '.[horovod,test,lint]'
	touch $@

$(VENV)/.horovod: $(VENV)/.installed launch/horovod.py launch/corrections.py launch/packages.py launch/toolchain.py
	$(BIN)/ringtune-launch horovod
	touch $@

$(VENV)/.demo: $(VENV)/.installed launch/demo.py launch/packages.py
	$(BIN)/python -m ringtune.launch.demo
	touch $@

demo: setup
	$(RUN) horovodrun -np $(NP) ringtune-train --config benchmarks/demo.yaml --overwrite_output_dir \
		--model_name_or_path $(CACHE)/demo/model --train_file $(CACHE)/demo/train.csv \
		--validation_file $(CACHE)/demo/dev.csv

test: setup
	$(RUN) $(BIN)/pytest

test-unit: setup
	$(RUN) $(BIN)/pytest tests/unit

test-parallel: setup
	$(RUN) $(BIN)/pytest tests/parallel

test-system: setup
	$(RUN) $(BIN)/pytest tests/system

test-cluster: setup
	$(RUN) $(BIN)/pytest tests/cluster

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(VENV)/.installed
	@# mypy does not see through an editable install's mapping; links spell it out.
	mkdir -p .mypy_cache/src/ringtune && ln -sfn $(CURDIR)/train $(CURDIR)/launch $(CURDIR)/slurm .mypy_cache/src/ringtune/
	MYPYPATH=.mypy_cache/src $(BIN)/mypy -p ringtune.train -p ringtune.launch -p ringtune.slurm

bench: setup
	$(RUN) $(BIN)/python benchmarks/accuracy.py
	$(RUN) $(BIN)/python benchmarks/predict.py

clean:
	rm -rf $(VENV) build dist *.egg-info runs

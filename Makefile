# Two commands do everything: `make demo` and `make test`. The rest is for those who work on ringtune.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CACHE := $(or $(RINGTUNE_CACHE),$(HOME)/.cache/ringtune)
NP ?= 2
# Processes that run tests: much of a test is waiting. Each starts ranks of its own.
TEST_JOBS ?= 2

# Open MPI 5 refuses root and more ranks than cores by default; one thread per rank leaves none idle.
RANKS_ENV := OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 \
	PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe OMP_NUM_THREADS=1
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" $(RANKS_ENV)
PYTEST := $(RUN) $(BIN)/pytest -n $(TEST_JOBS) --dist worksteal --durations 40

# bf16 takes minutes for what fp32 does in seconds where the processor has no instructions for it.
BF16 := $(if $(wildcard /dev/nvidia0)$(shell grep -m1 -ow -e avx512_bf16 -e amx_bf16 /proc/cpuinfo),true,false)

.PHONY: help matrix gpu-bundle setup demo test test-long test-unit test-parallel test-system test-cluster lint type bench fingerprint clean
help:
	@echo "make demo           set up, then fine-tune a real model on real reviews with two ranks"
	@echo "make test           set up, then run the tests (test-unit, test-parallel, test-system, test-cluster: a part)"
	@echo "make test-long      set up, then run the long variants of some tests"
	@echo "make lint type      ruff, mypy"
	@echo "make gpu-bundle     put all that a GPU machine without a network needs into build/gpu-bundle"
	@echo "make matrix         try the versions of Python, torch and transformers that are allowed (an hour)"
	@echo "make fingerprint    print what a change without numeric effect must leave as it is"
	@echo "make bench          the demo at 1, 2 and 3 ranks and three seeds, prediction's and training's speed (more than half an hour on two cores)"

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

$(VENV)/.horovod: $(VENV)/.installed $(addprefix launch/,build.py \
	corrections.py cuda.py horovod.py target.py toolchain.py)
	$(BIN)/ringtune-launch horovod
	touch $@

$(VENV)/.demo: $(VENV)/.installed launch/demo.py launch/packages.py
	$(BIN)/python -m ringtune.launch.demo
	touch $@

demo: setup
	@echo "bf16: $(BF16), by what this machine computes fast"
	$(RUN) horovodrun -np $(NP) ringtune-train --config benchmarks/demo.yaml --overwrite_output_dir \
		--model_name_or_path $(CACHE)/demo/model --train_file $(CACHE)/demo/train.csv \
		--validation_file $(CACHE)/demo/dev.csv --bf16 $(BF16)

test: setup
	$(PYTEST) -m "not long"

test-long: setup
	$(PYTEST) -m long

test-unit: setup
	$(PYTEST) -m "not long" tests/unit

test-parallel: setup
	$(PYTEST) -m "not long" tests/parallel

test-system: setup
	$(PYTEST) -m "not long" tests/system

test-cluster: setup
	$(PYTEST) -m "not long" tests/cluster

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: $(VENV)/.installed
	@# mypy does not see through an editable install's mapping; links spell it out.
	mkdir -p .mypy_cache/src/ringtune && ln -sfn $(CURDIR)/train $(CURDIR)/launch $(CURDIR)/slurm .mypy_cache/src/ringtune/
	MYPYPATH=.mypy_cache/src $(BIN)/mypy -p ringtune.train -p ringtune.launch -p ringtune.slurm

bench: setup
	$(RUN) $(BIN)/python benchmarks/accuracy.py
	$(RUN) $(BIN)/python benchmarks/predict.py
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(RUN) $(BIN)/python benchmarks/speed.py
	$(RUN) $(BIN)/python benchmarks/costs.py
	$(RUN) $(BIN)/python benchmarks/allreduce.py

fingerprint: setup
	$(RUN) $(BIN)/python benchmarks/fingerprint.py

matrix: setup
	$(BIN)/python benchmarks/matrix.py

gpu-bundle: setup
	$(BIN)/python benchmarks/gpu_bundle.py

clean:
	rm -rf $(VENV) build dist *.egg-info runs

# `make demo` needs nothing but Python 3.11-3.13 with venv and headers, make and g++.
PYTHON ?= python3
WORKER ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(WORKER)

.PHONY: setup demo up test test-all test-gpu check-triton lint size board pictures board-picture docs wheel audit lock bench bench-serve bench-statistics bench-mitigation bench-decoders chaos soak mutants paper clean
.DEFAULT_GOAL := help

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(STAMP) ## create .venv and install everything (WORKER=cpu or gpu overrides what is detected)

# Builds of torch for CPUs are on other indexes than PyPI, so their hashes are in no lock: WORKER=cpu takes any build of the
# release that an index of yours has, and nothing else without a hash.
LOCKED := --no-deps --require-hashes
LOCKS := $(patsubst %,requirements/%.lock,torch api embedded demo dev worker-$(WORKER))

# pip takes torch for a CPU as the one that the lock of GPUs names, and leaves both builds of vLLM.
# The stamp is there before the first package, so that the WORKER of an interrupted setup is known; its old date makes it go on.
OTHER := $(filter-out $(STAMP),$(wildcard $(VENV)/.installed-*))

.PRECIOUS: $(STAMP)
$(STAMP): $(LOCKS) requirements/torch.in pyproject.toml deploy/prerequisites.sh deploy/install.py
	@PYTHON="$(PYTHON)" WORKER="$(WORKER)" deploy/prerequisites.sh
	@$(if $(OTHER),$(if $(filter file,$(origin WORKER)),echo "$(VENV) is for another WORKER than $(WORKER): make setup WORKER=$(WORKER) makes it again." >&2; exit 1,rm -rf $(VENV)),:)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.installed-*
	@touch -t 200001010000 $@
	@$(BIN)/python deploy/install.py "Installing the locked packages" $(LOCKED) \
		-r requirements/api.lock -r requirements/embedded.lock -r requirements/demo.lock
	@$(BIN)/python deploy/install.py "Installing the packages of the tests" $(LOCKED) -r requirements/dev.lock
	@$(BIN)/python deploy/install.py "Installing the packages of the worker" $(LOCKED) --no-build-isolation --use-pep517 \
		-r requirements/worker-$(WORKER).lock
	@$(BIN)/python deploy/install.py "Installing torch" $(if $(filter gpu,$(WORKER)),$(LOCKED) -r requirements/torch.lock,-r requirements/torch.in)
	@$(BIN)/pip install -q --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Installed in $(VENV).$(if $(filter setup,$(MAKECMDGOALS)), Next: 'make demo' for a verdict or 'make up' for the service.)"

demo: setup ## from nothing to a verdict on the terminal
	@$(BIN)/hemostat demo

up: setup ## API, worker and an embedded Valkey in the foreground; Ctrl-C ends all of it
	@$(BIN)/hemostat up

PYTEST := $(BIN)/python -m pytest --dist loadscope --no-loadscope-reorder
# Tests of processes wait for more than half of their time: three at a time keep two cores busy.

test: setup ## the gate: all but what is marked slow; unit tests first, and the others whatever came of them
	@red=0; \
	OMP_NUM_THREADS=1 $(PYTEST) tests/unit -m "not slow" -n auto --maxprocesses 8 || red=1; \
	$(PYTEST) tests/integration tests/e2e -m "not slow" -n 3 || red=1; \
	exit $$red

test-all: setup ## everything that this machine can run, with new examples; nothing runs a second time
	@red=0; \
	OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=search $(PYTEST) -p no:rerunfailures tests/unit -n auto --maxprocesses 8 || red=1; \
	HYPOTHESIS_PROFILE=search $(PYTEST) -p no:rerunfailures tests/integration tests/e2e -n 3 || red=1; \
	exit $$red

test-gpu: setup ## tests/gpu on a CUDA device: first what needs torch alone, then vLLM's engines
	@$(BIN)/python -m pytest -p no:rerunfailures tests/gpu/test_divergence.py tests/gpu/test_calibration.py tests/gpu/test_surgery.py
	@$(BIN)/python -m pytest -p no:rerunfailures tests/gpu/test_engine.py
	@$(BIN)/python -m pytest -p no:rerunfailures tests/gpu/test_batch_invariance.py

# An environment of its own: the CUDA build of torch, which runs without a GPU, and of the rest what the divergence imports.
CUDA := .venv-cuda
$(CUDA)/.installed: requirements/torch.lock requirements/dev.lock
	@test -x $(CUDA)/bin/python || $(PYTHON) -m venv $(CUDA)
	@$(CUDA)/bin/python deploy/install.py "Installing torch for CUDA" $(LOCKED) -r requirements/torch.lock -r requirements/dev.lock
	@touch $@

check-triton: $(CUDA)/.installed ## compile the divergence's kernels for CUDA, without a GPU; 6 GB in .venv-cuda, some ten minutes
	@for capability in 8.0 9.0; do OMP_NUM_THREADS=1 $(CUDA)/bin/python -m tests.gpu.compile_only $$capability || exit 1; done

lint: setup ## ruff, mypy --strict, import-linter, the words of the code
	@$(BIN)/ruff check app hemostat workers deploy examples tests
	@$(BIN)/ruff format --check app hemostat workers deploy examples tests
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m deploy.wording

size: ## lines, words and other figures beside their budgets
	@$(PYTHON) deploy/size.py

board: setup ## write the Grafana dashboards anew from deploy/grafana/board.py and mitigation.py
	@$(BIN)/python -m deploy.grafana.board
	@$(BIN)/python -m deploy.grafana.mitigation

pictures: setup ## take the pictures of docs/ from a real service, with chromium; some minutes
	@$(BIN)/python -m deploy.pictures

board-picture: setup ## take the picture of the board over more than an hour of traffic, with chromium and prometheus
	@$(BIN)/python -m deploy.board_picture

docs: setup ## write docs/reference from the code, and the tables of results from committed numbers
	@$(BIN)/python -m deploy.reference
	@$(BIN)/python -m tests.bench.pages

DIST := dist
wheel: setup ## the wheel of app and workers, in DIST=dist, built by locked packages
	@$(BIN)/pip wheel -q --no-deps --no-build-isolation --wheel-dir "$(DIST)" .

audit: setup ## ask PyPI for known vulnerabilities of every locked package; fails where it does not answer for one
	@$(BIN)/uv tool run pip-audit==2.10.1 --strict --disable-pip --require-hashes $(patsubst %,-r %,$(wildcard requirements/*.lock))

try-next: setup ## run the tests of vLLM's and docket's names on the newest release of each
	@deploy/try-next.sh

lock: setup ## write the locks anew
	@deploy/lock.sh

bench: setup ## measure; writes tests/bench/results/PROCESSOR.csv
	@$(BIN)/python -m tests.bench.run

bench-serve: setup ## measure our server against plain vLLM; adds to tests/bench/results/PROCESSOR.csv
	@$(BIN)/python -m tests.bench.serve

bench-statistics: setup ## intervals and choices where the truth is drawn, and flips of stored runs; writes tests/bench/{intervals,threshold,flips,adaptive,online,classes}.csv
	@$(BIN)/python -m tests.bench.intervals
	@$(BIN)/python -m tests.bench.threshold
	@$(BIN)/python -m tests.bench.flips
	@$(BIN)/python -m tests.bench.flips_real
	@$(BIN)/python -m tests.bench.adaptive
	@$(BIN)/python -m tests.bench.online
	@$(BIN)/python -m tests.bench.classes

bench-mitigation: setup ## every modification and mitigation; TEXT=wiki.test.raw [ONLY=pattern] [BENCH_ARGS='--model FOLDER --as NAME']; writes tests/bench/mitigation.csv
	@test -n "$(TEXT)" || { echo "Give the raw test file of WikiText-2: make bench-mitigation TEXT=FILE" >&2; exit 2; }
	@$(BIN)/python -m tests.bench.mitigation --text "$(TEXT)" --only "$(ONLY)" $(BENCH_ARGS)

bench-decoders: setup ## all thirteen decoders on the demo model, 4 bits against the original; writes tests/bench/decoders.csv
	@$(BIN)/python -m tests.bench.decoders

chaos: setup ## random deaths under load: SEED=n KILLS=25 [CHAOS_ARGS='--freeze-s 40 --default-leases']; appends to tests/bench/chaos.csv
	@$(BIN)/python -m tests.bench.chaos --seed $(or $(SEED),1) --kills $(or $(KILLS),25) $(CHAOS_ARGS)

soak: setup ## ten minutes of load, SECONDS=600: nothing grows; writes tests/bench/soak.csv
	@$(BIN)/python -m tests.bench.soak --seconds $(or $(SECONDS),600)

mutants: setup ## which planted faults would the tests miss? SEED=n DRAWN=40; an hour; writes tests/bench/mutants.csv
	@$(BIN)/python -m deploy.mutants --seed $(or $(SEED),1) --drawn $(or $(DRAWN),40)

paper: setup ## test the paper's claims; keeps what was measured; writes docs/paper.md, or paper-MODEL [MODEL=folder TEXT=file PAPER_ARGS='--again', '--write-only' or '--age']
	@$(BIN)/python -m examples.paper $(if $(MODEL),--model "$(MODEL)") $(if $(TEXT),--text "$(TEXT)") $(PAPER_ARGS)

clean: ## remove what was installed and cached here
	rm -rf $(VENV) $(CUDA) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

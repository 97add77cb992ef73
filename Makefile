# alertmill: `make help` lists what can be done.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KERNELS := $(VENV)/.kernels
SAMPLE ?= sample
NIGHT ?= 20240212
ALERTS ?= 2000
SKY := $(SAMPLE)/$(NIGHT)
CATALOGS := sim_galaxies sim_variables sim_agn
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.PHONY: help setup run test check bench bench-decode bench-sky interop docs chaos fuzz lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 21

setup: $(KERNELS)  ## make .venv, install the locked packages, compile the kernels once

$(STAMP): requirements.lock requirements-setup.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"alertmill needs Python 3.11 to 3.13, not {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-setup.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable . \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# A compiled kernel is kept by the time of its own file: one that calls another file's would stay as it was.
$(KERNELS): $(STAMP) $(shell grep -rl --include=*.py njit pipeline)
	find pipeline -name '*.nb[ic]' -delete
	$(BIN)/python -m pipeline.warm
	@touch $@

run: $(KERNELS)  ## simulate a sample night, build its catalogs, run the nightly flow, print the summary
	$(BIN)/alertmill simulate $(NIGHT) --survey ztf --alerts $(ALERTS) --seed 1 --out $(SKY)
	@for name in $(CATALOGS); do \
	  echo "building catalog $$name"; \
	  $(BIN)/alertmill catalogs build $$name $(SKY)/catalogs/$$name.parquet --root $(SAMPLE)/data > /dev/null || exit; \
	done
	$(BIN)/alertmill run $(NIGHT) --survey ztf --input $(SKY)/ztf_public_$(NIGHT).tar --root $(SAMPLE)/data \
	  $(CATALOGS:%=--catalog %) --skymap $$(basename $(SKY)/skymaps/*.fits .fits)=$$(echo $(SKY)/skymaps/*.fits)
	@$(BIN)/python docs/sample_summary.py $(SAMPLE)/data $(NIGHT) $(SKY)/truth.parquet

test: $(KERNELS)  ## the tests
	$(BIN)/python -m pytest -m "not chaos and not interop and not bench" -n auto --dist loadgroup

check: $(STAMP)  ## format, lint, types, layers, lock
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py tests/test_project.py

bench: $(KERNELS)  ## measure: alerts per second, memory, stage by stage
	$(BIN)/python -m pytest -m bench -s tests/bench

bench-decode: $(KERNELS)  ## measure decoding alone, beside other libraries and the limits of the machine
	$(BIN)/python -m pytest -m bench -s tests/bench/test_decode.py tests/bench/test_decode_task.py

bench-sky: $(KERNELS)  ## measure cross-match, sky maps and significance beside other libraries
	$(BIN)/python -m pytest -m bench -s tests/bench/test_xmatch.py tests/bench/test_catalog_match.py \
	  tests/bench/test_skymap_speed.py tests/bench/test_followup_speed.py tests/bench/test_scrambles.py

chaos: $(KERNELS)  ## kill runs at random moments, and see the same bytes
	$(BIN)/python -m pytest -m chaos -s

fuzz: $(KERNELS)  ## damage packets by the million (ALERTMILL_FUZZ_CASES)
	$(BIN)/python -m tests.fuzz.run_fuzz
	ALERTMILL_FUZZ_EXAMPLES=5000 $(BIN)/python -m pytest tests/test_avro_fuzz.py

interop: $(KERNELS)  ## other tools, browser, notebooks
	bash tests/interop/install_browser.sh
	$(BIN)/python -m pytest -m interop

docs: $(STAMP)  ## run what the documents say
	$(BIN)/python -m pytest -q tests/test_docs.py

lock: $(STAMP)  ## write the locks anew from pyproject.toml, without index addresses
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --extra dev --no-emit-package alertmill pyproject.toml -o requirements.lock
	echo uv | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links - -o requirements-setup.lock

clean:  ## remove .venv, caches and the sample night
	rm -rf $(VENV) $(SAMPLE) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

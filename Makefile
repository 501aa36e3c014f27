# make demo and make test work on a fresh machine. STACK=onedl uses the maintained forks. STACK=oldest
# with PYTHON=python3.10 uses the oldest supported libraries.
PYTHON ?= python3.11
STACK ?= openmmlab
export PYTHON

ifeq ($(STACK),openmmlab)
  VENV := .venv
  REQUIREMENTS := requirements.txt
else ifeq ($(STACK),onedl)
  VENV := .venv-onedl
  REQUIREMENTS := requirements-onedl.txt
else ifeq ($(STACK),oldest)
  VENV := .venv-oldest
  REQUIREMENTS := requirements-oldest.txt
else
  $(error STACK must be openmmlab, onedl or oldest, got '$(STACK)')
endif
READY := $(VENV)/setup-complete

# A crashed worker ends the run, because pytest-xdist 3.8 waits forever after it has replaced one.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile \
	--no-loadscope-reorder --max-worker-restart 0

.PHONY: setup demo test test-research test-litert soak soak-processes lint clean

setup: $(READY)

$(READY): .ci/setup.sh $(REQUIREMENTS) requirements-pretrain.txt requirements-export.txt \
		requirements-test.txt pyproject.toml
	.ci/setup.sh $(VENV) $(REQUIREMENTS)
	@touch $@

demo: $(READY)
	$(VENV)/bin/python demo/demo.py

test: $(READY)
	$(PYTEST) $(PYTEST_ARGS)

test-research: $(VENV)/research-complete
	$(PYTEST) research/tests $(PYTEST_ARGS)

$(VENV)/research-complete: $(READY) research/requirements.txt
	$(VENV)/bin/python -m pip install --requirement research/requirements.txt
	@touch $@

# This is not a part of test, because the converter needs 0.9 GB.
test-litert: $(VENV)/litert-complete
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest tests/export/test_formats.py -k litert $(PYTEST_ARGS)

$(VENV)/litert-complete: $(READY) requirements-litert.txt
	$(VENV)/bin/python -m pip install --no-deps --requirement requirements-litert.txt
	@touch $@

soak: $(READY)
	$(VENV)/bin/python tests/faults/soak.py

soak-processes: $(READY)
	$(VENV)/bin/python tests/faults/soak_processes.py

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf .venv .venv-onedl .venv-oldest build *.egg-info .pytest_cache .ruff_cache .hypothesis

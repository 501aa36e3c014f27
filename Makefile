# make demo | make test work on a fresh machine; STACK=onedl uses the maintained forks, STACK=oldest
# with PYTHON=python3.10 the oldest libraries that are supported.
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

.PHONY: setup demo test test-litert soak soak-processes lint clean

setup: $(READY)

$(READY): tools/development/setup.sh $(REQUIREMENTS) requirements-baselines.txt \
		requirements-export.txt requirements-test.txt pyproject.toml
	tools/development/setup.sh $(VENV) $(REQUIREMENTS)
	@touch $@

demo: $(READY)
	$(VENV)/bin/python tools/demo.py

test: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		$(PYTEST_ARGS)

# Not a part of test: the converter takes 0.9 GB.
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

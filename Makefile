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

.PHONY: setup demo test soak soak-processes lint clean

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

soak: $(READY)
	$(VENV)/bin/python tests/faults/soak.py

soak-processes: $(READY)
	$(VENV)/bin/python tests/faults/soak_processes.py

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf .venv .venv-onedl .venv-oldest build *.egg-info .pytest_cache .ruff_cache .hypothesis

# `make demo` and `make test` do everything on a fresh machine; the first use creates .venv and installs into it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: install demo test test-openmmlab lint types clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --progress-bar off -c constraints.txt -e '.[onedl,demo,test]'
	touch $@

demo: $(READY)
	$(PY) tools/demo.py --work-dir work_dirs/demo

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --durations 10

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(READY)
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) .openmmlab work_dirs/demo

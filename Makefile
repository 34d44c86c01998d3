# make demo   builds the default model for a board, from nothing
# make test   lint, then every test (the slow ones too), TEST_JOBS=2 files at a time
# make fuzz   thousands of damaged files and random graphs (FUZZ_ONNX=10000 FUZZ_FILES=9000 FUZZ_GRAPHS=2000)
# All make the environment first (.venv); nothing else is touched.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BOARD ?= ultra96
FUZZ_ONNX ?= 10000
FUZZ_FILES ?= 9000
FUZZ_GRAPHS ?= 2000
FUZZ_SEED ?= 0
FUZZ_JOBS ?= 1
TEST_JOBS ?= 2
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint docs bench bench-cuda data fuzz
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed (make PYTHON=python3.12 ...)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,tables,search,hls4ml,finn,synth,unrolled,docs,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps finn-plus finn-plus-driver seglearn
	touch $@

demo: setup
	$(BIN)/qhw build --board $(BOARD)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site, in build/site: a broken link or a name that is none is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Fashion-MNIST, tclsh, PostgreSQL, Chromium, GCC for Cortex-M and QEMU come from Debian; where they cannot be installed
# their tests are skipped and listed.
data:
	@packages=; \
	[ -d /usr/share/datasets/fashion-mnist ] || packages="$$packages dataset-fashion-mnist"; \
	command -v tclsh >/dev/null || packages="$$packages tcl"; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || packages="$$packages postgresql"; \
	command -v chromium >/dev/null || packages="$$packages chromium"; \
	command -v arm-none-eabi-gcc >/dev/null || packages="$$packages gcc-arm-none-eabi libnewlib-arm-none-eabi"; \
	command -v qemu-system-arm >/dev/null || packages="$$packages qemu-system-arm"; \
	for package in $$packages; do \
		command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ] || continue; \
		apt-get install -y -q $$package >/dev/null 2>&1 || \
		{ apt-get update -q >/dev/null 2>&1 && apt-get install -y -q $$package >/dev/null 2>&1; } || \
		echo "$$package could not be installed: its tests will be skipped" >&2; \
	done

# The environment and Debian's packages are fetched side by side. Bytecode saves each of hundreds of processes a moment.
test:
	$(MAKE) -j2 lint data
	$(BIN)/python -m compileall -q qhw
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder --nbmake tests notebooks

bench: setup data
	@for script in $(filter-out benchmarks/cuda_%,$(wildcard benchmarks/*.py)) benchmarks/minifloat_vs_integer; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-cuda: setup data
	@for script in benchmarks/cuda_*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

# Goes on where it was stopped, as long as qhw is the same. Each fault is told with the command that runs it again.
fuzz: setup
	$(BIN)/python -m tests.fuzz.campaign --kind onnx --count $(FUZZ_ONNX) --seed $(FUZZ_SEED) --jobs $(FUZZ_JOBS)
	$(BIN)/python -m tests.fuzz.campaign --kind files --count $(FUZZ_FILES) --seed $(FUZZ_SEED) --jobs $(FUZZ_JOBS)
	$(BIN)/python -m tests.fuzz.campaign --kind graphs --count $(FUZZ_GRAPHS) --jobs $(FUZZ_JOBS)

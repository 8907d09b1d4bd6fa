# make demo: a backup of a real tree, end to end.   make test: the tests.   make bench: the figures.
# Everything is installed below this folder (.venv, .tools, .cache); uv is fetched when it is missing.

UV := $(shell command -v uv || echo .tools/bin/uv)
PYTHON ?= python3
export UV_CACHE_DIR ?= $(CURDIR)/.cache/uv
SYNCED := .venv/.synced

.PHONY: all demo demo-lustre test lint types docs bench clean
all: $(SYNCED)

$(SYNCED): pyproject.toml uv.lock $(wildcard lbcore/pyproject.toml lbcore/setup.py lbcore/src/lbcore/*.pyx lbcore/src/lbcore/*.pxd plugins/*/pyproject.toml native/pyproject.toml native/setup.py native/src/lb_lustre/*.pyx native/src/lb_lustre/*.pxd) | $(UV)
	$(UV) sync --locked --python $(PYTHON) --no-python-downloads --quiet && touch $@

.tools/bin/uv:
	$(PYTHON) -m venv .tools && .tools/bin/pip install --quiet --disable-pip-version-check uv

demo: $(SYNCED)
	.venv/bin/python demo/demo.py

demo-lustre: $(SYNCED)
	.venv/bin/python -m demo.lustre

test: $(SYNCED)
	.venv/bin/python -m pytest -n auto $(PYTEST_ARGS)

lint: $(SYNCED)
	.venv/bin/ruff check . && .venv/bin/ruff format --check .

types: $(SYNCED)
	.venv/bin/mypy

docs: $(SYNCED)
	.venv/bin/python -m pytest -q tests/docs

bench: $(SYNCED)
	.venv/bin/python -m bench.bench $(BENCH_ARGS)

clean:
	rm -rf .venv .tools .cache lbcore/build lbcore/src/lbcore/_*.c lbcore/src/lbcore/*.so native/build native/src/lb_lustre/_*.c native/src/lb_lustre/*.so

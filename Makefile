# Layer 4.5. As root: `make build`, `make demo`, `make test`, `make bench`, `make bench-quick`, `make lint`. Nothing but git and make is needed.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
MAKEFLAGS += --no-print-directory

PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --quiet --quiet --disable-pip-version-check --no-input
STAMPS := .venv/stamps

# What the compiled code is made of: a pull that changes any of these compiles again.
SOURCES := setup.py $(wildcard fastpath/*.pyx fastpath/*.pxd fastpath/*.h modules/*/*.pyx modules/*/*.pxd)

UNPRIVILEGED = $(if $(filter 0,$(shell id -u)),,-m "not root")

export PIP_ROOT_USER_ACTION := ignore

.PHONY: build system demo test lint check bench bench-quick fuzz clean

build: system $(STAMPS)/compiled

system:
	@.ci/system-packages

# Not a rule on `system`: that one always runs, and would make everything here look old.
$(STAMPS)/environment: | system
	@python="$$(.ci/system-packages --python)"; \
	[ -x $(PYTHON) ] || { echo "environment: .venv from $$python"; "$$python" -m venv .venv; }
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/packages: $(STAMPS)/environment pyproject.toml
	@echo "packages: what pyproject.toml names"
	@$(PIP) install --requirement <($(PYTHON) .ci/requirements)
	@rm -f $(STAMPS)/installed && touch $@

# The first time compiles all of it within the editable install; later only what changed.
$(STAMPS)/compiled: $(STAMPS)/packages $(SOURCES)
	@echo "compile: fastpath and modules"
	@log="$$(mktemp)"; trap 'rm -f "$$log"' EXIT; \
	if [ -e $(STAMPS)/installed ]; then \
	    build=($(PYTHON) setup.py build_ext --inplace); \
	else \
	    build=($(PYTHON) -m pip --no-input install --verbose --no-build-isolation --no-deps --editable .); \
	fi; \
	"$${build[@]}" >"$$log" 2>&1 </dev/null \
	    || { cat "$$log" >&2; echo "make build: compiling failed, see above" >&2; exit 1; }; \
	grep -E '[.]c:.* warning: ' "$$log" | sort -u || true
	@touch $(STAMPS)/installed $@

# Every test but those of tests/fuzz, which take as long as they are given: `make fuzz`.
test: build lint check

# Those of tests/netns measure time: two at once, however many cores there are.
check: build
	@$(PYTHON) -m pytest tests --ignore=tests/fuzz --ignore=tests/netns -n auto --dist loadfile $(UNPRIVILEGED) </dev/null
	@$(PYTHON) -m pytest tests/netns -n 2 --dist loadfile $(UNPRIVILEGED) </dev/null
	@[ "$$(id -u)" = 0 ] || echo "make test: the tests marked root did NOT run; run 'sudo make test' for them"

lint: build
	@.venv/bin/ruff check .
	@PATH="$(CURDIR)/.venv/bin:$$PATH" .venv/bin/cython-lint fastpath modules
	@.venv/bin/mypy

fuzz: build
	@$(PYTHON) -m pytest tests/fuzz </dev/null
	@tests/fuzz/fec_ingress/run.sh </dev/null

demo: build
	@$(PYTHON) -m layer45.demo

bench: build
	@$(PYTHON) -m perf

# Ratios of now beside those of perf/results/quick.json, in under two minutes; nothing fails for what it finds.
bench-quick: build
	@$(PYTHON) -m perf.quick

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis $(STAMPS)/compiled
	rm -f fec-residual-loss.png fastpath/*.so fastpath/*.c modules/*/*.so modules/*/*.c

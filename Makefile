# The one task runner. Every target sets up what it needs; run any of them on a fresh checkout.
#
#   make demo        the whole way on a small real framework: build, sign, apply, revert
#   make test        the tests (PYTEST_ARGS="-k name" to choose)
#   make lint        ruff, and every C file under strict warnings
#   make format      sorts imports and lays out Python as lint wants it
#   make typecheck   mypy --strict
#   make sanitize    the tests of all that works on the core, on one built with ASan and UBSan
#   make fuzz        every fuzz target for TIME seconds (TIME=60), then the hostile tests
#                    with many examples
#   make agent-kill  kill -9 of a device's agent at KILLS=200 random moments of its life
#   make conformance SUITE=DIR   a checkout of tuf-conformance against the device's client
#   make test-arm64  kernels, fuzz corpora and patches on arm64, elsewhere by a cross compiler
#                    (CROSS_COMPILE=aarch64-linux-gnu-) and qemu
#   make crash       power cuts on ext4, btrfs and XFS, and failing system calls; crash-full: all
#                    states, planted bugs and calls (as root, an hour); crash-faults: every call
#                    that can fail, of every operation (CRASH_OPS="revert" to choose)
#   make bench       bsipatch and its peers on small public pairs, some minutes; bench-full: all
#   make bench-kernels   the core's kernels, against the run before (BASE=0003 for another)
#   make corpora     fetches the public file pairs (BSIPATCH_CORPORA says where to)
#   make docs        the documentation as a site
#   make man         the man pages in man/, completion scripts in build/completions
#   make clean

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
    $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
CC ?= cc
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PYTEST_ARGS ?=
BENCH_ARGS ?=
PYTEST := $(BIN)/python -m pytest -n $(JOBS)

# pip over a slow or flaky connection
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_DEFAULT_TIMEOUT ?= 120
export PIP_RETRIES ?= 10

CORE := setup.py pyproject.toml src/bsipatch/_core/build.py src/bsipatch/_core/cdef.h \
    $(shell find csrc -name '*.[ch]' -not -path '*/fuzz/*' 2>/dev/null)
C_FILES := $(filter csrc/%.c,$(CORE))
WARN := -std=c11 -O2 -Wall -Wextra -Wconversion -Werror -fsyntax-only

FUZZ_TARGETS := $(patsubst csrc/fuzz/fuzz_%.c,%,$(wildcard csrc/fuzz/fuzz_*.c))
TIME ?= 60

SANITIZED := build/sanitized
SANITIZE := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

.PHONY: agent-kill conformance help setup demo test test-arm64 lint format typecheck fuzz sanitize crash crash-full crash-faults bench bench-full bench-kernels \
    corpora docs man clean

help:
	@sed -n 's/^#   \(make\)/  \1/p' Makefile

# --- environment -------------------------------------------------------------------------------

$(VENV)/.ready:
	@if [ -z "$(PYTHON)" ]; then echo "error: Python 3.11 or later is needed (set PYTHON=...)" >&2; exit 1; fi
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "error: cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -q --upgrade "pip>=24" "setuptools>=77" wheel "cffi>=1.16"
	@touch $@

# The package itself, editable; done again whenever the core's sources change.
$(VENV)/.installed: $(VENV)/.ready $(CORE)
	@command -v $(CC) >/dev/null || { \
	    echo "error: a C compiler is needed; on Debian: apt-get install gcc libc6-dev" >&2; exit 1; }
	$(BIN)/python -m pip install -q --no-build-isolation --editable .
	$(BIN)/python -c 'import bsipatch._core'
	@touch $@

$(VENV)/.extra-%: $(VENV)/.installed pyproject.toml
	@test $@ -nt pyproject.toml || $(BIN)/python -m pip install -q --no-build-isolation --editable ".[$*]"
	@touch $@

setup: $(VENV)/.extra-test

# --- everyday ----------------------------------------------------------------------------------

demo: $(VENV)/.installed
	@$(BIN)/python -m bsipatch.demo

test: $(VENV)/.extra-test
	@$(PYTEST) $(PYTEST_ARGS)

lint: $(VENV)/.extra-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@for c in $(CC) clang; do command -v $$c >/dev/null || continue; \
	    echo "$$c: $(words $(C_FILES)) C files"; \
	    printf '%s\n' $(C_FILES) | xargs -P $(JOBS) -n 4 $$c $(WARN); done

format: $(VENV)/.extra-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: $(VENV)/.extra-lint
	$(BIN)/mypy

# --- thorough ----------------------------------------------------------------------------------

$(SANITIZED)/.built: $(VENV)/.extra-test $(CORE)
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	BSIPATCH_CFLAGS="$(SANITIZE)" $(BIN)/python setup.py -q build_ext --force \
	    --build-lib $(SANITIZED) --build-temp build/sanitized-objects
	@touch $@

# The sanitized core comes first on the path, with a fresh copy of the package around it.
sanitize: $(SANITIZED)/.built
	@find src/bsipatch -name '*.py' -o -name py.typed -o -name cdef.h -o -name '*.html' -o -name '*.css' -o -name '*.json' | cut -d/ -f2- | \
	    (cd src && xargs cp --parents -t ../$(SANITIZED))
	@PYTHONPATH=$(SANITIZED) BSIPATCH_TEST_CFLAGS="$(SANITIZE)" PYTHONMALLOC=malloc \
	    LD_PRELOAD="$$($(CC) -print-file-name=libasan.so)" BSIPATCH_SANITIZED=1 \
	    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 \
	    $(PYTEST) $(PYTEST_ARGS)

build/fuzz/.built: $(CORE) $(wildcard csrc/fuzz/*)
	@csrc/fuzz/run.sh build
	@touch $@

# Two at a time; all of them run, then any failure fails the whole.
fuzz: $(VENV)/.extra-test build/fuzz/.built
	@printf '%s\n' $(FUZZ_TARGETS) | xargs -P 2 -I{} csrc/fuzz/run.sh run {} $(TIME)
	@HYPOTHESIS_PROFILE=expensive $(PYTEST) tests/hostile $(PYTEST_ARGS)

# The machine's own compiler on arm64; elsewhere $(CROSS_COMPILE)gcc, and qemu runs what it makes.
export CROSS_COMPILE ?= aarch64-linux-gnu-
test-arm64: $(VENV)/.extra-test
	@BSIPATCH_ARM64=1 $(BIN)/python -m pytest -q tests/native $(PYTEST_ARGS)

KILLS ?= 200
agent-kill: $(VENV)/.extra-test
	@BSIPATCH_KILLS=$(KILLS) $(BIN)/python -m pytest -q -s tests/e2e/test_agent_killed.py $(PYTEST_ARGS)

conformance: $(VENV)/.extra-test
	@cd $(SUITE) && PATH="$(CURDIR)/$(BIN):$$PATH" $(CURDIR)/$(BIN)/python -m pytest -p no:cacheprovider \
	    tuf_conformance --entrypoint $(CURDIR)/tests/conformance/client.py $(PYTEST_ARGS)

# As root; what this host cannot run is skipped aloud. CRASH_OUT holds the counts and states that failed.
CRASH_OUT ?= build/crash
CRASH := $(BIN)/python -m tests.crash
crash: $(VENV)/.extra-test
	@$(BIN)/python -m pytest -q -rs tests/crash $(PYTEST_ARGS)

# Each of an operation's system calls fails in turn, in six ways, until no fault fires any more.
CRASH_OPS ?=
crash-faults: $(VENV)/.extra-test
	@mkdir -p $(CRASH_OUT)
	@$(CRASH) faults $(if $(CRASH_OPS),--op $(CRASH_OPS)) --out $(CRASH_OUT)/faults.json

# All three run, whatever the others come to; any that fails makes the whole fail.
crash-full: $(VENV)/.extra-test
	@mkdir -p $(CRASH_OUT); ended=0; \
	$(CRASH) run --states 100 --recoveries 1 --jobs $(JOBS) --save $(CRASH_OUT)/failed --out $(CRASH_OUT)/states.json || ended=1; \
	$(CRASH) faults --out $(CRASH_OUT)/faults.json || ended=1; \
	$(CRASH) planted --jobs $(JOBS) --out $(CRASH_OUT)/planted.json || ended=1; \
	exit $$ended

bench: $(VENV)/.extra-bench
	@$(BIN)/python -m bench $(BENCH_ARGS)

bench-full: $(VENV)/.extra-bench
	@$(BIN)/python -m bench --full $(BENCH_ARGS)

# Every run is kept; a kernel whose median is a tenth slower than in the run before is an error.
# CPU time, since kernels run on one thread: what else the machine does is not in it.
KERNEL_RUNS := bench/results/kernels
BASE ?=
bench-kernels: $(VENV)/.extra-test $(VENV)/.extra-bench
	@$(BIN)/python -m pytest bench/kernels -q -p no:xdist -W default -o python_files='bench_*.py' \
	    --benchmark-storage=$(KERNEL_RUNS) --benchmark-autosave --benchmark-sort=name \
	    --benchmark-columns=median,iqr,rounds --benchmark-disable-gc \
	    --benchmark-timer=time.process_time \
	    $(if $(wildcard $(KERNEL_RUNS)/*/*.json),--benchmark-compare$(if $(BASE),=$(BASE)) \
	        --benchmark-compare-fail=median:10%) $(PYTEST_ARGS)

corpora: $(VENV)/.ready
	@$(BIN)/python bench/corpora.py fetch $(if $(PAIRS),$(PAIRS),--small)

docs: $(VENV)/.extra-docs
	$(BIN)/mkdocs build --strict --site-dir site

man: $(VENV)/.installed
	@$(BIN)/python packaging/make_man.py man
	@$(BIN)/python packaging/make_completions.py build/completions

clean:
	rm -rf $(VENV) build dist site man .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf src/*.egg-info src/bsipatch/_core/*.so src/bsipatch/_core/_bsipatch.c
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# make book · make test · make clean: each sets up what it needs in .venv, from requirements.lock.

# Variables are given on the command line; the environment of the user changes nothing.
PROFILE := digits
RUN :=
PUBLISHED := $(patsubst %/publication.json,%,$(sort $(wildcard results/*/publication.json)))
IS_FIT := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null
PYTHON = $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	"$$p" $(IS_FIT) && echo "$$p" && break; done)
BIN := .venv/bin
INSTALLED := .venv/installed
SAY := @printf '\n== %s\n'

unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTEST_ADDOPTS
unexport MPLBACKEND MATPLOTLIBRC

# What the tests make; the runs of the study itself are in runs/.
TEST := $(CURDIR)/_build/test
# The same bits as under `ionas run`, which sets these for itself.
SAME_BITS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 PYTHONHASHSEED=0

.DEFAULT_GOAL := help
.PHONY: help setup book test lint unit clean clean-all
.NOTPARALLEL:

help:
	@echo 'make book    run the study (what has changed of it), build the book of it and of results/'
	@echo 'make test    lint, types, tests, a tiny study from end to end, its book'
	@echo 'make clean   remove the built book and caches; make clean-all: .venv and runs, too'
	@echo 'make book PROFILE=tiny   the same book from a study of three minutes'
	@echo 'make book RUN="results/laptop digits"   the book of these, as they are; runs nothing'
	@echo 'make book PYTHON=/path/to/python3.12   with that Python (3.11, 3.12 or 3.13)'

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@"$(PYTHON)" $(IS_FIT) || { \
		echo 'Python 3.11, 3.12 or 3.13 is needed, and $(or $(PYTHON:%=% is none of them),none was found).'; \
		echo 'Install one, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12'; exit 1; }
	$(SAY) 'setting up .venv with the versions of requirements.lock'
	@echo '   only once; some minutes and, on Linux, 6 GB of disk: most of it is PyTorch'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-index --no-deps --no-build-isolation -e .
	@touch $@

# The published runs come first in the book. With RUN nothing is run: the book of these runs and
# publications, as they are.
book: setup
ifneq ($(RUN),)
	$(SAY) 'building the book of $(RUN)'
	@$(BIN)/ionas book $(RUN)
else
	$(SAY) 'running the study: only notebooks of which an input has changed'
	@$(BIN)/ionas run --profile $(PROFILE)
	$(SAY) 'building the book'
	@$(BIN)/ionas book $(strip $(PUBLISHED) $(notdir $(basename $(PROFILE))))
endif

test: setup lint unit
	$(SAY) 'all passed; what was skipped is listed above. To look at: the tiny study and its book'
	@echo '   $(TEST)/runs/tiny'
	@echo '   $(TEST)/_build/html/index.html'

lint: setup
	$(SAY) 'lint and types'
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

unit: setup
	$(SAY) 'tests: the package, a tiny study from end to end, its notebooks once more, its book'
	@rm -rf "$(TEST)"
	@IONAS_TEST_RUNS="$(TEST)/runs" $(SAME_BITS) $(BIN)/python -m pytest -n 2 --dist loadfile \
		--no-loadscope-reorder --durations 10 --ignore tests/benchmarks

clean:
	rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@echo 'kept: .venv and runs/ (make clean-all removes them)'

clean-all: clean
	rm -rf .venv runs

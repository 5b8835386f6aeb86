# These do all their own set-up: make demo, make test, make check, make lowest. PYTHON names the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
DEMO := runs/demo

.PHONY: demo test quick slow check branches mutants lowest lint types format reference docs models clean

demo: $(VENV)/.train
	rm -rf $(DEMO)
	$(BIN)/gen train python-help --run $(DEMO) --preset small --minutes 1
	$(BIN)/gen sample $(DEMO) --length 600 --seed 1

# What is run between two changes: five minutes on two cores. The type checker takes one core for a minute of them.
test: lint
	$(MAKE) --no-print-directory -j 2 types quick

# Everything: twelve minutes.
check:
	$(MAKE) --no-print-directory test
	$(MAKE) --no-print-directory slow

quick: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not slow"

# Fuzzing, processes that are killed, several processes that train together, compilers, browsers and the like; and the
# tests of hypothesis with all of their examples, of which make test tries a fifth.
slow: $(VENV)/.dev
	GENTEXT_TEST_EXAMPLES=all $(BIN)/python -m pytest -n 2 --dist loadfile -q -m "slow or hypothesis"

# Which branches only make slow covers, by room. Measuring takes half as long again as make check.
branches: $(VENV)/.dev
	mkdir -p build
	COVERAGE_FILE=build/quick.coverage $(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not slow" --cov --cov-report=
	COVERAGE_FILE=build/slow.coverage GENTEXT_TEST_EXAMPLES=all $(BIN)/python -m pytest -n 2 --dist loadfile -q \
		-m "slow or hypothesis" --cov --cov-report=
	$(BIN)/python tests/branches.py build/quick.coverage build/slow.coverage

# Plants 23 faults, one at a time, and says which the tests of make test see: hours.
mutants: $(VENV)/.dev
	$(BIN)/python tests/mutants.py build/mutants

# The tests with the lowest versions that pyproject.toml allows, in an environment of their own, from wheels alone.
lowest: $(LOWEST)/.dev
	GENTEXT_TEST_EXAMPLES=all $(LOWEST)/bin/python -m pytest -n 2 --dist loadfile -q

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy cannot follow the mapping of an editable install, so it reads the package through links.
types: $(VENV)/.dev
	rm -rf build/types && mkdir -p build/types/gentext
	ln -s $(CURDIR)/engine/* $(CURDIR)/plugins $(CURDIR)/export $(CURDIR)/cli $(CURDIR)/data build/types/gentext/
	$(BIN)/python -m mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Writes the pages of docs/reference that follow from the code.
reference: $(VENV)/.dev
	$(BIN)/python docs/generate.py

# Builds the documentation as a site with a search, in build/site.
docs: $(VENV)/.dev
	$(BIN)/python docs/site.py

# Trains the generators that are part of the package, about six minutes, and puts them into data/models/. RUNS exports
# runs that are trained already: make models RUNS='--run shakespeare=RUN'
models: $(VENV)/.train
	$(BIN)/python benchmarks/models.py $(RUNS)

$(VENV)/.train: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[train]'
	touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[train,dev]'
	touch $@ $(VENV)/.train

$(LOWEST)/.dev: pyproject.toml
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --only-binary :all: \
		-e '.[train,dev]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist runs

# `make demo` and `make test` work from a bare clone with python3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin

# Each command that a test starts would compile the project anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test fast-tests test-all check style types format bench paper paper-quick pictures reference docs notebooks notebook-pairs notebook-pages clean
.DELETE_ON_ERROR:

demo: .venv/run.stamp
	$(BIN)/churnlab run scenarios/quickstart.yaml

test: style
	$(MAKE) --no-print-directory --jobs=2 types fast-tests

fast-tests: .venv/dev.stamp
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: check
	CHURNLAB_TEST_EXAMPLES=all $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "slow or not slow"

check: style types

style: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev.stamp
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/dev.stamp
	$(BIN)/python -m benchmarks.training_overhead
	$(BIN)/python -m benchmarks.proxy_steps
	$(BIN)/python -m benchmarks.fidelity
	$(BIN)/python -m benchmarks.iteration_times
	$(BIN)/python -m benchmarks.sweep_sharing
	$(BIN)/python -m benchmarks.sweep_throughput
	$(BIN)/python -m benchmarks.gpu
	$(BIN)/python -m benchmarks.large_fleet
	$(BIN)/python -m benchmarks.volunteers
	$(BIN)/python -m benchmarks.traces
	$(BIN)/python -m benchmarks.strategy_map
	$(BIN)/python -m benchmarks.diloco

paper: .venv/run.stamp
	$(BIN)/python -m benchmarks.paper

paper-quick: .venv/run.stamp
	$(BIN)/python -m benchmarks.paper --quick

pictures: .venv/run.stamp
	$(BIN)/python docs/pictures.py

reference: .venv/run.stamp
	$(BIN)/python docs/scenario_reference.py
	$(BIN)/python docs/commands_reference.py

docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html"

notebooks: .venv/run.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt jupyterlab ipykernel duckdb
	cd notebooks && ../$(BIN)/jupyter lab

notebook-pairs: .venv/dev.stamp
	$(BIN)/python notebooks/pair.py

notebook-pages: .venv/dev.stamp
	$(BIN)/python notebooks/pages.py

clean:
	rm -rf .venv site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run.stamp: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing into .venv; torch is the largest package: this can take minutes."
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/docs.stamp: .venv/run.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

.venv/dev.stamp: .venv/run.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

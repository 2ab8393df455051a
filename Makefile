# The two commands of the README: `make demo` runs the main job, `make test` the tests.
# Both set up everything they need in .venv; only Python, pip and make must be there.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL := 3

.PHONY: demo test lint clean

demo: $(VENV)/all.done
	$(BIN)/edge-lstm demo -o build/demo

test: $(VENV)/dev.done lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/%.done: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* build dist .pytest_cache .mypy_cache .ruff_cache

# Two commands do everything: `make run` and `make test`; `make coverage` counts covered lines.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test coverage setup weights clean

run: setup weights ## one default run, then the paths and the command that opens the MLflow UI
	$(BIN)/medisynth-gov run

test: setup weights ## the same set-up, then every check
	scripts/check

coverage: setup weights ## lines that the unit tests run through; counting them doubles the tests' time
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow and not gpu" -n 2 --cov --cov-fail-under=85 --cov-report=term

setup: $(STAMP) ## virtual environment and installation; a second call re-installs nothing

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev,dicom]"
	touch $@

weights: setup ## FID weights if they can be had; a run goes on without them
	-@$(BIN)/medisynth-gov weights fetch

clean: ## remove the environment and caches, never a run
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov

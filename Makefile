# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test check mutants contracts format grammar clean

demo: $(READY)
	$(BIN)/lbw demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lbw-check --prove 'policies/*.lbw'
	$(BIN)/lbw fmt --check 'policies/*.lbw'

mutants: $(READY)
	$(BIN)/python benchmarks/mutation.py --write

contracts: $(READY)
	$(BIN)/python -m crosshair check --analysis_kind=PEP316 --report_all --per_condition_timeout=10 benchmarks/contracts.py

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

grammar: $(READY)
	$(BIN)/python -m lbw_policy.syntax.table

clean:
	rm -rf $(VENV) dist build demo_out

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# `make demo` shows the whole workflow, `make test` runs the quick tests, `make test-slow` the long ones.
# Needed: Python 3.11+, Git and make; `uv` is installed into .venv.
.PHONY: setup demo test test-slow lint lock clean
PYTHON ?= python3
# For a CPU-only PyTorch, if its package index can be reached: make setup TORCH_BACKEND=cpu
TORCH_BACKEND ?=
BIN := .venv/bin

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "segpipe needs Python 3.11+; set PYTHON=/path/to/it"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -E '^uv==' requirements.lock | cut -d' ' -f1)"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python $(if $(TORCH_BACKEND),--torch-backend $(TORCH_BACKEND)) requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup
	@$(BIN)/segpipe demo

# In parallel, because many tests wait for servers and processes; the tests of a file run in one process and share fixtures. The files
# that take longest start first. HYPOTHESIS_PROFILE=nightly runs property tests with 20 times as many examples, other ones each time.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.longest_first -n 3 --dist loadfile --no-loadscope-reorder --durations=10 -m "not slow"

# Complete trainings, overfitting with every family, killed processes, real servers and deployments; all commands of the documentation,
# end to end.
test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p tests.longest_first -n 3 --dist loadfile --no-loadscope-reorder --durations=10 -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/draw_house.py --check
	$(BIN)/python docs/write_params.py --check

lock: setup
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra vgg --universal --python-version 3.11 --no-emit-index-url -q -o requirements.lock

clean:
	rm -rf demo .venv

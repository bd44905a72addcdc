# Needs python3.11 or newer, make and the Python package index; everything else it brings itself.
.DEFAULT_GOAL := help
.PHONY: help demo test check lint types imports tests compiled vllm wheel clients setup clean
SHELL := /bin/sh

UV_VERSION := 0.13.9
TEST_PROCESSES := 2
UV := .uv/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
export UV_NO_PROGRESS := 1
# Bytecode is worth keeping: the demo starts some thirty commands.
export PYTHONDONTWRITEBYTECODE :=

help: ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: setup ## Set up, then run the main job; DEMO_FLAGS="--exit --json" are passed on
	@$(BIN)/sluicegate demo $(DEMO_FLAGS)

test: setup lint types imports tests compiled ## Set up, then run everything CI runs

check: test ## The same as test

lint: setup ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## Types, strict
	$(BIN)/mypy

imports: setup ## Who may import whom
	$(BIN)/lint-imports

clients: ## The official Node client, for its tests; skipped without npm
	@command -v npm >/dev/null && npm ci --prefix tests/clients/node --ignore-scripts --no-audit --no-fund >&2 \
	  || echo "make: no npm, or it failed; the Node client is not tested" >&2

tests: setup clients ## The tests alone, in TEST_PROCESSES (2); PYTEST_FLAGS are passed on
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile $(PYTEST_FLAGS)

compiled: setup ## The gateway's tests against its compiled modules; skipped without a C compiler
	@sh .ci/compiled

vllm: setup ## Tests against a real vLLM on the processor; its environment takes ten minutes once
	@sh .ci/vllm

wheel: $(UV) ## A wheel with the busiest modules compiled, in dist/; needs a C compiler and Python's headers
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(UV) build --quiet --python .uv/bin/python

setup: .venv/.ready ## A virtual environment with exactly the locked dependencies

.venv/.ready: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --quiet --frozen --extra demo --python .uv/bin/python >&2
	@touch $@

$(UV):
	@python=$$(PYTHON="$(PYTHON)" sh .ci/python) || exit 1; \
	"$$python" -m venv .uv >&2 || { rm -rf .uv; \
	  echo "make: $$python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) >&2 || { rm -rf .uv; exit 1; }

clean: ## Remove what make made
	rm -rf .venv .uv .vllm .demo .compiled dist

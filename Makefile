# What a contributor does. `make demo` and `make test` need nothing but Python 3.11 or newer.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
JOBS ?= auto

.DEFAULT_GOAL := help
.PHONY: help demo test soak soak-memory lint types format coverage docs bench overhead prices lock compat peers programs dashboards check clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(READY): requirements/dev.txt requirements/no-deps.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; say which with: make $(MAKECMDGOALS) PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements/no-deps.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: $(READY)  ## watch real clients being metered, priced and stopped by a budget
	@$(BIN)/tokenbudget demo

test: $(READY)  ## the tests
	$(BIN)/python -m pytest -m "not soak" -n $(JOBS) --dist loadfile

soak: $(READY)  ## the long tests
	$(BIN)/python -m pytest -m soak -n $(JOBS) --dist loadfile

soak-memory: $(READY)  ## 100,000 calls on every path: memory stays where it is (about half an hour)
	SOAK_CALLS=100000 $(BIN)/python -m pytest tests/soak -m soak -n 2 --dist worksteal

lint: $(READY)  ## ruff, lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

format: $(READY)  ## put the code in shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY)  ## the benchmarks, each beside its floor in one run
	@for file in bench/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done
	@echo "== bench/overhead"; $(BIN)/python bench/overhead --quick

overhead: $(READY)  ## what a call costs, beside the floor and the peers, into docs/overhead.md (about half an hour)
	$(BIN)/python bench/overhead --json docs/overhead.json --picture docs/pictures/overhead.svg --page docs/overhead.md

programs:  ## build the Collector and Jaeger that tests run (needs Go 1.25, takes minutes the first time)
	tools/programs.sh

dashboards: $(READY)  ## write the dashboards and the recording rules
	$(BIN)/python tools/make_dashboards.py

coverage: $(READY)  ## write the table of what is covered from the rows of the contract suite
	$(BIN)/python tools/make_coverage.py

prices: $(READY)  ## take the newest prices into the catalog
	$(BIN)/python -m pip install --quiet --upgrade genai-prices
	$(BIN)/python tools/make_prices.py

lock: $(READY)  ## pin the newest versions for development
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
		--extra demo --extra grpc --extra where --group dev pyproject.toml --output-file requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
		requirements/previous.in --output-file requirements/previous.txt
	for peer in $(PEERS); do overrides=requirements/peers/$$peer.overrides; \
		$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header --no-annotate \
			$$(test -f $$overrides && echo "--override $$overrides") \
			requirements/peers/$$peer.in --output-file requirements/peers/$$peer.txt || exit 1; done

.compat/previous/.ready: requirements/previous.txt requirements/dev.txt pyproject.toml
	$(PYTHON) -m venv .compat/previous
	.compat/previous/bin/python -m pip install --quiet --disable-pip-version-check \
		--requirement requirements/previous.txt
	.compat/previous/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

compat: $(READY) .compat/previous/.ready  ## the current and the previous major versions of the SDKs
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile tests/instrumentation/contract
	.compat/previous/bin/python -m pytest -m "not soak" -q -n $(JOBS) --dist loadfile tests/instrumentation

PEERS := official openllmetry openinference openlit logfire langfuse

.peers/%/.ready: requirements/peers/%.txt pyproject.toml | $(READY)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .peers/$*
	$(BIN)/uv pip install --quiet --python .peers/$*/bin/python --no-deps --requirement requirements/peers/$*.txt
	$(BIN)/uv pip install --quiet --python .peers/$*/bin/python --no-deps --editable .
	@touch $@

.SECONDARY: $(PEERS:%=.peers/%/.ready)

peer-%: .peers/%/.ready  ## one of them: official, openllmetry, openinference, openlit, logfire, langfuse
	TOKENBUDGET_PEER=$* .peers/$*/bin/python -m pytest -q --timeout 600 tests/peers

peer-native: .peers/official/.ready  # the anthropic SDK's own spans: nothing to install beside it
	TOKENBUDGET_PEER=native .peers/official/bin/python -m pytest -q --timeout 600 tests/peers

peers: $(PEERS:%=peer-%) peer-native  ## the real peers beside ours, in either order, each in an environment of its own

check: lint types test  ## what has to pass before a change goes in

clean:  ## remove environments and caches
	rm -rf .venv .compat .peers .pytest_cache .mypy_cache .ruff_cache .hypothesis

# make run    start the daemon on 127.0.0.1:7377 with ./data/sessions.db
# make test   lint, types and all tests
# make express  what each Express session store loses, measured
# make bench  sessiond beside Redis and other stores, as web apps see them; QUICK=1: in three minutes
# make crash  the long crash run: 200 times kill -9 under eight writing clients

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test lint types python node express bench crash clean

run: .venv/run
	@$(BIN)/sessiond serve

test: lint types node python

python: .venv/dev
	$(BIN)/pytest

# The Node package's own tests. They need Node 20 or newer; CI requires them.
node: .venv/dev
	@if [ "$$(node -p 'parseInt(process.versions.node) >= 20' 2>/dev/null)" = true ]; then \
		npm --prefix client/node install --silent --no-audit --no-fund && npm --prefix client/node test; \
	elif [ "$$SESSIOND_TEST_REQUIRE" = all ]; then \
		echo "node 20 or newer is not installed, and is required here"; exit 1; \
	else \
		echo "skipping the tests of client/node: node 20 or newer is not installed"; \
	fi

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/dev
	$(BIN)/mypy

# What each Express session store loses, measured; MariaDB and Redis are compared where they are installed.
express: .venv/run
	cd benchmarks/express_correctness && rm -rf node_modules && npm install --silent --no-audit --no-fund && node run.js

# sessiond and its peers under the same load, round by round; ONLY=word: the lines whose name contains it. What is not
# installed is left out, and named.
bench: .venv/dev
	@$(PIP) install --group bench
	@$(BIN)/python -m benchmarks.speed.run $(if $(QUICK),--quick) $(if $(ONLY),--only "$(ONLY)") $(if $(JSON),--json $(JSON))

crash: .venv/dev
	$(BIN)/python -m tests.system.crash --kills 200

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "sessiond needs Python 3.11 or newer: set PYTHON=python3.x"; exit 1; }
	@$(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo "python3 has no venv: install it (Debian, Ubuntu: apt install python3-venv)"; exit 1; }

.venv/run: pyproject.toml .venv/bin/python
	@echo "installing sessiond into .venv"
	@$(PIP) install --editable .
	@touch $@

.venv/dev: pyproject.toml client/python/pyproject.toml .venv/run
	@echo "installing what the tests need into .venv"
	@$(PIP) install --upgrade 'pip>=25.1'
	@$(PIP) install --group dev --editable ./client/python
	@touch $@

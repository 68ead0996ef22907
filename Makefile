# Two commands matter: `make demo` ends in a running stack, `make test` runs every check. Nothing else is needed first.
SHELL := /bin/bash
.DEFAULT_GOAL := help

UV_VERSION := 0.13.9
TOOLS := .tools
UV := $(TOOLS)/bin/uv
BIN := .venv/bin

# The first Python of 3.11 or newer that really starts, with Debian's own as the last resort.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 /usr/bin/python3; do \
  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help demo test newest quick adoption check env engines build secrets clean

help: ## what can be made
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: env ## install what is missing and run the whole stack on this machine, until Ctrl-C
	@$(BIN)/python -m taskscope.testing.engines --install --stack
	@exec $(BIN)/taskscope up $(UP)

# The live stack's tests wait more than they work, and those of servers do both: each part runs beside the others, and
# its output comes after.
SERVERS := exporters dashboards ui
test: engines check ## install what the tests need and run them all, with real servers
	@$(BIN)/pytest ui/tests/live > $(TOOLS)/live.txt 2>&1 & live=$$!; \
	$(BIN)/pytest $(SERVERS) --ignore=ui/tests/live --durations=10 > $(TOOLS)/servers.txt 2>&1 & servers=$$!; \
	trap 'kill $$live $$servers 2>/dev/null' INT TERM; \
	$(BIN)/pytest $(SERVERS:%=--deselect=%/) --durations=10; rest=$$?; \
	wait $$servers; served=$$?; cat $(TOOLS)/servers.txt; \
	wait $$live; lived=$$?; cat $(TOOLS)/live.txt; \
	exit $$((rest | served | lived))
	@$(MAKE) --no-print-directory newest

# A 9.x client is refused by an 8.x server, which is what a JDK older than 21 can run.
newest: engines ## the shipper once more, with the newest client line instead of the one that serves both
	@server=$$($(BIN)/python -c 'from taskscope.testing.engines import distribution, jdk; print(distribution.version_for(jdk.find()))'); \
	case $$server in \
	8.*) echo "the newest client needs a server of 9.x, and this JDK runs $$server: not tested here" ;; \
	*) $(UV) pip install --quiet --no-config --python $(BIN)/python --target $(TOOLS)/newest 'elasticsearch>=9,<10' && \
	   PYTHONPATH=$(TOOLS)/newest $(BIN)/python -c 'import elasticsearch; v = elasticsearch.__versionstr__; print("client", v); exit(v < "9")' && \
	   PYTHONPATH=$(TOOLS)/newest $(BIN)/pytest exporters/tests/test_shipper*.py exporters/tests/test_lookup.py \
	     -k 'not other_line and not killed' ;; \
	esac

quick: env ## the tests that need no server
	$(BIN)/pytest -m 'not engine'

adoption: env ## the library under each FastAPI that it supports, in throwaway environments
	$(BIN)/python benchmarks/adoption.py

check: env ## format, lint, arrows, types, and whether the generated files are in step
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/taskscope check

build: env ## write dashboards, rules, runbooks and configurations anew from the catalogue
	$(BIN)/taskscope build

engines: env ## install the servers that are missing, with the system's package manager
	@$(BIN)/python -m taskscope.testing.engines --install

env: .venv/.synced ## the Python environment, as the lock has it

.venv/.synced: pyproject.toml uv.lock | $(UV)
	@UV_PYTHON=$$($(TOOLS)/bin/python -c 'import sys; print(sys.executable)') \
	  $(UV) sync --locked --all-extras --group dev --quiet --no-python-downloads
	@touch $@

$(UV):
	@[ -n '$(PYTHON)' ] || { echo 'make: no Python of 3.11 or newer; run: apt-get install python3' >&2; exit 2; }
	@$(PYTHON) -m venv $(TOOLS) >/dev/null 2>&1 || { \
	  echo 'installing python3-venv, which Debian keeps apart from python3'; rm -rf $(TOOLS); \
	  $(SUDO) apt-get update -qq && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null \
	  && $(PYTHON) -m venv $(TOOLS); }
	@$(TOOLS)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

secrets: env ## random passwords for docker-compose.yml, in .env, readable by you alone
	@$(BIN)/python -m taskscope_ui.stack.compose_secrets

clean: ## remove the environment and the stack's folder
	rm -rf .venv $(TOOLS) .taskscope

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
# Debian's Docker client and compose plugin; another client that comes first in PATH may not find the plugin.
export PATH := /usr/bin:/usr/sbin:$(CURDIR)/$(VENV)/bin:$(PATH)
PYTEST := $(VENV)/bin/pytest

.DEFAULT_GOAL := help

.PHONY: help
help: ## show what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: venv ## provision a tenant on this machine whose bot trades on the sandbox exchange
	@$(VENV)/bin/hummingfleet demo up

.PHONY: demo-down
demo-down: venv ## remove what the demo made
	@$(VENV)/bin/hummingfleet demo down

.PHONY: test
test: venv lint lab ## run every check and test, the real engine's included
	@# Much of their time is waiting: more workers than processors.
	$(PYTEST) tests -m 'not alone' -n 5 --dist loadfile --no-loadscope-reorder
	$(PYTEST) tests -m alone

.PHONY: test-quick
test-quick: venv ## run the tests that need nothing but Python
	$(PYTEST) tests -m 'not lab and not engine'

.PHONY: test-kill
test-kill: venv lab ## kill web and worker at random while 1,000 events come in, on SQLite and on PostgreSQL
	$(VENV)/bin/python tests/kill/campaign.py --json var/kill/report.json

.PHONY: compat
compat: venv lab ## try the newest engine of each of the last four months and write docs/compatibility.md (an hour or two)
	$(VENV)/bin/python tools/compat.py $(COMPAT)

.PHONY: lint
lint: venv ## check style, types and documentation
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet plugins webhook tests/installation.py tests/bench tests/lab
	$(VENV)/bin/mypy
	$(VENV)/bin/yamllint --strict .
	$(VENV)/bin/ansible-lint --offline --profile production playbooks roles
	$(VENV)/bin/python tools/generate_reference.py --check

.PHONY: lab
lab: venv ## have Docker and the images that tests and benchmarks need on this machine
	@tools/prepare_lab

.PHONY: bench
bench: venv lab ## measure converges, the web service, its worker and signals against what else there is or a bound
	$(VENV)/bin/python tests/bench/bench_inventory.py
	$(VENV)/bin/python tests/bench/bench_converge.py --json var/bench/converge.json
	-$(VENV)/bin/python tests/bench/bench_start.py --json var/bench/start.json
	-$(VENV)/bin/python tests/bench/bench_intake.py --json var/bench/intake.json
	-$(VENV)/bin/python tests/bench/bench_latency.py --json var/bench/latency.json
	-$(VENV)/bin/python tests/bench/bench_idle.py --json var/bench/idle.json
	-$(VENV)/bin/python tests/bench/bench_signals.py --json var/bench/signals.json

.PHONY: bench-engines
bench-engines: venv lab ## compare the registry as the queue with DBOS while processes are killed (half an hour)
	$(VENV)/bin/python tests/bench/engines/bench_engines.py --json var/bench/engines.json

.PHONY: venv
venv: $(VENV)/.installed ## install the Python packages into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "==> Python packages into $(VENV)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet uv==0.13.9
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint constraints.txt --editable '.[dev]'
	@# This repository's collection joins the namespace package `ansible_collections` that the package `ansible` fills.
	@echo "$(CURDIR)/collections" > "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/hummingfleet.pth"
	@# Bytecode now, for machines that are told not to write it later: half of a run's start would be compiling.
	@$(VENV)/bin/python -m compileall -q -j 0 -x '/ansible_collections/|/tests?/' "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" >/dev/null || true
	@touch $@

.PHONY: constraints
constraints: ## pin every Python package, direct and indirect
	$(VENV)/bin/uv pip compile --quiet --no-header --no-annotate --extra dev --extra postgresql pyproject.toml -o constraints.txt

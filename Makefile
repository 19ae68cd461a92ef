SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv

.PHONY: help
help: ## what can be made here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: venv ## this machine becomes a node, and a tenant's bot trades on the sandbox exchange
	@$(VENV)/bin/hummingfleet demo up

.PHONY: demo-down
demo-down: venv ## remove the demonstration
	@$(VENV)/bin/hummingfleet demo down

.PHONY: venv
venv: $(VENV)/.installed ## the Python packages, into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "==> Python packages into $(VENV)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet uv==0.13.9
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint constraints.txt --editable '.[dev]'
	@# This repository's collection joins the namespace package `ansible_collections` that the package `ansible` fills.
	@echo "$(CURDIR)/collections" > "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/hummingfleet.pth"
	@touch $@

.PHONY: constraints
constraints: ## pin every Python package, direct and indirect
	$(VENV)/bin/uv pip compile --quiet --no-header --no-annotate --extra dev --extra postgresql pyproject.toml -o constraints.txt

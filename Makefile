SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv

.PHONY: venv
venv: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "==> Python packages into $(VENV)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet uv==0.13.9
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

.PHONY: constraints
constraints: ## pin every Python package, direct and indirect
	$(VENV)/bin/uv pip compile --quiet --no-header --no-annotate --extra dev --extra postgresql pyproject.toml -o constraints.txt

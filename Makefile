# Index of every task. `make` alone prints the targets. No activated environment is needed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
STEPS  ?= 1
VENV   := .venv
BIN    := $(VENV)/bin
DAO    := $(BIN)/dao

# What setup.cfg and pyproject.toml say is installed, once.
STAMP  := $(VENV)/.installed-dev

$(STAMP): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(STAMP) ## create .venv and install the project into it

# Index of every task; `make` alone prints it. No activated environment is needed.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

STEPS ?= 1
# what a person writes reaches the scripts by the environment: no quoting to get wrong
export NAME STEPS TO ID PYTHON
VENV  := .venv
BIN   := $(VENV)/bin

# The environment is made once, and again when what it holds changes, its Python has gone, or PYTHON names another.
INSTALLED := $(VENV)/.installed
TOOLS     := $(VENV)/.installed-dev
SLOW      := $(VENV)/.installed-slow
# a PostgreSQL server that ends with the command, as tests have it
WITH_SERVER := $(BIN)/python -m tests.with_server
WILL_DO   := $(shell [ -x $(BIN)/python ] && { [ -z '$(PYTHON)' ] || PYTHON='$(PYTHON)' bin/set-up --is-of-python; } && echo yes)

$(INSTALLED): setup.cfg pyproject.toml $(if $(WILL_DO),,FORCE)
	@bin/set-up .

$(TOOLS): $(INSTALLED)
	@bin/set-up '.[dev]'
	@touch $@

# what only slow tests need is 150 MB
$(SLOW): $(TOOLS)
	@bin/set-up '.[dev,notebook]'
	@touch $(TOOLS) $@

FORCE:

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(TOOLS) ## create .venv with the project and its development tools (PYTHON=python3.12)

.PHONY: migrate
migrate: $(INSTALLED) ## apply the pending migrations (TO=id)
	@bin/migrate $(if $(TO),--to "$$TO")

.PHONY: rollback
rollback: $(INSTALLED) ## undo the latest migration (STEPS=n, or TO=id: all after it)
	@bin/rollback $(if $(TO),--to "$$TO",--steps "$$STEPS")

.PHONY: redo
redo: $(INSTALLED) ## undo and apply again (STEPS=n)
	@bin/dao redo --steps "$$STEPS"

.PHONY: status
status: $(INSTALLED) ## show where each migration stands
	@bin/status

.PHONY: plan
plan: $(INSTALLED) ## show what migrate would run
	@bin/plan

.PHONY: rehearse
rehearse: $(INSTALLED) ## try what migrate would run on a copy of the database
	@bin/rehearse

.PHONY: snapshot
snapshot: $(INSTALLED) ## copy the database into a verified file beside it
	@bin/snapshot

.PHONY: restore
restore: $(INSTALLED) ## replace the database by its newest snapshot (ID=…; asks; YES=1 does not)
	@bin/restore $(if $(YES),--yes) $(if $(ID),"$$ID")

.PHONY: history
history: $(INSTALLED) ## show who changed the schema, and when
	@bin/dao history

.PHONY: schema
schema: $(TOOLS) ## write sql/sqlite.schema.sql and its twin, the schemas that the migrations make
	@bin/dao schema dump --migrations sql/sqlite
	@$(WITH_SERVER) bin/dao schema dump --migrations sql/postgresql

.PHONY: new
new: $(INSTALLED) ## create an empty migration (NAME=add_priority_to_tasks)
	@bin/new-migration --migrations sql/sqlite -- "$$NAME"

.PHONY: init
init: $(INSTALLED) ## create the database, migrate it, show the status
	@bin/init-db

.PHONY: reset
reset: $(INSTALLED) ## drop everything and migrate again (asks; YES=1 does not)
	@bin/reset-db $(if $(YES),--yes)

.PHONY: test
test: $(TOOLS) ## run the tests
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal --quiet

.PHONY: test-slow
test-slow: $(SLOW) ## run all tests, the slow ones too, with more examples
	HYPOTHESIS_PROFILE=nightly $(BIN)/python -m pytest --numprocesses auto --dist worksteal --quiet -m ''

.PHONY: lint
lint: $(TOOLS) ## check style (ruff), types (mypy), import contracts, scripts (dao lint) and the schema files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg --no-cache
	@DATABASE_URL= bin/dao lint --all --strict --quiet --migrations sql/sqlite
	@DATABASE_URL=postgresql:/// bin/dao lint --all --strict --quiet --migrations sql/postgresql
	@bin/dao schema check --quiet --migrations sql/sqlite
	@$(WITH_SERVER) bin/dao schema check --quiet --migrations sql/postgresql

.PHONY: check-migrations
check-migrations: $(TOOLS) ## prove that every migration can be applied, undone and applied again
	@bin/check-migrations --migrations sql/sqlite
	@$(WITH_SERVER) bin/check-migrations --migrations sql/postgresql

# made anew each time: of a page that has not changed, a second build would keep quiet about what is wrong
SITE   := $(VENV)/.installed-docs
SPHINX := $(BIN)/python -m sphinx --quiet --fail-on-warning --conf-dir docs/site --doctree-dir build/doctrees
$(SITE): $(TOOLS)
	@bin/set-up '.[docs]'
	@touch $(TOOLS) $@

.PHONY: docs
docs: $(SITE) ## make the site, build/site/index.html, whose links and names are checked, and the man page
	$(SPHINX) --fresh-env -b html docs build/site
	@$(BIN)/python -m tests.site build/site
	@$(SPHINX) -b man docs build/man

MAN := build/man/dao.1
$(MAN): $(SITE) $(wildcard dao/cli/*.py) docs/reference/commands.md
	@$(SPHINX) -b man docs build/man

.PHONY: wheel
wheel: $(MAN) ## build the wheel, install it into a new environment and use it there
	@rm -rf dist build/lib build/bdist.*
	$(BIN)/python -m build --wheel --outdir dist . >/dev/null
	@PYTHON=$(BIN)/python bin/check-wheel dist/*.whl

.PHONY: check
check: lint check-migrations test docs wheel ## all of these: what CI runs

# The contenders have an environment of their own: what is measured beside the project is no part of it.
CONTENDERS := $(VENV)/bench
$(CONTENDERS)/.installed: $(INSTALLED)
	@echo "setting up $(CONTENDERS) …"
	$(BIN)/python -m venv --clear $(CONTENDERS)
	$(CONTENDERS)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

.PHONY: bench
bench: $(CONTENDERS)/.installed ## measure against the bare drivers and other libraries (about three minutes)
	$(CONTENDERS)/bin/python -m bench $(addprefix --compare ,$(wildcard docs/benchmarks/results.json))

.PHONY: bench-full
bench-full: $(CONTENDERS)/.installed ## measure thoroughly, up to a million rows, and write docs/benchmarks
	$(CONTENDERS)/bin/python -m bench --full --write-docs

.PHONY: reference
reference: $(TOOLS) ## write docs/reference anew from the code
	$(BIN)/python -m tests.reference.refusals
	$(BIN)/python -m tests.reference.documents

.PHONY: clean
clean: ## remove what the other targets made; databases stay
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

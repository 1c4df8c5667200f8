# `make demo` and `make test` do everything on a machine that has Python 3.11 or newer and make.
# Both install into .venv from the hash-locked files in requirements/, and skip that while .venv is newer than them.

PYTHON ?= python3
VENV := .venv
JOBS ?= 4
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
UV := uv==0.13.9
COMPILE = $(VENV)/.lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help demo test check fuzz lint format bench serve lock wheel clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## install what it needs, then show the whole service at work (under half a minute)
	@$(BIN)/python -m scripts.demo

test: $(VENV)/.dev ## install what it needs, real servers too, then run the tests (ARGS='-k name', JOBS=0)
	@$(BIN)/python -m scripts.servers
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(VENV)/.dev ## lint, and the tests that start no server (under a minute once installed)
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not servers and not slow' $(ARGS)

fuzz: $(VENV)/.dev ## 110 000 hostile requests, a share over sockets; bent answers of others, TLS records (minutes)
	@$(BIN)/python -m scripts.fuzz

lint: $(VENV)/.dev ## ruff's rules and format, mypy in strict mode
	@status=0; $(BIN)/ruff check . || status=1; $(BIN)/ruff format --check . || status=1; $(BIN)/mypy || status=1; exit $$status

format: $(VENV)/.dev ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.demo ## measure speed (2 minutes; ARGS=--full, ARGS=--help; AGAINST=http://host:port/path measures another server)
	@$(BIN)/python -m scripts.bench $(if $(AGAINST),--against '$(AGAINST)') $(ARGS)

serve: $(VENV)/.demo ## run the service from ./sts.yaml, written by `sts init` if there is none
	@test -f sts.yaml || $(BIN)/sts init
	@$(BIN)/sts serve

lock: | $(BIN)/python ## resolve pyproject.toml anew into requirements/
	@$(PYTHON) -m venv $(VENV)/.lock
	@$(VENV)/.lock/bin/python -m pip --disable-pip-version-check install --quiet $(UV)
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) --group build -o requirements/build.txt
	$(COMPILE) pyproject.toml --group demo -c requirements/runtime.txt -o requirements/demo.txt
	$(COMPILE) pyproject.toml --group dev -c requirements/demo.txt -o requirements/dev.txt
	$(COMPILE) --group servers -o requirements/servers.txt

wheel: $(VENV)/.demo ## build the wheel into dist/
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean: ## remove what the targets made; var/ (keys and state) stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.13 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		$(PYTHON) scripts/servers.py --apt python3-venv && $(PYTHON) -m venv $(VENV); } || { rm -rf $(VENV); exit 1; }

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(BIN)/python
	@echo "installing from $<"
	@$(PIP) --require-hashes -r $<
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(BIN)/python
	@echo "installing from $<"
	@$(PIP) --require-hashes -r $<
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.demo

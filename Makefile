# Every target sets up what it needs: Python 3.11 or newer and make are enough.
#
#   make test                    uses .venv and the first Python found
#   PYTHON=python3.12 make test  uses .venv-3.12
#   make test ARGS="-k bearer"   passes ARGS on to the command

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules
SHELL := /bin/sh

ifdef PYTHON
VENV := .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
ifeq ($(VENV),.venv-)
$(error PYTHON=$(PYTHON) does not run)
endif
else
VENV := .venv
endif

BIN := $(VENV)/bin
# Most tests wait for servers: two processes a core keep it busy.
WORKERS := $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2))))
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input
READY := $(VENV)/.ready
NODE := $(VENV)/.node
BROWSER := $(VENV)/.browser
PROXIES := $(VENV)/.proxies
# The unit tests have passed for the sources as they are; `make check` after `make test` need not repeat them.
TESTED := $(VENV)/.tested
SOURCES = $(shell find oidc_middleware tests docs examples benchmarks -type d -name node_modules -prune -o -type f ! -name '*.pyc' -print) \
	pyproject.toml README.md CHANGELOG.md Makefile

.PHONY: help
help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(READY)  ## Start an issuer and a protected API here, and print curl lines to try (ARGS=--check: try them).
	@$(BIN)/oidc-middleware demo $(ARGS)

.PHONY: test
test: $(READY)  ## Run the tests.
	@echo "make test: every test that needs Python alone; left out: make conformance (an OpenID provider that runs on Node), make browser (Chromium), make proxies (Traefik, nginx, Caddy, Envoy)"
	@# Bytecode is kept, whatever the environment says: hundreds of processes start here, and each would compile it all.
	@export PYTHONDONTWRITEBYTECODE= PYTEST_XDIST_AUTO_NUM_WORKERS=$(WORKERS) && \
		$(BIN)/python -m compileall -q oidc_middleware && $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)
	@$(if $(ARGS),,touch $(TESTED))

$(TESTED): $(READY) $(SOURCES)
	@$(MAKE) test ARGS=

.PHONY: check
check: $(READY) $(NODE)  ## Check everything: format, lint, types, floors, public names, generated pages, tests.
	@$(call step,format,$(BIN)/ruff format --check --diff .)
	@$(call step,lint,$(BIN)/ruff check .)
	@$(call step,types,$(BIN)/mypy)
	@$(call step,floors,$(BIN)/lint-imports)
	@$(call step,public names,PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes oidc_middleware --ignoreexternal)
	@$(call step,generated pages,$(BIN)/python docs/generate.py --check)
	@echo "make check: tests" && $(MAKE) $(TESTED)
	@echo "make check: all is well"

# Says what is checked in one line, and shows what the command says only when it fails.
step = echo "make check: $(1)" && { $(2) >$(VENV)/check.log 2>&1 || { cat $(VENV)/check.log; exit 1; }; }

.PHONY: conformance
conformance: $(READY)  ## Run the suite against certified OpenID providers (Node >= 20 from PATH, else from a wheel).
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20)' 2>/dev/null && command -v npm >/dev/null || $(MAKE) $(NODE)
	@$(BIN)/python -m pytest tests/conformance $(ARGS)

.PHONY: browser
browser: $(READY) $(BROWSER)  ## Log in, use an app and sign out in a real browser (Chromium from PATH or CHROMIUM; Node as above).
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20)' 2>/dev/null && command -v npm >/dev/null || $(MAKE) $(NODE)
	@$(BIN)/python -m pytest tests/browser $(ARGS)

.PHONY: proxies
proxies: $(READY) $(PROXIES)  ## Run forward auth behind real Traefik, nginx, Caddy and Envoy, all from wheels.
	@$(BIN)/python -m pytest tests/proxies $(ARGS)

.PHONY: soak
soak: $(READY)  ## Let three processes share a Redis that fails in every way, and revoke meanwhile; 10 GiB through the proxy (ARGS="--seconds 60 --seed 7").
	@$(BIN)/python tests/soak/soak.py $(ARGS)
	@$(BIN)/python -m pytest tests/soak
	@$(BIN)/python tests/soak/revocations.py $(ARGS)
	@$(BIN)/python tests/soak/schedules.py $(ARGS)
	@$(BIN)/python tests/soak/bulk.py

.PHONY: bench
bench: $(READY)  ## Measure, side by side with the peers, and print tables of ratios.
	@$(PIP) install --only-binary :all: --require-hashes -r requirements/bench.txt
	@$(BIN)/python benchmarks/run.py $(ARGS)

.PHONY: format
format: $(READY)  ## Format the code and mend what ruff can mend.
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format --quiet .

.PHONY: docs
docs: $(READY)  ## Write the generated pages anew.
	@$(BIN)/python docs/generate.py

.PHONY: requirements
requirements: $(READY)  ## Pin the newest versions of everything in requirements/*.txt.
	@$(PIP) install uv
	@for name in dev bench browser proxies node; do \
		package=; if [ $$name = dev ]; then package=pyproject.toml; fi; \
		(cd requirements && ../$(BIN)/uv --no-config --quiet pip compile --upgrade --universal --python-version 3.11 --generate-hashes \
			--custom-compile-command 'make requirements' $${package:+../$$package} $$name.in --output-file $$name.txt) >/dev/null || exit 1; \
	done

.PHONY: clean
clean:  ## Remove virtual environments, caches and everything built.
	@rm -rf .venv .venv-3.* build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	@find . -type d \( -name __pycache__ -o -name node_modules \) -prune -exec rm -rf {} +

# Set-up, in two steps so that a changed pyproject.toml costs a second and not a download. Only wheels: nothing is compiled here.

$(VENV)/.requirements: requirements/dev.txt
	@python="$(PYTHON)"; [ -n "$$python" ] || python=$$(.ci/find-python) || exit 1; \
		echo "Setting up $(VENV) with $$($$python --version)"; \
		$$python -m venv --clear $(VENV)
	@$(PIP) install --only-binary :all: --require-hashes -r requirements/dev.txt
	@touch $@

$(READY): $(VENV)/.requirements pyproject.toml
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(BROWSER): $(VENV)/.requirements requirements/browser.txt
	@echo "Adding Playwright to $(VENV); the browser itself is the machine's"
	@$(PIP) install --only-binary :all: --require-hashes -r requirements/browser.txt
	@touch $@

$(PROXIES): $(VENV)/.requirements requirements/proxies.txt
	@echo "Adding Traefik, nginx, Caddy and Envoy to $(VENV): 100 MB"
	@$(PIP) install --only-binary :all: --require-hashes -r requirements/proxies.txt
	@touch $@

$(NODE): $(VENV)/.requirements requirements/node.txt
	@echo "Adding Node and basedpyright to $(VENV)"
	@$(PIP) install --only-binary :all: --require-hashes -r requirements/node.txt
	@touch $@

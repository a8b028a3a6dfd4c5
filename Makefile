# SPDX-License-Identifier: Apache-2.0
# Adder: CNI plugins in Python. `make help` lists what can be done here.

PYTHON ?= /usr/bin/python3
VENV ?= .venv
BIN := $(VENV)/bin
DESTDIR ?=
CNI_BIN_DIR ?= /opt/cni/bin
PYTEST_ARGS ?= -n auto
BENCH_ARGS ?=

APT := python3-venv libpython3.11-dev gcc libc6-dev zlib1g-dev libexpat1-dev binutils iproute2 iptables nftables conntrack ethtool procps \
  iputils-ping busybox-static containerd runc containernetworking-plugins

export PYTHONPATH := $(CURDIR)$(foreach p,$(wildcard plugins/*),:$(CURDIR)/$(p))

.DEFAULT_GOAL := help
.PHONY: help setup build run test unit bench lint format generate install uninstall dist clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## Install everything the rest needs (apt, pip); does nothing the second time

$(VENV)/.ready: pyproject.toml tools/requirements.py
	@missing=""; for p in $(APT); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'install ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; \
	fi
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python tools/requirements.py | $(BIN)/pip install --quiet --disable-pip-version-check -r /dev/stdin
	touch $@

build: setup ## Freeze the plugins and tools into build/bin/
	$(BIN)/python -m tools.freeze

run: build ## Attach two namespaces to a bridge, ping, show what was built, remove it all
	$(BIN)/python -m tools.demo

test: build lint ## Build, check style and types, run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

unit: setup ## Run only the tests that need neither root nor a build
	$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

bench: build ## Measure side by side with the Go plugins; writes build/bench.json and .svg
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

lint: setup ## Check style (ruff) and types (mypy --strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.typecheck

format: setup ## Reformat and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: setup ## Regenerate validators, netlink tables and documentation from their sources
	$(BIN)/python -m tools.generate

install: build ## Install into $(DESTDIR)$(CNI_BIN_DIR), safely over running plugins
	$(BIN)/python -m tools.install install $(CURDIR)/build/bin $(DESTDIR)$(CNI_BIN_DIR)

uninstall: ## Remove what install placed, of whichever build
	$(PYTHON) -m tools.install uninstall $(DESTDIR)$(CNI_BIN_DIR)

dist: build ## Make a release tarball for this architecture, with checksums
	$(BIN)/python -m tools.dist

clean: ## Remove everything built; the virtual environment stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

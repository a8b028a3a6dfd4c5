# SPDX-License-Identifier: Apache-2.0
# Adder: CNI plugins in Python. `make help` lists what can be done here.

PYTHON ?= /usr/bin/python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
DESTDIR ?=
CNI_BIN_DIR ?= /opt/cni/bin
# Tests wait as much as they compute, some for a minute: three workers for two CPUs.
PYTEST_ARGS ?= -n $(shell expr $$(nproc) \* 3 / 2) --dist worksteal
BENCH_ARGS ?=
# Of `make fuzz`: seconds and inputs (-1: any number) for each target, and for the executables.
FUZZ_TIME ?= 60
FUZZ_RUNS ?= -1
FUZZ_FROZEN_RUNS ?= 2000
# Of `make churn`: attachments made and removed.
CHURN ?= 5000

# Debian's packages: for building and `make run`, and those that only tests and benchmarks need.
APT_BUILD := python3-venv libpython3.11-dev gcc libc6-dev zlib1g-dev libexpat1-dev binutils \
  iproute2 iputils-ping
APT_TEST := iptables nftables conntrack ethtool procps busybox-static containerd runc \
  containernetworking-plugins etcd-server iperf3 openssl firewalld dbus-daemon podman systemd zsh fish

export PYTHONPATH := $(CURDIR)$(foreach p,$(wildcard plugins/*),:$(CURDIR)/$(p))

.DEFAULT_GOAL := help
.PHONY: help setup build run test unit bench fuzz churn lint format generate upgrade install uninstall dist clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready $(VENV)/.ready-to-test ## Install everything the rest needs (apt, pip); does nothing the second time

$(VENV)/.ready: Makefile pyproject.toml constraints.txt tools/requirements.py tools/packages.py
	$(PYTHON) tools/packages.py $(APT_BUILD)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python tools/requirements.py | $(PIP) -c constraints.txt -r /dev/stdin
	touch $@

$(VENV)/.ready-to-test: $(VENV)/.ready
	$(PYTHON) tools/packages.py $(APT_TEST)
	touch $@

build: $(VENV)/.ready ## Freeze the plugins, tools and agents into build/bin/
	$(BIN)/python -m tools.freeze
	$(BIN)/python -m tools.freeze.agents

run: build ## Attach two namespaces to a bridge, ping, show what was built, remove it all
	$(BIN)/python -m tools.demo

test: setup build lint ## Build, check style and types, run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

unit: $(VENV)/.ready ## Run only the tests that need neither root nor a build
	$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

bench: setup build ## Measure side by side with the Go plugins; writes build/bench.json and .svg
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

fuzz: setup build ## Look for inputs that break something; FUZZ_TIME=seconds or FUZZ_RUNS=n per target
	$(BIN)/python tools/requirements.py fuzz | $(PIP) -c constraints.txt -r /dev/stdin
	$(BIN)/python -m tests.fuzz --time $(FUZZ_TIME) --runs $(FUZZ_RUNS)
	$(BIN)/python -m tests.fuzz.frozen --runs $(FUZZ_FROZEN_RUNS)

churn: setup build ## Attach and delete CHURN=5000 containers, 16 at once, killing; writes build/churn.*
	$(BIN)/python -m tests.churn --attachments $(CHURN)

lint: $(VENV)/.ready ## Check style (ruff) and types (mypy --strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tools.typecheck

format: $(VENV)/.ready ## Reformat and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

generate: $(VENV)/.ready ## Regenerate validators, netlink tables and documentation from their sources
	$(BIN)/python -m tools.generate

upgrade: $(VENV)/.ready ## Take the newest Python packages, and note them in constraints.txt
	$(BIN)/python tools/requirements.py | $(PIP) --upgrade --upgrade-strategy eager -r /dev/stdin
	head -1 constraints.txt >constraints.new
	$(BIN)/pip freeze >>constraints.new
	mv constraints.new constraints.txt
	touch $(VENV)/.ready

install: build ## Install into $(DESTDIR)$(CNI_BIN_DIR), safely over running plugins
	$(BIN)/python -m tools.install install build/bin "$(DESTDIR)$(CNI_BIN_DIR)"

uninstall: ## Remove what install placed, of whichever build
	$(PYTHON) -m tools.install uninstall "$(DESTDIR)$(CNI_BIN_DIR)"

dist: build ## Make the release tarballs for this architecture, with checksums
	$(BIN)/python -m tools.dist

clean: ## Remove everything built; the virtual environment stays
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

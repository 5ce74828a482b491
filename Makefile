# The commands of this project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TARN := $(TARGET_DIR)/debug/tarn
DEMO_DIR ?= data/demo

.PHONY: help
help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## Build the program `tarn` (dependencies lightly optimised, once)
	@echo "Building tarn. The first build compiles about 500 crates: 20 minutes on two cores, less on more. Later ones take seconds."
	@$(CARGO) build --workspace --bin tarn --locked

.PHONY: demo
demo: build ## Run the main job on one machine: 336,776 flights through all six functions
	@$(TARN) demo --directory $(DEMO_DIR)

.PHONY: up
up: build ## Host the lakehouse of ./lakehouse.yaml until Ctrl-C
	@$(TARN) up

.PHONY: setup
setup: ## Install what the tests need: a headless browser, a Python environment
	@tests/setup.sh

.PHONY: test
test: setup ## Pass all tests
	@echo "Building the programs and the tests."
	@$(CARGO) build --workspace --bins --locked
	@$(CARGO) test --workspace --locked

.PHONY: lint
lint: ## Check formatting and lints, warnings denied
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

.PHONY: bench
bench: setup ## Measure beside peers and write docs/benchmarks.md (builds optimised: about 40 minutes the first time)
	@$(CARGO) build --workspace --bins --release --locked
	@.venv/bin/python tests/bench/run.py --target $(TARGET_DIR)/release

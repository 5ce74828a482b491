# The commands of this project. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
TARN := $(TARGET_DIR)/debug/tarn
DEMO_DIR ?= data/demo

# The AWS part: what `zips`, `emulator` and `deploy` take.
PYTHON := .venv-emulator/bin/python
EMULATOR := $(PYTHON) localstack/emulator
HOST_ARCH := $(if $(filter arm64 aarch64,$(shell uname -m)),arm64,x86_64)
PROFILE ?= release
ARCH ?= $(if $(filter dev,$(PROFILE)),$(HOST_ARCH),arm64)
LAKEHOUSE ?= localstack/demo/lakehouse.yaml
STACK ?= tarn
# NAME=VALUE …, parameters of infra/template.yaml
PARAMETERS ?=
parameters = $(foreach p,$(PARAMETERS),--parameter $(p))
account = --stack $(STACK) $(if $(REGION),--region $(REGION))

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
setup: emulator-setup ## Install what the tests need: a headless browser, Python environments, the AWS emulators
	@tests/setup.sh

.PHONY: test
test: setup emulator-setup ## Pass all tests
	@$(PYTHON) -m unittest discover -s tests/deploy
	@$(PYTHON) -m unittest discover -s tests/clients
	@echo "Building the programs and the tests."
	@$(CARGO) build --workspace --bins --locked
	@$(CARGO) test --workspace --locked
	@.venv/bin/python tests/long/fuzz.py --tarn $(TARN) --statements 300

SQLLOGIC ?= ../shared/data/sqllogic
.PHONY: test-long
test-long: setup ## Simulated lives of 500 seeds; answers beside DuckDB's: made-up statements, TPC-DS, logic tests (an hour and a quarter)
	@$(CARGO) build --workspace --bin tarn --locked
	@TARN_SEEDS=500 $(CARGO) test --workspace --locked --test e2e -- simulation
	@.venv/bin/python tests/long/sqllogic.py --tarn $(TARN) --files $(SQLLOGIC) --statements 1000
	@.venv/bin/python tests/long/sqllogic.py --tarn $(TARN) --datafusion
	@.venv/bin/python tests/long/tpcds.py --tarn $(TARN)
	@.venv/bin/python tests/long/fuzz.py --tarn $(TARN) --statements 100000 --seed 2

.PHONY: lint
lint: emulator-setup ## Check formatting, lints and the AWS template, warnings denied
	@.venv-emulator/bin/cfn-lint infra/template.yaml --include-checks I --non-zero-exit-code informational
	@tests/python-env.sh .venv-sam infra/requirements.txt "a second check of the AWS template"
	@SAM_CLI_TELEMETRY=0 AWS_DEFAULT_REGION=us-east-1 .venv-sam/bin/sam validate --lint --template infra/template.yaml
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

.PHONY: bench
bench: setup emulator-setup ## Measure beside peers and write docs/benchmarks.md (builds optimised: about two hours the first time)
	@$(CARGO) build --workspace --bins --release --locked
	@.venv/bin/python tests/bench/run.py --target $(TARGET_DIR)/release

.PHONY: emulator-setup
emulator-setup:
	@tests/python-env.sh .venv-emulator localstack/emulator/requirements.txt "AWS emulator, deployment, zips, lint of the template"

.PHONY: zips
zips: emulator-setup ## Pack the functions for Lambda: PROFILE=release|dev ARCH=arm64|x86_64 LAKEHOUSE=file
	@$(EMULATOR)/zips.py --profile $(PROFILE) --arch $(ARCH) --lakehouse $(LAKEHOUSE) --target $(TARGET_DIR)

.PHONY: emulator
emulator: emulator-setup ## Start the AWS emulator and deploy the debug programs to it: LAKEHOUSE=file
	@$(CARGO) build --workspace --bins --locked
	@$(EMULATOR)/zips.py --profile dev --lakehouse $(LAKEHOUSE) --target $(TARGET_DIR)
	@$(EMULATOR)/emulator.py start --zips out/zips/dev/$(HOST_ARCH) --lakehouse $(LAKEHOUSE) --stack $(STACK) $(parameters)

.PHONY: emulator-demo
emulator-demo: ## Start the AWS emulator, deploy the demo's lakehouse to it and run the demo through its HTTP API
	@$(MAKE) --no-print-directory emulator LAKEHOUSE=localstack/demo/lakehouse.yaml
	@$(TARN) demo --url "$$($(EMULATOR)/emulator.py url)" --directory out/demo

.PHONY: emulator-down
emulator-down: ## Stop the AWS emulator
	@$(EMULATOR)/emulator.py down

.PHONY: deploy
deploy: emulator-setup ## Deploy to AWS: STACK=name LAKEHOUSE=file [REGION=…] [ARCH=…] [PARAMETERS="NAME=VALUE …"]; see docs/deploy.md
	@$(MAKE) --no-print-directory zips PROFILE=release
	@$(EMULATOR)/deploy.py deploy $(account) --lakehouse $(LAKEHOUSE) --arch $(ARCH) $(parameters) $(if $(ADOPT),--adopt) $(if $(ALLOW),--allow)

.PHONY: rollback
rollback: emulator-setup ## Go back to the deployment before on AWS: STACK=name [REGION=…] [TO=code prefix]
	@$(EMULATOR)/deploy.py rollback $(account) $(if $(TO),--to $(TO))

.PHONY: backup
backup: emulator-setup ## Write down catalog, state and versions of objects of a deployment: STACK=name TO=folder [REGION=…]
	@$(EMULATOR)/deploy.py backup $(account) --to $(TO)

.PHONY: restore
restore: emulator-setup ## Bring a deployment back to the moment of a backup: STACK=name FROM=zip [REGION=…]
	@$(EMULATOR)/deploy.py restore $(account) --from $(FROM)

# Recipes stop at the first failure, and `|` does not hide one.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# rustup puts cargo here, and a shell that was open at the time does not know.
export PATH := $(PATH):$(HOME)/.cargo/bin

SETUP := python3 .setup/setup.py
AFFECTMILL := cargo run --quiet --

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what building and running need (quick when nothing is missing)
	@$(SETUP) build

.PHONY: demo
demo: ## label two real videos and show the table
	@$(SETUP) build demo
	cargo build
	@init() { \
		file=.demo/faces/$$1.safetensors; \
		if [ ! -e $$file ]; then $(AFFECTMILL) init-weights --kind $$1 --seed $$2 --crop arcface112 -o $$file; fi; \
	}; \
	init student 1; init teacher_va 2; init teacher_expr 3; init teacher_au 4
	@if [ ! -e .demo/faces/centerface.safetensors ]; then \
		$(AFFECTMILL) import-weights "$$($(SETUP) path detector)" -o .demo/faces/centerface.safetensors; fi
	@if [ ! -e .demo/faces/mini_xception.safetensors ]; then \
		$(AFFECTMILL) import-weights "$$($(SETUP) path expression)" --crop arcface112 -o .demo/faces/mini_xception.safetensors; fi
	@$(AFFECTMILL) run jobs/demo.toml
	@$(AFFECTMILL) summary .demo/labels

.PHONY: bench
bench: ## speed of the student, beside the machine's limits; PYTHON=... (torch, torchvision, av): and beside plain PyTorch
	@$(SETUP) build demo
	cargo build
	@if [ ! -e .demo/weights/student.safetensors ]; then \
		$(AFFECTMILL) init-weights --kind student --seed 1 -o .demo/weights/student.safetensors; fi
	@for precision in fp32 bf16; do \
		$(AFFECTMILL) bench jobs/bench.toml --set models.0.precision=$$precision $(if $(PYTHON),--python $(PYTHON)); done

.PHONY: test
test: ## install what is missing, check format and lints, run every test
	@$(SETUP) all
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test

.PHONY: soak
soak: ## the tests with the long ones: kills and resumes at many random moments
	@$(SETUP) all soak
	AFFECTMILL_SOAK=1 cargo test

.PHONY: fmt
fmt: ## format the code
	cargo fmt

.PHONY: lint
lint: ## the compiler's and clippy's opinion, warnings denied
	@$(SETUP) build
	cargo clippy --all-targets -- -D warnings

.PHONY: clean-demo
clean-demo: ## remove the demo's videos, weights and labels
	rm -rf .demo

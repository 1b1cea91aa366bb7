# Everything that a developer types. Each target sets up what it needs on a Debian or Ubuntu
# machine that has Rust, and says so; CARGO_TARGET_DIR is respected.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BIN        := $(TARGET_DIR)/release
# One profile and one selection of packages for everything, so that nothing is built twice.
CARGO_ARGS := --release --workspace --locked

.PHONY: help build plugins tools demo test lint lint-deploy unit sweep matrix bench clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

build: ## Build the host: target/release/semel
	cargo build $(CARGO_ARGS)

plugins: ## Build the examples into plugins/NAME.wasm
	scripts/build-plugins.sh

tools: ## Install the servers that tests and benchmarks start
	scripts/install-tools.sh

demo: build plugins ## 100,000 orders, 30 % duplicates, three SIGKILLs: is every effect there once?
	$(BIN)/demo

test: lint build plugins tools unit ## Check everything, on real servers

lint:
	cargo fmt --all --check
	cargo clippy $(CARGO_ARGS) --all-targets -- -D warnings

lint-deploy: ## Check the Dockerfile, the chart and the unit (helm is not installed for it)
	scripts/lint-deploy.sh

unit:
	cargo test $(CARGO_ARGS) --no-fail-fast

sweep: build plugins tools ## Kill the host at every crash point on real servers, and simulate a million seeds
	SEEDS=1000000 cargo test $(CARGO_ARGS) --test simulation -- --nocapture
	$(BIN)/sweep --write docs/sweep.md

matrix: build plugins tools ## Run every source with every store, killed at random, and three hosts at once
	$(BIN)/matrix --write docs/matrix.md

bench: build plugins tools ## Measure throughput, CPU and latency, beside a native handler
	$(BIN)/bench

clean: ## Remove what was built here; installed tools stay
	cargo clean
	rm -rf plugins

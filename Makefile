# `make help` lists what there is. Every target works on a clean clone; what is missing is installed or named.

SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# rustup puts cargo here, and a set-up done a moment ago is not yet in anybody's PATH.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

# Found once per call of make, after `tools` made sure that they can be.
controlplane = $(shell tools/controlplane/ensure.sh)
verifiers = $(shell tools/verifiers/ensure.sh)

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: ## Install (Debian, root) or name what this machine lacks; build the control plane
	@tools/setup.sh
	@tools/controlplane/ensure.sh >/dev/null
	@tools/verifiers/ensure.sh >/dev/null

.PHONY: demo
demo: ## Show it all on a real API server; ONCE=1 checks each step and ends
	@tools/setup.sh --no-tests
	@ONCE=$(ONCE) tools/demo.sh

# Most tests wait for something most of the time, so more of them run at once than there are processors.
.PHONY: test
test: tools ## Every test, those on a real control plane included
	POSTRIDER_CONTROLPLANE_BIN="$(controlplane)" POSTRIDER_VERIFIERS="$(verifiers)" \
	  RUST_TEST_THREADS="$${RUST_TEST_THREADS:-$$(($$(nproc) * 3))}" cargo test --locked

.PHONY: chaos
chaos: tools ## The long forms: 100 crashes, five minutes without an API server, 10,000 destinations
	POSTRIDER_CONTROLPLANE_BIN="$(controlplane)" POSTRIDER_VERIFIERS="$(verifiers)" \
	  POSTRIDER_CRASH_ROUNDS=100 cargo test --locked --test it crash:: -- --nocapture
	POSTRIDER_CONTROLPLANE_BIN="$(controlplane)" POSTRIDER_VERIFIERS="$(verifiers)" \
	  POSTRIDER_OUTAGE_SECONDS=300 cargo test --locked --test it faults::cluster:: -- --nocapture
	POSTRIDER_CONTROLPLANE_BIN="$(controlplane)" POSTRIDER_VERIFIERS="$(verifiers)" \
	  POSTRIDER_DESTINATIONS=10000 cargo test --locked --test it faults::many:: -- --nocapture

.PHONY: fuzz
fuzz: ## Fuzz each parser, guided by coverage, for FUZZ_TIME (60s); TARGET=fuzz_template for one
	@tools/setup.sh --no-tests
	@tools/fuzz.sh $(TARGET)

.PHONY: bench
bench: ## The benchmarks, as a Markdown table
	@tools/setup.sh --no-tests
	cargo bench --locked --bench loop

.PHONY: crds
crds: ## Write crds/ and the chart's copy anew from the types
	cargo run --locked --quiet --bin postrider -- crds --out crds
	mkdir -p charts/postrider/files/crds
	rm -f charts/postrider/files/crds/*.yaml
	cp crds/*.yaml charts/postrider/files/crds/

.PHONY: lint
lint: ## Formatting, clippy, rustdoc, generated files, dependencies
	@tools/setup.sh --no-tests
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib
	cargo test --locked --no-run
	tools/drift.sh target/debug/postrider
	tools/deny.sh

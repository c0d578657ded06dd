# Named tasks, the same by hand and in CI. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
LAB ?=
export LAB

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
LAB_BIN := $(TARGET)/debug/lab

.PHONY: help setup build peers demo test storm fuzz audit check lint lab lab-down lab-clean bench

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup:
	@tests/lab/setup

# the tests need features of dependencies that our programs do not: who runs them builds all of it once, in one go
TARGETS :=
test check lint: export TARGETS := --all-targets

build: setup
	@tests/lab/timed "our own programs" cargo build --workspace --locked $(TARGETS)

peers: build
	@$(LAB_BIN) peers

# neither needs Velero, and nobody should wait for its build
demo bench: export LAB_VELERO := off

demo: peers ## a backup and a restore of one disk, shown step by step on a lab of its own
	@tests/demo/run

test: peers ## every test: units, protocols against real peers, scenarios on the lab
	@tests/run-tests

ROUNDS := 300
storm: peers ## faults by chance, one after the other, ROUNDS of them (10 are part of make test); STORM_SEED=N brings the same again
	@cargo build --workspace --locked -q
	@STORM_ROUNDS=$(ROUNDS) cargo test --workspace --locked -q --test scenarios -- in_a_storm --nocapture

SECONDS := 60
fuzz: setup ## every parser of strangers' bytes, fuzzed for SECONDS each; says what it found (docs/testing.md)
	@nice tests/fuzz/run $(SECONDS) $(FUZZ)

audit: setup ## known vulnerabilities of what we build from; fetches the RustSec database, so it needs the internet
	@tests/audit

check: test lint ## what CI runs: every test, then format, clippy, docs, cargo-deny, generated files, crate table, manifests

lint: build
	@tests/lint

lab: peers ## start a lab and keep it running (LAB=b for a second one); source target/lab/env to use it
	@$(LAB_BIN) up

lab-down: ## stop the lab
	@if [ -x $(LAB_BIN) ]; then $(LAB_BIN) down; else echo "no lab was built here"; fi

lab-clean: ## stop the lab and forget its data
	@if [ -x $(LAB_BIN) ]; then $(LAB_BIN) clean; else echo "no lab was built here"; fi

bench: peers ## the performance tables: ours, restic and nbdcopy on the same image in one run, and how ours grows
	@tests/bench/run
	@tests/bench/scale

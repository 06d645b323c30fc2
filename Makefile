# Thin: each line runs something you could type. `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help demo bench side-by-side test torture mutants fuzz fmt lint doc deny audit deps

# Tools that are not part of Rust, outside the tree; found by cargo on the PATH.
export TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/walrelay-tools
export PATH := $(PATH):$(TOOLS)/bin
TARGET := $(or $(CARGO_TARGET_DIR),target)

help: ## List the targets
	@awk -F ":.*## " "/^[a-z-]+:.*## / { printf \"  make %-13s %s\\n\", \$$1, \$$2 }" Makefile

demo: deps ## Postgres, Kafka and the relay at work; KEEP=1 leaves them running
	cargo build --locked --workspace
	$(TARGET)/debug/demo $(if $(KEEP),--keep)

bench: ## Speed and cost beside bare readers; ROWS=100000 is quick, PEER=debezium, RELAYS=OLD,NEW
	scripts/need bench
	cargo build --locked --release --workspace
	$(TARGET)/release/bench

# The real Debezium Server needs Java 21: WALRELAY_BENCH_JAVA, if the one on the PATH is older.
side-by-side: deps ## The real Debezium Server on the same rows, compared; ONLY=defaults
	cargo build --locked --workspace
	$(TARGET)/debug/side_by_side

# The tests come last, so that their results do. Four at a time: they wait more than they compute.
test: lint doc deny ## Everything that must hold before a merge
	cargo build --locked --workspace
	$(TARGET)/debug/torture --seed 108 --runs 10 --length 10 --jobs 3 --keep $(TARGET)/torture
	cargo test --locked --workspace --no-fail-fast -- --test-threads=4

torture: deps ## Random faults: SEED=1 MINUTES=1 JOBS=1, runs of a minute; KILLS=100 instead
	cargo build --locked --workspace
	$(TARGET)/debug/torture --seed $(or $(SEED),1) --jobs $(or $(JOBS),1) \
		$(if $(KILLS),--kills $(KILLS),--minutes $(or $(MINUTES),1)) --keep $(TARGET)/torture

mutants: ## Whether the simulation notices planted faults, and after how many schedules
	cargo test --locked --test hermetic mutants -- --nocapture

# New inputs are kept beside what is built, and what is in the tree is only read.
FUZZ = $(or $(TARGET_NAME),pipe)
fuzz: ## Odd inputs: TARGET_NAME=frame, pgoutput, pipe, schema, config, MINUTES=1; needs nightly
	scripts/need cargo-fuzz
	mkdir -p $(TARGET)/fuzz/$(FUZZ)
	cargo +nightly fuzz run --sanitizer none -O -a $(FUZZ) $(TARGET)/fuzz/$(FUZZ) \
		fuzz/corpus/$(FUZZ) -- -max_total_time=$$((60 * $(or $(MINUTES),1))) \
		-max_len=4096 -rss_limit_mb=2048

fmt: ## Format the code
	cargo fmt --all

lint: deps ## Check format and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

doc: deps ## Build the documentation
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps

deny: ## Check the dependencies: licences, duplicates, sources
	scripts/need cargo-deny
	cargo deny --locked check licenses bans sources

audit: ## Check the dependencies against RustSec's advisories; fetches them with git
	scripts/need cargo-deny
	cargo deny --locked check advisories

deps: ## Install the tools that are missing (root on Debian), or name them
	scripts/need

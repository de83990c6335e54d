# What README names. Everything here works from a fresh clone; `make demo` installs what is missing first.

SHELL := /bin/bash
CARGO ?= cargo
PREFIX ?= /usr/local
# Test programs that run when they are named (Cargo.toml): --all-targets leaves them out.
ALONE = machines deploy guest image machines_checkpoint machines_hypervisor

.PHONY: help bootstrap bootstrap-tests build demo test test-units test-machines look soak bench lint lint-code lint-deny sim fuzz install deb clean-labs

help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

bootstrap: ## install the Debian packages that are missing (lists them and asks; YES=1 does not ask)
	@scripts/bootstrap

bootstrap-tests:
	@scripts/bootstrap tests

build: bootstrap ## target/release/failoverlab and the static ccrd beside it
	$(CARGO) build --locked --release
	scripts/build-ccrd

demo: build ## bring up the lab ccr, run F00, F01 and F05, print the verdicts, remove the lab
	target/release/failoverlab verify ccr --scenario F00 --scenario F01 --scenario F05

test: bootstrap-tests ## the tests of CI, machines included
	scripts/test ci

test-units: bootstrap-tests ## the tests that need no machine
	scripts/test units

test-machines: bootstrap-tests ## the tests that need machines
	scripts/test machines

look: ## the pages of a run and that of `serve` in Chromium, if there is one; RUN=FOLDER, else a run in the simulator is made
	scripts/check-report $(RUN)
	scripts/check-console $(RUN)

soak: bootstrap-tests build ## everything that is too long for CI
	scripts/test soak

bench: build ## one line for each figure; ONLY=name runs one
	scripts/bench $(ONLY)

lint: lint-code lint-deny ## fmt, clippy with warnings denied, docs links, deny

lint-code: ## lint without deny, which CI may have to do without
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --workspace $(addprefix --test ,$(ALONE)) -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --locked --workspace --no-deps --document-private-items
	scripts/lint-docs

lint-deny:
	$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources
	@if [ -n "$(ADVISORIES)" ]; then $(CARGO) deny check advisories; fi

sim: ## the runtime in its simulator; SEEDS=N
	$(CARGO) run --locked --release -p ccr-core --example sim -- --seeds $(or $(SEEDS),500)

fuzz: ## coverage-guided fuzzing of what comes from outside (cargo-fuzz); TARGET=peers|logs|agent|lab_file, SECONDS_EACH=60
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	# The sanitizers' flags are unstable ones.
	cd fuzz && for target in $(or $(TARGET),peers logs agent); do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target $$([ $$target != lab_file ] || echo --features lab) \
			-- -max_total_time=$(or $(SECONDS_EACH),60) || exit; \
	done

install: build ## into PREFIX (/usr/local), with manual pages and completions
	install -D -m 755 target/release/failoverlab $(DESTDIR)$(PREFIX)/bin/failoverlab
	install -D -m 755 target/guest/ccrd $(DESTDIR)$(PREFIX)/bin/ccrd
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	target/release/failoverlab man $(DESTDIR)$(PREFIX)/share/man/man1
	target/release/failoverlab completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/failoverlab

deb: build ## a Debian package in target/
	scripts/deb target/release/failoverlab target/guest/ccrd target

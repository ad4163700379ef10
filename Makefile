# What people type. `make hello` and `make test` do all set-up themselves, on a machine with apt, root and a Rust
# toolchain.

CARGO ?= cargo
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
# One file that runs everywhere, in a FROM scratch image, too. It has a fixed address: see "How a container starts" in
# ARCHITECTURE.md.
STATIC := --config 'target.$(TARGET).rustflags=["-C","target-feature=+crt-static","-C","relocation-model=static"]'
KILN := target/release/kiln
BASES := target/bases/busybox/index.json target/bases/debian/index.json
PACKAGES := git:git skopeo:skopeo nft:nftables pasta:passt slirp4netns:slirp4netns script:bsdutils newuidmap:uidmap gcc:gcc g++:g++ python3:python3 bzip2:bzip2 xz:xz-utils zstd:zstd

.PHONY: all hello test test-user test-apps lint bases bench smoke packages install clean

all: $(KILN)

# The static program. Cargo decides what is out of date.
$(KILN): packages FORCE
	$(CARGO) build --release -p kiln-cli --target $(TARGET) $(STATIC)
	mkdir -p target/release
	cp -f target/$(TARGET)/release/kiln $(KILN)

# Builds testdata/hello from a busybox image and runs it.
hello: $(KILN) bases
	KILN_ROOT=$(CURDIR)/target/store testdata/with-bases $(KILN) build -t hello testdata/hello
	KILN_ROOT=$(CURDIR)/target/store $(KILN) run --rm hello

packages:
	@for pair in $(PACKAGES); do \
		command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair#*:}"; \
	done; \
	[ -z "$$missing" ] || { apt-get update && apt-get install -y --no-install-recommends $$missing; }

bases: packages
	$(CARGO) build -p kiln-registry --features testing --bin layouts
	testdata/bases target/bases

# All tests, as root and what matters again as an ordinary user. What the machine cannot run is counted.
test: bases
	@mkdir -p target; mount | grep kiln >target/mounts.before || true
	set -o pipefail; $(CARGO) test --workspace --no-fail-fast --features kiln-registry/testing -- --show-output 2>&1 | tee target/test.log
	$(MAKE) --no-print-directory test-user
	$(MAKE) --no-print-directory test-apps
	@mount | grep kiln | diff target/mounts.before - || { echo 'mounts are left behind'; exit 1; }
	@echo "tests: $$(grep -c '^test .* ok$$' target/test.log) passed, $$(grep -c SKIPPED target/test.log) skipped"
	@grep SKIPPED target/test.log || true
SHELL := /bin/bash

# The same program in the hands of nobody: rootless operation comes later, until then it says so.
test-user:
	set -o pipefail; $(CARGO) test -p kiln-cli --test e2e -- ordinary_users --show-output 2>&1 | tee -a target/test.log

# Projects as people write them: built, run, and built again after an edit.
test-apps:
	set -o pipefail; KILN_ROOT=$(CURDIR)/target/apps-store testdata/with-bases testdata/apps/run target/debug/kiln 2>&1 | tee -a target/test.log

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features kiln-registry/testing -- -D warnings

# Figures for every claim of speed; compares with a Docker daemon where DOCKER_HOST names one, and with crun and runc
# where they are installed.
bench: $(KILN) bases
	$(CARGO) build --release -p kiln-bench
	testdata/with-bases target/release/commands $(KILN)
	$(CARGO) bench -p kiln-bench
	target/release/oci --steps $(KILN)

# Short: does the measuring itself still work?
smoke: bases
	$(CARGO) build -p kiln-cli -p kiln-bench
	testdata/with-bases target/debug/commands target/debug/kiln 2 64

install: $(KILN)
	install -m 755 $(KILN) $(DESTDIR)/usr/local/bin/kiln

FORCE:

clean:
	$(CARGO) clean

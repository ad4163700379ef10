# What people type. `make hello` and `make test` do all set-up themselves, on a machine with apt, root and a Rust
# toolchain.

CARGO ?= cargo
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
# One file that runs everywhere, in a FROM scratch image, too. It has a fixed address: see "How a container starts" in
# ARCHITECTURE.md.
STATIC := --config 'target.$(TARGET).rustflags=["-C","target-feature=+crt-static","-C","relocation-model=static"]'
KILN := target/release/kiln
DEBUG := target/debug/kiln
LEFTOVERS := env -u TMPDIR -u KILN_ROOT tests/leftovers
BASES := target/bases/busybox/index.json target/bases/debian/index.json
PACKAGES := git:git skopeo:skopeo nft:nftables pasta:passt slirp4netns:slirp4netns script:bsdutils newuidmap:uidmap ssh-keygen:openssh-client mkfs.ext4:e2fsprogs bash:bash gcc:gcc g++:g++ python3:python3 bzip2:bzip2 xz:xz-utils zstd:zstd

MACHINE_PACKAGES := qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils debootstrap:debootstrap mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs dpkg-scanpackages:dpkg-dev
ARM_PACKAGES := aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu qemu-aarch64-static:qemu-user-static

.PHONY: all hello test test-all test-user test-apps test-older test-machine test-machines test-arm test-store test-campaign test-long lint bases bench smoke packages machine-packages arm-packages install clean

all: $(KILN)

# The static program. Cargo decides what is out of date.
$(KILN): packages FORCE
	@[ -e $(KILN) ] || echo "kiln: compiling the static program, once; this takes minutes"
	$(CARGO) build --release -p kiln-cli --target $(TARGET) $(STATIC)
	mkdir -p target/release
	cp -f target/$(TARGET)/release/kiln $(KILN)

# Builds a busybox image from the files of Debian's package, testdata/hello on it, and runs that. One compilation, without
# the optimisations that take three times as long, and no registry: `bases` needs a second program.
hello: packages
	@[ -e $(DEBUG) ] || echo "hello: compiling a program for development, once; this takes minutes"
	$(CARGO) build -p kiln-cli
	@echo "hello: a busybox image, from Debian's package"
	rm -rf target/busybox-root
	scripts/busybox-root target/busybox-root
	printf 'FROM scratch\nCOPY . /\nCMD ["sh"]\n' | KILN_ROOT=$(CURDIR)/target/store $(DEBUG) build -q -t busybox -f - target/busybox-root
	@echo "hello: testdata/hello on it"
	KILN_ROOT=$(CURDIR)/target/store $(DEBUG) build -t hello testdata/hello
	KILN_ROOT=$(CURDIR)/target/store $(DEBUG) run --rm hello
	@echo 'hello: `make install` compiles the static program and installs it'

# Installs the packages of pairs PROGRAM:PACKAGE whose program is missing. qemu's packages must be of one version: where a
# part of them came from backports, so do the others.
define install
	@for pair in $(1); do \
		command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair#*:}"; \
	done; \
	[ -z "$$missing" ] || { apt-get update && { apt-get install -y --no-install-recommends $$missing || \
		apt-get install -y --no-install-recommends -t bookworm-backports $$missing; }; }
endef

packages:
	$(call install,$(PACKAGES))

machine-packages: packages
	$(call install,$(MACHINE_PACKAGES))

arm-packages:
	$(call install,$(ARM_PACKAGES))
	rustup target list --installed 2>/dev/null | grep -q aarch64-unknown-linux-gnu || rustup target add aarch64-unknown-linux-gnu

bases: packages
	$(CARGO) build -p kiln-registry --features testing --bin layouts
	scripts/bases target/bases

# All tests, as root and what matters again as an ordinary user. What the machine cannot run is counted. Stores and scratch
# of the tests are in a directory of their own, so that what is left there is theirs.
test: bases
	rm -rf --one-file-system /tmp/kiln-tests && mkdir -m 1777 /tmp/kiln-tests
	$(MAKE) --no-print-directory test-all TMPDIR=/tmp/kiln-tests
	@# The process that syncs the last store may go on for some seconds.
	$(LEFTOVERS) /tmp/kiln-tests target || { sleep 5; $(LEFTOVERS) /tmp/kiln-tests target; }
	rm -rf --one-file-system /tmp/kiln-tests
	@echo "tests: $$(grep -c '^test .* ok$$' target/test.log) passed, $$(grep -c SKIPPED target/test.log) skipped"
	@grep SKIPPED target/test.log || true

test-all:
	set -o pipefail; $(CARGO) test --workspace --no-fail-fast --features kiln-registry/testing -- --show-output 2>&1 | tee target/test.log
	$(MAKE) --no-print-directory test-user
	$(MAKE) --no-print-directory test-older
	$(MAKE) --no-print-directory test-apps
SHELL := /bin/bash

# The same program in the hands of nobody: rootless operation comes later, until then it says so.
test-user:
	set -o pipefail; $(CARGO) test -p kiln-cli --test e2e -- ordinary_users --show-output 2>&1 | tee -a target/test.log

# Projects as people write them: built, run, and built again after an edit.
test-apps:
	set -o pipefail; KILN_ROOT=$(CURDIR)/target/apps-store scripts/with-bases tests/apps target/debug/kiln 2>&1 | tee -a target/test.log

# Containers as on kernels that lack every younger feature (see runtime/src/host.rs).
test-older: bases
	set -o pipefail; KILN_WITHOUT=all $(CARGO) test -p kiln-runtime --test containers -- --show-output 2>&1 | tee -a target/test.log
	set -o pipefail; KILN_WITHOUT=all $(CARGO) test -p kiln-cli --test oci -- --show-output 2>&1 | tee -a target/test.log
	set -o pipefail; KILN_WITHOUT=all $(CARGO) test -p kiln-cli --test e2e -- --show-output hosts builds mounts concurrency 2>&1 | tee -a target/test.log

# A machine with the oldest kernel: the static program alone, in a few minutes.
test-machine: machine-packages bases
	tests/machines/run -t probe,security debian11

# All machines, and the compiled tests on them: about an hour.
test-machines: machine-packages bases
	tests/machines/run

# The unit tests of an aarch64 build, under qemu's emulation of a process.
test-arm: arm-packages
	tests/arm

# Layers of every shape beside the model of the specification, and power cuts: two hours.
test-store: bases
	KILN_STACKS=100000 $(CARGO) test -p kiln-image --test layers
	fuzz/run 600 layers
	$(CARGO) build -p kiln-cli
	scripts/with-bases tests/powercut ext4 200
	scripts/with-bases tests/powercut xfs 200
	scripts/with-bases tests/powercut btrfs 50

# Commands on containers at once, for ten minutes instead of seconds, and a thousand kills instead of tens.
test-campaign: bases
	KILN_CAMPAIGN_SECONDS=600 $(CARGO) test -p kiln-cli --features kiln-registry/testing --test e2e -- commands_on_containers
	KILN_CHAOS_SECONDS=600 $(CARGO) test -p kiln-cli --features kiln-registry/testing --test e2e -- chaos:: --test-threads 1
	KILN_KILL_MOMENTS=120 $(CARGO) test -p kiln-cli --features kiln-registry/testing --test e2e -- crashes::killed

test-long: test-machines test-arm test-store test-campaign

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --features kiln-registry/testing -- -D warnings

# Figures for every claim of speed; compares with a Docker daemon where DOCKER_HOST names one, and with crun and runc
# where they are installed.
bench: $(KILN) bases
	$(CARGO) build --release -p kiln-bench
	scripts/with-bases target/release/commands $(KILN)
	$(CARGO) bench -p kiln-bench
	target/release/oci --steps $(KILN)

# Short: does the measuring itself still work?
smoke: bases
	$(CARGO) build -p kiln-cli -p kiln-bench
	scripts/with-bases target/debug/commands target/debug/kiln 2 64

install: $(KILN)
	install -D -m 755 $(KILN) $(DESTDIR)/usr/local/bin/kiln
	$(KILN) man --output $(DESTDIR)/usr/local/share/man/man1
	mkdir -p $(DESTDIR)/usr/local/share/bash-completion/completions
	$(KILN) completion bash >$(DESTDIR)/usr/local/share/bash-completion/completions/kiln

FORCE:

clean:
	$(CARGO) clean

# SPDX-License-Identifier: LGPL-2.1-or-later
# A thin front over CMake: the presets in CMakePresets.json say what is built how.

JOBS ?= $(shell nproc)
BUILD = cmake --build --preset
QUIET_CONFIGURE = cmake --log-level=WARNING --preset

.PHONY: all deps demo check torture torture-proof kill-test asan tsan bench clang guest-check install deb clean

all:
	@$(QUIET_CONFIGURE) dev >/dev/null
	@$(BUILD) dev -j $(JOBS)

deps:
	@scripts/install-deps

# The main job on a real program, beside the same program without uhmm.
demo: deps
	@$(MAKE) --no-print-directory all
	@scripts/demo

# Everything that CI asks for; ctest's summary comes last. ctest shows what failed only, so
# the first numbers are printed before; that they can be had is a test of its own.
check: deps
	@$(MAKE) --no-print-directory all
	@timeout 60 tests/bench/run-bench build -n 4096 -r 3 || true
	@ctest --preset dev

clang asan tsan:
	@scripts/check-preset $@

# Random operations on managed memory against a shadow, for as long as one likes.
SEED ?= 1
SECONDS ?= 600
torture: all
	@build/bin/uhmm-torture --seed $(SEED) --seconds $(SECONDS)

# Can it find bugs? Every planted one, each within a minute.
torture-proof: all
	@SEED=$(SEED) tests/torture/prove build

# A daemon that is killed at random moments, and at each of the places where it matters.
kill-test: all
	@build/bin/uhmm-torture --seed $(SEED) --seconds $(SECONDS) --kill 700
	@SEED=$(SEED) tests/torture/crash build 20

bench: all
	@tests/bench/run-bench build

# Boots a virtual machine with an older kernel; making its image takes minutes.
guest-check:
	@scripts/install-deps guest
	@$(MAKE) --no-print-directory all
	@UHMM_TEST_GUEST=1 ctest --preset dev -L guest

install: all
	@cmake --install build

# uhmm_*.deb and libuhmm-dev_*.deb, in build-release.
deb: deps
	@$(QUIET_CONFIGURE) release >/dev/null
	@$(BUILD) release -j $(JOBS)
	@cd build-release && cpack

clean:
	@rm -rf build build-clang build-asan build-tsan build-cov build-fuzz build-release

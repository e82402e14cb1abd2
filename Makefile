# Everything that people, hooks and CI call. PYTHON chooses the interpreter; each version
# has its own virtual environment and build folder, so that switching rebuilds nothing.

PYTHON ?= python3
ARGS ?=

# The tag names the version and the kind of build (cp311, cp313t), the release tells
# whether the environment was made by this very interpreter.
PYTHON_ID := $(shell $(PYTHON) -c 'import sys; print("cp%d%d" % sys.version_info[:2] + sys.abiflags, "%d.%d.%d" % sys.version_info[:3]) if sys.version_info >= (3, 11) and sys.implementation.name == "cpython" else None' 2>/dev/null)
TAG := $(word 1,$(PYTHON_ID))
RELEASE := $(word 2,$(PYTHON_ID))

VENV := .venv/$(TAG)
BIN := $(VENV)/bin
HOSTS_VENV := .venv/hosts-$(TAG)
LOCKED := $(if $(CI),--locked)

# Prints the requirements of a dependency group of pyproject.toml.
GROUP = $(BIN)/python -c 'import sys, tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]], sep="\n")'
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
install_group = echo "installing the group '$(1)' of pyproject.toml into $(VENV)"; $(GROUP) $(1) | $(PIP) -r /dev/stdin

MATURIN = VIRTUAL_ENV="$(abspath $(VENV))" CARGO_TARGET_DIR="$(abspath target/$(TAG))" $(BIN)/maturin
# What `check-targets` checks, and for which Python.
TARGETS ?= aarch64-apple-darwin x86_64-apple-darwin x86_64-unknown-freebsd
CROSS_PYTHON ?= 3.14

PYTHON_FILES := $(wildcard python tests benches examples docs)

export PYO3_PYTHON = $(abspath $(BIN)/python)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help install build run test test-rust test-py conformance hosts ecosystem bench figures stress memcheck lint wheel sdist fix miri check-targets loom fuzz docs clean

help: ## List the targets
	@echo "make TARGET [PYTHON=python3.13] [ARGS='...']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The virtual environment, made anew when PYTHON is another release of the same version.
$(VENV)/.made-by-$(RELEASE):
	@command -v $(PYTHON) >/dev/null || { echo "there is no '$(PYTHON)': make ... PYTHON=python3.14, say" >&2; exit 1; }
	@test -n "$(TAG)" || { echo "aioxide needs CPython 3.11 or later; '$(PYTHON)' is not: make ... PYTHON=python3.14, say" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.test-tools: $(VENV)/.made-by-$(RELEASE) pyproject.toml Makefile
	@$(call install_group,test)
	@touch $@

$(VENV)/.lint-tools: $(VENV)/.made-by-$(RELEASE) pyproject.toml Makefile
	@$(call install_group,lint)
	@touch $@

# Not every rival has a wheel for every Python: what does not install is left out.
$(VENV)/.bench-tools: $(VENV)/.made-by-$(RELEASE) pyproject.toml Makefile
	@for rival in `$(GROUP) bench`; do \
	  $(PIP) --only-binary :all: $$rival 2>/dev/null || echo "not for this Python: $$rival"; \
	done
	@touch $@

# The hosts, their newest releases, have an environment of their own. Not every one has a wheel for every Python.
$(HOSTS_VENV)/.hosts: $(VENV)/.made-by-$(RELEASE) pyproject.toml Makefile
	$(PYTHON) -m venv --clear $(HOSTS_VENV)
	@for host in `$(GROUP) hosts`; do \
	  $(HOSTS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --only-binary :all: $$host 2>/dev/null \
	  || echo "not for this Python: $$host"; \
	done
	@touch $@

install: $(VENV)/.test-tools ## Make the virtual environment with the build and test tools

build: install ## Build the extension in release mode into the virtual environment
	@test -d target/$(TAG)/release || echo "The first build takes some minutes and says little meanwhile."
	$(MATURIN) develop --quiet --release $(LOCKED)

run: build ## Run the examples of the asyncio guide on aioxide
	$(BIN)/python -m aioxide examples/guide.py

test: test-rust test-py conformance ## Run the Rust tests, the Python tests and the conformance files

test-rust: $(VENV)/.made-by-$(RELEASE) ## Run the tests of the crates that know no Python
	cargo test --workspace --exclude aioxide-python $(LOCKED) $(ARGS)

test-py: build ## Run the Python tests
	$(BIN)/python -m pytest $(ARGS)

conformance: build ## Run CPython's own test_asyncio with every asyncio name native
	$(BIN)/python tests/conformance/run.py $(ARGS)

bench: build $(VENV)/.bench-tools ## Compare with the stdlib, uvloop and other loops
	CARGO_TARGET_DIR=target/load cargo build --quiet --release $(LOCKED) -p aioxide-load
	$(BIN)/python benches/run.py $(ARGS)

figures: $(VENV)/.docs-tools ## Write README's table and plots of the benchmarks, from benches/results
	$(BIN)/python benches/report.py

hosts: build $(HOSTS_VENV)/.hosts ## Run servers, drivers and frameworks of the ecosystem on aioxide
	VIRTUAL_ENV="$(abspath $(HOSTS_VENV))" CARGO_TARGET_DIR="$(abspath target/$(TAG))" $(BIN)/maturin develop --quiet --release $(LOCKED)
	$(HOSTS_VENV)/bin/python -m pytest -c tests/hosts/pytest.toml tests/hosts $(ARGS)

ecosystem: build ## Run the test-suites of projects that stand on asyncio; writes docs/ecosystem.md
	$(BIN)/python tests/ecosystem/run.py $(ARGS)

stress: build ## Run the tests that take minutes
	$(BIN)/python -m pytest -m stress $(ARGS)

memcheck: build ## Run a program under valgrind (needs valgrind and the debug symbols of libc)
	$(BIN)/python tests/memcheck.py

lint: build $(VENV)/.lint-tools ## Check formats, lints and types
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(LOCKED) -- -D warnings
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	for version in 3.11 3.12 3.13 3.14 3.15; do $(BIN)/mypy --python-version $$version tests/typing python/aioxide || exit; done
	$(BIN)/python -m mypy.stubtest aioxide --concise --ignore-disjoint-bases --ignore-unused-allowlist \
	  --mypy-config-file tests/typing/stubtest.ini --allowlist tests/typing/stubtest-aioxide.txt
	$(BIN)/python -m aioxide -m mypy.stubtest asyncio --concise --ignore-disjoint-bases --ignore-unused-allowlist \
	  --allowlist tests/typing/stubtest-asyncio.txt
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright tests/typing $(wildcard python/aioxide/*.pyi)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pyright --verifytypes aioxide --ignoreexternal
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --log-level error check bans licenses sources; \
	else echo "cargo-deny is not installed: the dependency tree was not checked"; fi

# In a build folder of its own, so that it never takes what a quick build has left.
wheel: install ## Build a wheel for this Python into dist/, try it in an empty environment
	VIRTUAL_ENV="$(abspath $(VENV))" CARGO_TARGET_DIR="$(abspath target/wheel-$(TAG))" $(BIN)/maturin build --release \
	  --locked --strip --interpreter $(BIN)/python --out dist $(ARGS)
	.ci/try-wheel $(BIN)/python dist

sdist: install ## Build the source distribution into dist/
	$(MATURIN) sdist --out dist

fix: $(VENV)/.lint-tools ## Apply formats and the fixes that lints offer
	cargo fmt --all
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)

miri: ## Run the engine's unit tests under Miri (needs a nightly toolchain)
	@cargo +nightly miri --version >/dev/null 2>&1 || { echo "Miri is not here: rustup toolchain install nightly --component miri,rust-src" >&2; exit 1; }
	MIRIFLAGS="-Zmiri-disable-isolation $(MIRIFLAGS)" CARGO_TARGET_DIR=target/miri cargo +nightly miri test -p aioxide-engine --lib $(ARGS)

# Nothing is linked, so neither a linker for the target nor a Python of its is needed.
check-targets: ## Check both crates and the engine's tests for macOS and FreeBSD (needs their targets)
	@for target in $(TARGETS); do \
	  test -d "$$(rustc --print target-libdir --target $$target)" || { echo "$$target is not here: rustup target add $$target" >&2; exit 1; }; \
	  echo "$$target"; \
	  PYO3_CROSS_PYTHON_VERSION=$(CROSS_PYTHON) CARGO_TARGET_DIR=target/targets cargo check --quiet $(LOCKED) --target $$target \
	    -p aioxide-engine -p aioxide-python --tests $(ARGS) || exit; \
	done

loom: ## Try every interleaving of the engine's threads
	RUSTFLAGS="--cfg loom $(RUSTFLAGS)" CARGO_TARGET_DIR=target/loom cargo test -p aioxide-engine --test loom --release $(ARGS)

fuzz: build ## Feed buffers random operations, TLS changed records, each for AIOXIDE_FUZZ_SECONDS (60)
	AIOXIDE_FUZZ_SECONDS=$${AIOXIDE_FUZZ_SECONDS:-60} cargo test -p aioxide-engine $(LOCKED) --test 'fuzz_*' --release -- --nocapture $(ARGS)
	AIOXIDE_FUZZ_SECONDS=$${AIOXIDE_FUZZ_SECONDS:-60} $(BIN)/python tests/fuzz_tls.py

$(VENV)/.docs-tools: $(VENV)/.made-by-$(RELEASE) pyproject.toml Makefile
	@$(call install_group,docs)
	@touch $@

docs: build $(VENV)/.docs-tools ## Build the documentation into docs/_build, running its examples
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build
	@echo "docs/_build/index.html"

clean: ## Remove everything that was built or installed
	rm -rf .venv target docs/_build docs/_generated .pytest_cache .mypy_cache .ruff_cache
	rm -f python/aioxide/_aioxide.*.so
	find python tests benches examples -name __pycache__ -type d -prune -exec rm -rf {} +

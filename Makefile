# Flux: `make up` runs the pipeline, `make test` proves it. Both install what they lack and say what they do.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PACKAGES_UP := build-essential pkg-config libssl-dev zlib1g-dev postgresql
PACKAGES_TEST := $(PACKAGES_UP) default-jre-headless maven kcat python3 python3-venv procps
MAVEN_COPY := org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies

# The whole workspace, always: another selection of packages would compile shared crates again, with other features.
.PHONY: help up build test bench realism monitoring snowflake plots lint packages-up packages-test clean

help: ## Shows the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

up: packages-up build ## The whole pipeline on this machine; ARGS="--once --fresh" for one proven run
	target/debug/flux up $(ARGS)

build: packages-up
	cargo build --locked --workspace

test: packages-test .deps/kafka/lib .deps/python ## All tests: pure, in process, and on Apache Kafka, PostgreSQL and the official clients
	cargo test --locked --workspace -- --test-threads 2

lint: packages-up ## Formatting and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings

bench: packages-test .deps/kafka/lib ## Speeds, CPU and memory, side by side in one run; about ten minutes
	cargo build --locked --release --package flux
	cargo bench --locked --package flux --bench pipeline

realism: build .deps/realism ## Emits years of readings and compares their statistics with those of real load data; about five minutes
	.deps/realism/bin/python tests/realism/statistics_of_readings.py target/debug/flux $(ARGS)

monitoring: packages-monitoring $(if $(BUILT),,build) ## Checks rules, alerts, routes and every query of every dashboard on a running pipeline; about two minutes
	python3 tests/monitoring/check.py target/debug/flux

snowflake: $(if $(BUILT),,build) .deps/snowflake ## Checks Snowflake's SQL: parses it, and runs the dynamic tables on emitted data; about a minute
	.deps/snowflake/bin/python tests/snowflake/check.py target/debug/flux

plots: build .deps/realism ## Draws docs/realism.png
	.deps/realism/bin/python tests/realism/plots.py target/debug/flux docs/realism.png

clean: ## Removes what was built and fetched
	rm -rf target .deps .flux

# Debian packages that are missing are installed; a machine without apt gets a message instead.
define install
missing=""; for package in $(1); do dpkg -s "$$package" >/dev/null 2>&1 || missing="$$missing $$package"; done; \
case "$$missing" in *default-jre-headless*) if command -v java >/dev/null; then missing="$${missing/default-jre-headless/}"; fi;; esac; \
case "$$missing" in *maven*) if command -v mvn >/dev/null; then missing="$${missing/maven/}"; fi;; esac; \
case "$$missing" in *python3*) if python3 -c 'import ensurepip' 2>/dev/null; then missing="$${missing/python3-venv/}"; missing="$${missing/python3/}"; fi;; esac; \
missing="$$(echo $$missing)"; \
if [ -n "$$missing" ]; then \
  echo "installing: $$missing"; \
  if ! command -v apt-get >/dev/null; then echo "this machine has no apt-get; install these yourself: $$missing" >&2; exit 2; fi; \
  sudo=""; [ "$$(id -u)" = 0 ] || sudo="sudo"; \
  $$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
fi
endef

packages-up:
	@$(call install,$(PACKAGES_UP))
	@command -v cargo >/dev/null || { echo "cargo is not installed: get the Rust toolchain, 1.93 or newer" >&2; exit 2; }

packages-test:
	@$(call install,$(PACKAGES_TEST))

packages-monitoring:
	@$(call install,prometheus prometheus-alertmanager postgresql-client python3)

# Apache Kafka is on Maven Central as jars.
.deps/kafka/lib: tests/kafka/pom.xml
	@echo "fetching Apache Kafka into $@"
	mvn -q -f tests/kafka/pom.xml $(MAVEN_COPY) -DoutputDirectory=$(CURDIR)/.deps/kafka/lib
	touch $@

.deps/python: tests/requirements.txt
	@echo "installing Python clients into $@"
	python3 -m venv $@
	$@/bin/pip install --quiet --requirement tests/requirements.txt
	touch $@

.deps/realism: tests/realism/requirements.txt
	@$(call install,python3 python3-venv)
	@echo "installing Polars into $@"
	python3 -m venv $@
	$@/bin/pip install --quiet --requirement tests/realism/requirements.txt
	touch $@

.deps/snowflake: tests/snowflake/requirements.txt
	@$(call install,python3 python3-venv)
	@echo "installing the offline SQL engine into $@"
	python3 -m venv $@
	$@/bin/pip install --quiet --requirement tests/snowflake/requirements.txt
	touch $@

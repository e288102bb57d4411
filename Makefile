# make run: installs what is missing and starts Wonted. make test: the same, and runs the tests. Both can be repeated, and work offline then.
SHELL := /bin/bash
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo -E PYTHONDONTWRITEBYTECODE=1)
ARGS ?=
TESTS ?= tests
MAKEFLAGS += --no-print-directory

.PHONY: run demo doctor test test-kernels bench live recordings check config pin setup setup-test setup-bench setup-live clean

run: setup
	@exec $(SUDO) .venv/bin/wonted run $(ARGS)

demo: setup
	@exec $(SUDO) .venv/bin/wonted demo $(ARGS)

doctor: setup
	@exec $(SUDO) .venv/bin/wonted doctor $(ARGS)

test: setup-test
	@exec $(SUDO) .venv/bin/python -m pytest -n 2 --dist loadscope $(TESTS) $(ARGS)

test-kernels: setup-test  ## the kernel tests on the kernels of Debian 12 and 13, emulated: half an hour (tests/kernels/run.sh)
	@exec $(SUDO) tests/kernels/run.sh $(ARGS)

bench: setup-bench  ## what Wonted costs: about ten minutes; ARGS="cost --quick" for one round, ARGS=--help for the rest
	@exec $(SUDO) .venv/bin/python -m tests.benchmarks $(ARGS)

live: setup-live  ## the live examination in a real container: an hour (docs/live.md); ARGS="--learn 90s --enforce 2m" for a short one
	@exec $(SUDO) .venv/bin/python -m tests.live $(ARGS)

check: setup-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

config: setup  ## config/wonted.yaml from the schema
	.venv/bin/python -m config.reference > config/wonted.yaml.new && mv config/wonted.yaml.new config/wonted.yaml

pin:  ## requirements*.txt from requirements*.in
	config/pin.sh

recordings: setup-test  ## the library of tests/recordings anew: six real services and an attack on each, four minutes
	@exec $(SUDO) .venv/bin/python -m tests.recordings

setup:
	@config/setup.sh run

setup-test:
	@config/setup.sh test

setup-bench:
	@config/setup.sh bench

setup-live:
	@config/setup.sh live

clean:  ## what the targets above made in this folder; data in /var/lib/wonted stays
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

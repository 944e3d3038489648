# make demo · make test · make check · make bench · make docs: each sets up .venv by itself, with python3 -m venv and pip.
#
#   TORCH=cpu   (default) the CPU build of torch;  TORCH=cuda  the build that the package index gives, with CUDA
#   PYTHON=…    the interpreter to make .venv with (3.11 or newer)

PYTHON ?= python3
TORCH  ?= cpu
VENV   ?= .venv

TORCH_VERSION := 2.13.0
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu
BIN     := $(VENV)/bin
PLUGINS := plugins/llama plugins/qwen plugins/gemma plugins/phi plugins/opt plugins/bert plugins/mixtral plugins/mamba plugins/jamba plugins/lfm2 plugins/towers plugins/llava plugins/blip2 plugins/fuyu plugins/whisper plugins/voxtral
READY   := $(VENV)/.ready
# two processes with a thread each are quicker than one with two; a file's tests share what they made
PYTEST  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile
PIP     := $(BIN)/python -m pip install --disable-pip-version-check -q

.PHONY: demo test check bench docs wheels format clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml $(PLUGINS:%=%/pyproject.toml)
	@echo "Setting up $(VENV): a few minutes, once."
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),cpu)
	@$(PIP) "torch==$(TORCH_VERSION)+cpu" 2>/dev/null || $(PIP) "torch==$(TORCH_VERSION)" --index-url $(TORCH_CPU_INDEX)
else
	@$(PIP) "torch==$(TORCH_VERSION)"
endif
	@$(PIP) -e ".[dev]" $(PLUGINS:%=-e ./%)
	@touch $@

demo: $(READY)  ## a picture, questions about it, and answers; a clip, and what is said in it
	@$(BIN)/engine run demo/llava --example
	@printf '\nSpeech, in seconds from the start of the clip:\n\n'
	@$(BIN)/engine transcribe demo/whisper --example
	@printf '\nMore: engine run demo/fuyu --example · engine serve demo/llava\n'

test: $(READY)  ## every test
	@$(PYTEST)

check: $(READY)  ## what CI runs: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) --hypothesis-profile=ci  # which tries the same examples each time

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## speed beside transformers, and as a share of what the machine gives
	@$(BIN)/python -m benchmarks

docs: $(READY)  ## the documentation as a site, in build/site
	@$(BIN)/zensical build --strict

wheels: $(READY)  ## a wheel and an sdist of each distribution, in dist/
	@$(BIN)/python scripts/release.py wheels

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build

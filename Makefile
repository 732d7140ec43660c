# One word per task. Each creates the environment it needs; only Python, make and a C++ compiler must be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
export CMAKE_ARGS ?= -DGGML_RPC=ON
# GCC 11 and 12 compile the engine's AMX tiles wrongly (llamacli/runtime/tiles.py); without them it is only slower.
COMPILER := $(shell $(CXX) -dM -E -x c++ /dev/null 2>/dev/null)
ifneq (,$(and $(findstring __x86_64__,$(COMPILER)),$(or $(findstring __GNUC__ 11,$(COMPILER)),$(findstring __GNUC__ 12,$(COMPILER)))))
export CXXFLAGS += -mno-amx-tile -mno-amx-int8 -mno-amx-bf16
endif

.PHONY: demo test lint format install clean

demo: $(VENV)/installed
	$(BIN)/python demo/demo.py

test: $(VENV)/developing
	$(BIN)/python -m pytest

lint: $(VENV)/developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin

format: $(VENV)/developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --editable .
	@touch $@

$(VENV)/developing: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist demo-out

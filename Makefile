# One command each. The first call makes a virtual environment in .venv; later calls are quick.
#   make demo      learn two subjects from five pictures each and draw outputs/demo/demo.png (about 3 minutes on 2 CPU cores)
#   make ui        the page, on this machine only, with the adapters in outputs/
#   make test      every test
#   make lint      style and types
#   make install   the library with everything that training and the page need
# PYTHON=python3.12 picks the interpreter. TORCH= picks the build of PyTorch; on Linux without an NVIDIA card, this one is small:
#   make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
RUN = $(VENV)/bin/python

.PHONY: demo test ui lint install

demo: $(VENV)/.installed-train
	$(RUN) -m lily_diffusion.cli demo

ui: $(VENV)/.installed-ui
	$(RUN) -m lily_diffusion.cli ui --adapters_dir outputs

test: $(VENV)/.installed-test # a file of tests on each core
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

install: $(VENV)/.installed-train $(VENV)/.installed-ui

# PyTorch comes first and by itself, so that nothing else picks its build.
$(VENV)/.installed-%: pyproject.toml | $(RUN)
	$(RUN) -c "import torch" 2>/dev/null || $(RUN) -m pip install $(TORCH)
	$(RUN) -m pip install -e ".[$*]"
	touch $@

$(RUN):
	$(PYTHON) -m venv $(VENV)

# The two commands of a fresh machine: `make demo` and `make test`.
# PYTHON=python3.12 chooses the interpreter, VENV=… the place of the virtual environment,
# CONSTRAINTS=.ci/oldest.txt the versions of the dependencies, INSTALL=… the command that installs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
INSTALLED := $(VENV)/.installed
INSTALL ?= $(BIN)/python -m pip install --disable-pip-version-check --quiet
CONSTRAINTS ?=

# Several processes with one thread each are done sooner than one process with several threads.
PROCESSES ?= 2
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(PROCESSES) --dist worksteal

# The main job in three minutes: files are opened with every decoder, a run trains, is interrupted,
# resumes and is evaluated, videos are predicted, foreign checkpoints are loaded, models exported.
PORTABLE := tests/test_packaging.py tests/data/test_decode.py tests/data/test_real_videos.py \
    tests/engine/test_train.py tests/engine/test_evaluate.py tests/inference tests/tools \
    tests/checkpoint/test_load.py tests/checkpoint/test_files.py tests/models/test_mvit_parity.py \
    tests/ops/test_kernels.py tests/ops/test_tracing.py

DEMO_DATA := data/demo
DEMO_RUN := runs/demo
# Waiting threads give the core to the process that decodes: a quarter faster on two cores.
export OMP_WAIT_POLICY ?= passive
DEMO_CONFIG := configs/DEMO/MVITv2_XS.yaml

.PHONY: demo test test-operators test-portable check-gpu docs lint clean

# Installs once, and again only where the dependencies may have changed.
$(INSTALLED): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS)) --editable ".[dev]"
	touch $@

# Writes the demo data set, trains, evaluates with several views, and predicts a clip of val.csv.
demo: $(INSTALLED)
	$(BIN)/python tools/make_demo_data.py --output $(DEMO_DATA)
	$(BIN)/python tools/run_net.py --cfg $(DEMO_CONFIG) \
	    DATA.PATH_TO_DATA_DIR $(DEMO_DATA) OUTPUT_DIR $(DEMO_RUN)
	clip=$$(head -n 1 $(DEMO_DATA)/val.csv | cut -d ' ' -f 1) && \
	$(BIN)/python tools/predict.py "$(DEMO_DATA)/$$clip" --cfg $(DEMO_RUN)/config.yaml \
	    --checkpoint $(DEMO_RUN) --picture $(DEMO_RUN)/prediction.png
	@echo "Pictures of the demo:"
	@find $(DEMO_RUN) -name '*.png' | sort

# COVERAGE=1 adds which share of the package's lines the tests run, and lists the missing ones.
COVERAGE ?=
test: $(INSTALLED)
	$(PYTEST) -m "not slow" $(if $(COVERAGE),--cov --cov-report=term-missing:skip-covered)

# Neither processes nor videos: what macOS and Windows have to pass too.
test-operators: $(INSTALLED)
	$(PYTEST) -m "not slow" tests/ops tests/heads tests/models tests/config

test-portable: $(INSTALLED)
	$(PYTEST) -m "not slow" $(PORTABLE)

# What a GPU shows: agreement with the CPU, the recipe of Kinetics-400, speed beside other libraries
# (build/gpu.md, within five minutes).
# Installs nothing: without a virtual environment here, PYTHON has the dependencies.
# DEVICE=cpu tries the tests where there is no GPU.
DEVICE ?= cuda
CHECK_PYTHON := $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
check-gpu: PROCESSES = 6
check-gpu:
	$(CHECK_PYTHON) -m videonet doctor
	VIDEONET_TEST_DEVICE=$(DEVICE) $(CHECK_PYTHON) -m pytest -q -m cuda --durations 10 \
	    $$($(CHECK_PYTHON) -c "import xdist" 2> /dev/null && echo "-n $(PROCESSES)"); \
	    passed=$$?; \
	$(CHECK_PYTHON) tools/benchmark.py gpu --device $(DEVICE) --output build/gpu && exit $$passed

# The pages of docs/ and the reference made of the docstrings; a warning is an error.
docs: $(INSTALLED)
	$(INSTALL) --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir build/site
	@echo "build/site/index.html"

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy videonet

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache $(DEMO_DATA) $(DEMO_RUN)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

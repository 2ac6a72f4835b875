# The two commands of a fresh machine: `make demo` and `make test`.
# PYTHON=python3.12 chooses the interpreter, VENV=… the place of the virtual environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

DEMO_DATA := data/demo
DEMO_RUN := runs/demo
# Waiting threads give the core to the process that decodes: a quarter faster on two cores.
export OMP_WAIT_POLICY ?= passive
DEMO_CONFIG := configs/DEMO/MVITv2_XS.yaml

.PHONY: demo test lint clean

# Installs once, and again only where the dependencies may have changed.
$(INSTALLED): setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable ".[dev]"
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

test: $(INSTALLED)
	$(BIN)/python -m pytest -q -m "not slow"

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache $(DEMO_DATA) $(DEMO_RUN)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
